/** One ringloop loop in the main thread that echoes, with the poller that is asked for. */
import { type Handler, RawProtocol, Server } from 'ringloop'
import { startRingloop } from './start-ringloop.js'

const handler: Handler = { onMessage: (_c, _ctx, data) => data }

export async function serveEcho(poller: 'native' | 'net', borrow = false): Promise<void> {
  const protocol = new RawProtocol({ borrow })
  const server = new Server(handler, { address: '127.0.0.1:0', poller, protocol, backlog: 4096 })
  await startRingloop(server)
}
