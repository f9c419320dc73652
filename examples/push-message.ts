// Push: a line to every subscriber each second, on whichever loop it is.   npm run example:push   then: nc 127.0.0.1 1833, and say off or on
import { availableParallelism } from 'node:os'
import { isMainThread } from 'node:worker_threads'
import { type Handler, LineProtocol, Server } from 'ringloop'
import { exampleFlags, serve } from './flags.js'

const TOPIC = 'messages'

const listener: Handler = {
  onConnect(c) {
    c.send(`you are on loop ${c.loop.id}`)
    c.subscribe(TOPIC)
  },
  onMessage(c, _ctx, line) {
    const word = line.toString()
    if (word === 'on') c.subscribe(TOPIC)
    return word === 'off' && c.unsubscribe(TOPIC) ? 'no more messages' : undefined
  },
}

/** Each loop's thread imports this very file and takes its handler and its protocol from here. */
export default listener
export const protocol: LineProtocol = new LineProtocol()

if (isMainThread) {
  const { every, options } = exampleFlags({ loops: availableParallelism(), every: 1000 })
  const server = new Server(import.meta.url, options)
  let count = 0
  server.runEvery(every, async () => {
    count++
    const { sent, dropped } = await server.publish(TOPIC, `message ${count}`)
    if (sent + dropped > 0) console.error(`message ${count} to ${sent} subscribers, ${dropped} were too slow`)
  })
  await serve(server)
}
