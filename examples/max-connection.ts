// At most N connections, all loops together; further ones are closed at once.   npm run example:maxconnection -- --max 2
import { isMainThread } from 'node:worker_threads'
import { type Handler, Server } from 'ringloop'
import { exampleFlags, serve } from './flags.js'

const welcome: Handler = {
  onConnect: (c) => void c.send('welcome\n'),
  onMessage: (_c, _ctx, data) => data,
}

export default welcome

if (isMainThread) {
  const { max, options } = exampleFlags({ max: 3 })
  const server = new Server(import.meta.url, { ...options, maxConnections: max })
  let reported = 0
  server.runEvery(1000, () => {
    const { connections, rejected } = server.stats().total
    if (rejected > reported) console.error(`${connections} connections are open, ${rejected} were rejected`)
    reported = rejected
  })
  await serve(server)
}
