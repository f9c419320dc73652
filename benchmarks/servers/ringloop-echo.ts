/** One ringloop loop in the main thread that echoes, with the poller that is asked for. */
import { type Handler, Server } from 'ringloop'
import { EXIT_UNAVAILABLE } from '../harness/suite.js'
import { ready } from './ready.js'

const handler: Handler = { onMessage: (_c, _ctx, data) => data }

export async function serveEcho(poller: 'native' | 'net'): Promise<void> {
  const server = new Server(handler, { address: '127.0.0.1:0', poller, backlog: 4096 })
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
