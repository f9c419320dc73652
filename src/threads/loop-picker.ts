/**
 * Finds a loop for an accepted connection and gives it away. `maxConnections` is kept here, over all loops, where the
 * server's thread accepts. The server's thread only.
 */
import type { SharedStats } from '../loop/stats.js'
import type { Balancer } from './load-balance.js'
import type { LoopThread } from './loop-thread.js'

/** What became of one connection at one loop: `gone` when that loop's thread has ended, `failed` when it cannot take it. */
export type HandOff = 'given' | 'gone' | 'failed'

/** What is left to do for the acceptor: nothing, close it, or keep it until a loop is alive. */
export type Given = 'given' | 'rejected' | 'nobody'

export class LoopPicker {
  readonly #loops: readonly LoopThread[]
  readonly #balancer: Balancer
  readonly #stats: SharedStats
  readonly #maxConnections: number

  constructor(loops: readonly LoopThread[], balancer: Balancer, stats: SharedStats, maxConnections: number) {
    this.#loops = loops
    this.#balancer = balancer
    this.#stats = stats
    this.#maxConnections = maxConnections
  }

  /** Counts the connection at the loop that the balancer picks, and lets `handOff` send it there; where that one is gone, to another. */
  give(peerAddr: () => string, handOff: (loop: LoopThread) => HandOff): Given {
    for (;;) {
      const index = this.#balancer.pick(this.#loops, peerAddr)
      const loop = this.#loops[index]
      if (loop === undefined) return 'nobody'
      if (!this.#stats.admit(index, this.#maxConnections)) return 'rejected'
      const result = handOff(loop)
      if (result === 'given') return result
      this.#stats.leave(index)
      if (result === 'failed') return 'rejected'
      loop.markDead()
    }
  }
}
