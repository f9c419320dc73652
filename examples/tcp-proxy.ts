// A TCP proxy: every connection gets one of its own to --to HOST:PORT.   npm run example -- tcp-proxy --to 127.0.0.1:1833
import { isMainThread } from 'node:worker_threads'
import { type Handler, pipe, Server } from 'ringloop'
import { exampleFlags, serve } from './flags.js'

/** What each loop is told: where the connections go. */
type Data = { readonly to: string }

/** Once the two are piped no packet is handed over any more: bytes go from one to the other, and so do their ends. */
const proxy: Handler<undefined, Uint8Array | string, unknown, Data> = {
  async onConnect(c) {
    const { to } = c.loop.data
    const upstream = await c.loop.connect(to, { handler: { onMessage() {} } })
    if (c.connected) void pipe(c, upstream)
    else upstream.close()
  },
  onMessage() {},
}

export default proxy

if (isMainThread) {
  const { to, options } = exampleFlags({ to: '127.0.0.1:1833', port: 1834 })
  const data: Data = { to }
  await serve(new Server(import.meta.url, { ...options, data }))
}
