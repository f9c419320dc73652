// Push: a line to every connection each second, on whichever loop it is.   npm run example:push   then: nc 127.0.0.1 1833
import { availableParallelism } from 'node:os'
import { isMainThread } from 'node:worker_threads'
import { type Handler, Server } from 'ringloop'
import { exampleFlags, serve } from './flags.js'

const listener: Handler = {
  onConnect: (c) => void c.send(`you are on loop ${c.loop.id}\n`),
  onMessage() {},
}

export default listener

if (isMainThread) {
  const { every, options } = exampleFlags({ loops: availableParallelism(), every: 1000 })
  const server = new Server(import.meta.url, options)
  let count = 0
  server.runEvery(every, async () => {
    count++
    const { sent, dropped } = await server.broadcast(`message ${count}\n`)
    if (sent + dropped > 0) console.error(`message ${count} to ${sent} connections, ${dropped} were too slow`)
  })
  await serve(server)
}
