/** One ringloop loop in the main thread that echoes WebSocket messages, with the poller that is asked for. */
import { Server, type ServerTlsOptions } from 'ringloop'
import { WebSocketProtocol } from 'ringloop/websocket'
import { startRingloop } from './start-ringloop.js'

export async function serveWebSocket(poller: 'native' | 'net', tls?: ServerTlsOptions): Promise<void> {
  const options = { address: '127.0.0.1:0', poller, backlog: 4096, protocol: new WebSocketProtocol(), tls }
  const server = new Server({ onMessage: (_c, _ctx, data) => data }, options)
  await startRingloop(server)
}
