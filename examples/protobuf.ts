// Protobuf: greets who says hello; with --client it says so.   npm run example -- protobuf   and beside it: … --client
import { isMainThread } from 'node:worker_threads'
import protobuf from 'protobufjs'
import { EventLoop, type Handler, Server } from 'ringloop'
import { type AnyMessage, ProtobufProtocol } from 'ringloop/protobuf'
import { exampleFlags, orExit, serve } from './flags.js'

const { root } = protobuf.parse(`
  syntax = "proto3";
  message Hello { string name = 1; int32 id = 2; }
  message Response { string content = 1; }
`)

interface Hello {
  name: string
  id: number
}

interface Response {
  content: string
}

/** The names are those on the wire; each loop's thread imports this very file and takes its protocol from here. */
const types: { hello: protobuf.Type; response: protobuf.Type } = {
  hello: root.lookupType('Hello'),
  response: root.lookupType('Response'),
}
export const protocol: ProtobufProtocol<typeof types> = new ProtobufProtocol({ types })

type Message = AnyMessage<typeof types>

const greeter: Handler<Message, Message | Uint8Array> = {
  onMessage(_c, { type, message }) {
    if (type !== 'hello') return
    const { name, id } = message as unknown as Hello
    return { type: 'response', message: types.response.create({ content: `hello ${name}, number ${id}` }) }
  },
}
export default greeter

async function greet(address: { host: string; port: number }, name: string): Promise<void> {
  const loop = new EventLoop()
  const handler: Handler<Message, Message | Uint8Array> = {
    onMessage(c, { message }) {
      console.log((message as unknown as Response).content)
      c.close()
    },
    onClose: () => void loop.stop(),
  }
  const c = await orExit(loop.connect(address, { handler, protocol }))
  c.send({ type: 'hello', message: types.hello.create({ name, id: 1 }) })
}

if (isMainThread) {
  const flags = exampleFlags({ client: false, name: 'gopher' })
  // One loop runs here, more import this file.
  const server =
    flags.loops === 1
      ? new Server(greeter, { ...flags.oneLoop(), protocol })
      : new Server<Message, Message | Uint8Array>(import.meta.url, flags.options)
  await (flags.client ? greet(flags.options.address, flags.name) : serve(server))
}
