// Closes a connection when no byte went in or out for so long.   npm run example -- idle-connection --idle 3000
import { isMainThread } from 'node:worker_threads'
import { type Handler, Server } from 'ringloop'
import { exampleFlags, serve } from './flags.js'

const echo: Handler = {
  onConnect: (c) => void c.send(`say something every ${c.idleTime} ms\n`),
  onMessage(c, _ctx, data) {
    if (data.toString().trim() === 'relax') c.idleTime *= 2 // each connection may have its own
    return data
  },
  onClose: (c, reason) => console.error(`${c.peerAddr}: ${reason.message}`),
}

export default echo

if (isMainThread) {
  const { idle, options } = exampleFlags({ idle: 5000 })
  await serve(new Server(import.meta.url, { ...options, idleTime: idle }))
}
