/** IIP echo on one ringloop loop: a router with one path, statistics as by default. Started by the two files beside it. */
import { Server } from 'ringloop'
import { IipProtocol, IipRouter } from 'ringloop/iip'
import { startRingloop } from './start-ringloop.js'

export async function serveIip(poller: 'native' | 'net'): Promise<void> {
  const router = new IipRouter().handle('/echo', ({ data }) => data)
  const server = new Server(router, { address: '127.0.0.1:0', poller, protocol: new IipProtocol() })
  await startRingloop(server)
}
