// WebSocket topics: the text `sub NAME`, `unsub NAME` or `pub NAME TEXT`; every subscriber, on whichever loop, gets `NAME TEXT`.
//   npm run example -- websocket-topics --port 1833 --loops 2

import { isMainThread } from 'node:worker_threads'
import { type Handler, Server } from 'ringloop'
import { type WebSocketContext, type WebSocketOut, WebSocketProtocol } from 'ringloop/websocket'
import { exampleFlags, serve } from './flags.js'

/** A name that no topic can have throws: that ends this connection. */
const topics: Handler<WebSocketContext, WebSocketOut> = {
  onMessage(c, _ctx, data) {
    const [command, name = '', ...words] = data.toString().split(' ')
    if (command === 'sub') c.subscribe(name)
    else if (command === 'unsub') c.unsubscribe(name)
    else if (command === 'pub') void c.loop.publish<WebSocketOut>(name, `${name} ${words.join(' ')}`)
  },
}

/** Each loop's thread imports this very file and takes its handler and its protocol from here. */
export default topics
export const protocol: WebSocketProtocol = new WebSocketProtocol()

if (isMainThread) {
  const { loops, options, oneLoop } = exampleFlags()
  const server =
    loops === 1
      ? new Server(topics, { ...oneLoop(), protocol })
      : new Server<WebSocketContext, WebSocketOut>(import.meta.url, options)
  await serve(server)
}
