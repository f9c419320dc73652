// WebSocket topics: the text `sub NAME`, `unsub NAME` or `pub NAME TEXT`; every subscriber, on whichever loop, gets `NAME TEXT`.
//   npm run example -- websocket-topics --port 1833 --loops 2
// With --redis URL or --nats URL also those of every other process that has the same.

import { isMainThread } from 'node:worker_threads'
import { type Connection, type Handler, Server } from 'ringloop'
import { type WebSocketContext, type WebSocketOut, WebSocketProtocol, webSocketOf } from 'ringloop/websocket'
import { BROKER_FLAGS, brokerOf, exampleFlags, serve } from './flags.js'

/** RFC 6455, section 7.4.1: a message against the server's policy. */
const POLICY_VIOLATION = 1008

const topics: Handler<WebSocketContext, WebSocketOut> = {
  onMessage(c, _ctx, data) {
    try {
      obey(c, data.toString())
    } catch (error) {
      // It has named what no topic can be called.
      webSocketOf(c).close(POLICY_VIOLATION, (error as Error).message)
    }
  },
}

function obey(c: Connection<WebSocketOut>, text: string): void {
  const [command, name = '', ...words] = text.split(' ')
  if (command === 'sub') c.subscribe(name)
  else if (command === 'unsub') c.unsubscribe(name)
  else if (command === 'pub') void c.loop.publish<WebSocketOut>(name, `${name} ${words.join(' ')}`)
}

/** Each loop's thread imports this very file and takes its handler and its protocol from here. */
export default topics
export const protocol: WebSocketProtocol = new WebSocketProtocol()

if (isMainThread) {
  const { options, oneLoop, ...flags } = exampleFlags(BROKER_FLAGS)
  const broker = await brokerOf(flags)
  const server =
    flags.loops === 1
      ? new Server(topics, { ...oneLoop(), protocol, broker })
      : new Server<WebSocketContext, WebSocketOut>(import.meta.url, { ...options, broker })
  await serve(server)
}
