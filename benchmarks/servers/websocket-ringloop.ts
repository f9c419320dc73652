/** One ringloop loop in the main thread that echoes WebSocket messages, with the poller that is asked for. */
import { Server } from 'ringloop'
import { WebSocketProtocol } from 'ringloop/websocket'
import { EXIT_UNAVAILABLE } from '../harness/suite.js'
import { ready } from './ready.js'

export async function serveWebSocket(poller: 'native' | 'net'): Promise<void> {
  const options = { address: '127.0.0.1:0', poller, backlog: 4096, protocol: new WebSocketProtocol() }
  const server = new Server({ onMessage: (_c, _ctx, data) => data }, options)
  try {
    await server.start()
  } catch (error) {
    if ((error as { code?: string }).code !== 'ERR_RINGLOOP_POLLER') throw error
    console.error((error as Error).message)
    process.exit(EXIT_UNAVAILABLE)
  }
  const address = server.address
  ready(address.host, address.port)
}
