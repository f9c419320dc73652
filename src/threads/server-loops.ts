/** The loops of one server, as it sees them: one in its own thread (local-loop.ts), or a thread each (loop-threads.ts). */
import type { Endpoint } from '../loop/poller/poller.js'
import type { Publication } from '../loop/publication.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import type { ServerTlsOptions } from '../tls-options.js'

export interface ServerLoops {
  /** Resolves when every loop serves, to where they listen. What a rejection leaves behind is for `stop` to end. */
  start(): Promise<Endpoint>
  /**
   * Ends every loop, those that are still starting too; connections get `drain` ms for their last bytes. Never rejects:
   * what fails is logged and the rest is ended all the same. A second call gives the same promise.
   */
  stop(drain: number): Promise<void>
  broadcast(out: unknown, options: BroadcastOptions): Promise<BroadcastResult>
  /** To the subscribers of every loop, in the order of the calls. */
  publish(publication: Publication): Promise<BroadcastResult>
  /** Whoever is accepted from now on is served with these options, on every loop. Rejects where one of them cannot. */
  setTls(tls: ServerTlsOptions): Promise<void>
  /** Of every loop together. */
  subscribers(topic: string): Promise<number>
}
