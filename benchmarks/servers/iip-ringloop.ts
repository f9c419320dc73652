/** IIP echo on one ringloop loop: a router with one path, statistics as by default. Started by the two files beside it. */
import { Server } from 'ringloop'
import { IipProtocol, IipRouter } from 'ringloop/iip'
import { EXIT_UNAVAILABLE } from '../harness/suite.js'
import { ready } from './ready.js'

export async function serveIip(poller: 'native' | 'net'): Promise<void> {
  const router = new IipRouter().handle('/echo', ({ data }) => data)
  const server = new Server(router, { address: '127.0.0.1:0', poller, protocol: new IipProtocol() })
  try {
    await server.start()
  } catch (error) {
    if ((error as { code?: string }).code !== 'ERR_RINGLOOP_POLLER') throw error
    console.error((error as Error).message)
    process.exit(EXIT_UNAVAILABLE)
  }
  ready(server.address.host, server.address.port)
}
