// WebSocket echo: text comes back as text, binary as binary.   npm run example -- websocket-echo --port 1833 --deflate

import { isMainThread } from 'node:worker_threads'
import { type EventLoop, type Handler, Server } from 'ringloop'
import { type WebSocketContext, type WebSocketOut, WebSocketProtocol } from 'ringloop/websocket'
import { exampleFlags, serve } from './flags.js'

const echo: Handler<WebSocketContext, WebSocketOut> = {
  onMessage: (_c, _ctx, data) => data,
}

/** Each loop's thread imports this very file and takes its handler and its protocol from here. */
export default echo
export const protocol = (loop: EventLoop): WebSocketProtocol => makeProtocol(loop.data === true)

function makeProtocol(deflate: boolean): WebSocketProtocol {
  return new WebSocketProtocol({ perMessageDeflate: deflate })
}

if (isMainThread) {
  const { loops, deflate, options, oneLoop } = exampleFlags({ deflate: false })
  const server =
    loops === 1
      ? new Server(echo, { ...oneLoop(), protocol: makeProtocol(deflate) })
      : new Server<WebSocketContext, WebSocketOut>(import.meta.url, { ...options, data: deflate })
  await serve(server)
}
