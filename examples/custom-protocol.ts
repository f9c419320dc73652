// A protocol of your own: a length (4 bytes, big-endian), then so many bytes.   npm run example -- custom-protocol
// and, while that runs, the client:   npm run example -- custom-protocol --client
import { isMainThread } from 'node:worker_threads'
import {
  type Connection,
  EventLoop,
  type Handler,
  type Packet,
  type Protocol,
  ProtocolError,
  type RingBuffer,
  Server,
} from 'ringloop'
import { type ExampleFlags, exampleFlags, orExit, serve } from './flags.js'

const HEADER = 4
const MAX_LENGTH = 64 * 1024

class LengthPrefixed implements Protocol {
  unPacket(_c: Connection, buffer: RingBuffer): Packet | undefined {
    if (buffer.length < HEADER) return undefined // not yet: it is asked again when more has come
    const length = buffer.peekUint32()
    if (length > MAX_LENGTH) throw new ProtocolError(`${length} bytes are too many: ${MAX_LENGTH} at most`)
    if (buffer.length < HEADER + length) return undefined
    buffer.retrieve(HEADER)
    return { ctx: undefined, data: buffer.take(length) }
  }

  packet(_c: Connection, out: Uint8Array | string): Uint8Array[] {
    const body = typeof out === 'string' ? Buffer.from(out) : out
    const header = Buffer.allocUnsafe(HEADER)
    header.writeUInt32BE(body.length)
    return [header, body]
  }
}

const shout: Handler = {
  onMessage: (_c, _ctx, data) => data.toString().toUpperCase(),
}

export default shout
export const protocol: Protocol = new LengthPrefixed()

/** The other side is a loop too. It ends by itself when its last connection has. */
async function ask({ address, poller }: ExampleFlags['options'], questions: string[]): Promise<void> {
  let left = questions.length
  const answers: Handler = {
    onMessage(c, _ctx, data) {
      console.log(`answer: '${data}'`)
      left--
      if (left === 0) c.close()
    },
    onClose(_c, reason) {
      if (left > 0) console.error(`${left} answers are missing: ${reason.message}`)
      process.exitCode = left > 0 ? 1 : 0
    },
  }
  const loop = new EventLoop({ poller })
  const c = await loop.connect(address, { handler: answers, protocol })
  for (const question of questions) c.send(question)
}

if (isMainThread) {
  const { client, options } = exampleFlags({ client: false })
  if (client) await orExit(ask(options, ['hello', '', 'packets have borders']))
  else await serve(new Server(import.meta.url, options))
}
