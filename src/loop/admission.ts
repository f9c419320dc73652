/**
 * Whether an accepted connection may come in: the count of open connections that all loops of a server share, and its
 * limit. Each loop's thread has one of its own over the same counters.
 */
import type { SharedStats } from './stats.js'

/** Decides at accept whether a connection may come in, and counts it. */
export interface Admission {
  /** `false`: it is closed at once. `isCounted`: whoever sent it here has counted it. */
  admit(isCounted: boolean): boolean
  /** One that may have been counted never got here. */
  lose(isCounted: boolean): void
}

/** `maxConnections` over all loops. What came through a mailbox was counted by the acceptor when it chose the loop. */
export class SharedAdmission implements Admission {
  readonly #stats: SharedStats
  readonly #loop: number
  readonly #maxConnections: number

  constructor(stats: SharedStats, loop: number, maxConnections: number) {
    this.#stats = stats
    this.#loop = loop
    this.#maxConnections = maxConnections
  }

  admit(isCounted: boolean): boolean {
    return isCounted || this.#stats.admit(this.#loop, this.#maxConnections)
  }

  lose(isCounted: boolean): void {
    if (isCounted) this.#stats.leave(this.#loop)
  }
}
