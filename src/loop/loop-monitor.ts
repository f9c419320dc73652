/**
 * Watches one loop's thread from within: how late its timers are, and how much of its time it runs. Started only where
 * somebody looks (`metrics`, `console`), because it wakes an idle thread. The loop's thread only.
 */
import type { EventLoop } from './event-loop.js'
import { CELL, LoopCounters } from './stats.js'

const INTERVAL_MS = 50

export class LoopMonitor {
  readonly #loop: EventLoop
  readonly #counters: LoopCounters
  readonly #tick = (): void => this.#sample()
  #timer: NodeJS.Timeout
  #due = 0
  #activeMs = 0
  #idleMs = 0

  /** Watches until `stop`; it does not keep the process alive. */
  constructor(loop: EventLoop) {
    this.#loop = loop
    this.#counters = new LoopCounters(loop.sharedStats, loop.id)
    this.#countTime()
    this.#timer = this.#arm()
  }

  #arm(): NodeJS.Timeout {
    this.#due = performance.now() + INTERVAL_MS
    return setTimeout(this.#tick, INTERVAL_MS).unref()
  }

  #sample(): void {
    this.#counters.addDelay(Math.max(0, performance.now() - this.#due))
    this.#countTime()
    // What callbacks outside of a batch have counted is published at the end of a turn.
    this.#loop.scheduleTurn()
    this.#timer = this.#arm()
  }

  #countTime(): void {
    const { active, idle } = performance.eventLoopUtilization()
    this.#counters.add(CELL.activeMs, active - this.#activeMs)
    this.#counters.add(CELL.idleMs, idle - this.#idleMs)
    this.#activeMs = active
    this.#idleMs = idle
  }

  stop(): void {
    clearTimeout(this.#timer)
  }
}
