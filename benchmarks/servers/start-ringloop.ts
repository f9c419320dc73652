/** Starts a ringloop server of any kind; where the poller that it asks for is missing, its contender is skipped. */
import type { Server } from 'ringloop'
import { EXIT_UNAVAILABLE } from '../harness/suite.js'
import { ready } from './ready.js'

export async function startRingloop(server: Pick<Server, 'start' | 'address'>): Promise<void> {
  try {
    await server.start()
  } catch (error) {
    if ((error as { code?: string }).code !== 'ERR_RINGLOOP_POLLER') throw error
    console.error((error as Error).message)
    process.exit(EXIT_UNAVAILABLE)
  }
  ready(server.address.host, server.address.port)
}
