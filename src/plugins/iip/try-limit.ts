/**
 * The time that a request has for one server while there are others: when it is over, and the budget has a retry left,
 * the request is given up here, to be sent to another; otherwise it waits on. Made for one try, whose end stops it. Its
 * balancer's thread only.
 */
import type { Loop, Timer } from '../../index.js'
import { timeoutError } from './client-call.js'
import type { RetryBudget } from './retry-budget.js'
import { type Abortable, unwatchSignal, watchSignal } from './shared-signal.js'

export class TryLimit implements Abortable {
  readonly #budget: RetryBudget
  readonly #time: number
  readonly #given: AbortSignal | undefined
  readonly #controller = new AbortController()
  readonly #timer: Timer
  #isOver = false

  /** `time` in ms; `given` is the caller's own signal. */
  constructor(loop: Loop, budget: RetryBudget, time: number, given: AbortSignal | undefined) {
    this.#budget = budget
    this.#time = time
    this.#given = given
    this.#timer = loop.runAfter(time, () => this.#end())
    if (given?.aborted === true) this.aborted(given)
    else if (given !== undefined) watchSignal(given, this)
  }

  /** Ends the try, for the caller or because the time is over. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** It was over, and its retry has been taken from the budget. */
  get isOver(): boolean {
    return this.#isOver
  }

  aborted(given: AbortSignal): void {
    this.#controller.abort(given.reason)
  }

  /** The try has ended. */
  stop(): void {
    this.#timer.stop()
    if (this.#given !== undefined) unwatchSignal(this.#given, this)
  }

  #end(): void {
    if (!this.#budget.retry()) return
    this.#isOver = true
    this.#controller.abort(timeoutError(this.#time, true))
  }
}
