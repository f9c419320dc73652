/** One ringloop loop in the main thread that echoes over TLS, with the poller that is asked for. */
import { type Handler, Server } from 'ringloop'
import { credentials } from '../harness/credentials.js'
import { startRingloop } from './start-ringloop.js'

const handler: Handler = { onMessage: (_c, _ctx, data) => data }

export async function serveTls(poller: 'native' | 'net'): Promise<void> {
  const server = new Server(handler, { address: '127.0.0.1:0', poller, tls: credentials(), backlog: 4096 })
  await startRingloop(server)
}
