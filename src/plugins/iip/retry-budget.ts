/**
 * How many requests a balancer may send again: a share of those that it was given of late, and some in any case. When
 * all servers are slow or ill retries would otherwise make it worse. Its balancer's thread only.
 */

/** Milliseconds that are looked back upon, and up to twice that. */
const WINDOW = 10_000
/** So many are free in that time, for a client with few requests. */
const RESERVE = 100

export class RetryBudget {
  readonly #share: number
  /** In this window and in the one before. */
  #requests = 0
  #requestsBefore = 0
  #retries = 0
  #retriesBefore = 0
  #windowEnd = 0

  /** `share` of the requests may be sent again; `Infinity` is no limit. */
  constructor(share: number) {
    this.#share = share
  }

  /** A request was made. */
  request(): void {
    this.#turn()
    this.#requests++
  }

  /** One is to be sent again. `false`: there were too many. */
  retry(): boolean {
    this.#turn()
    const allowed = RESERVE + this.#share * (this.#requests + this.#requestsBefore)
    if (this.#retries + this.#retriesBefore >= allowed) return false
    this.#retries++
    return true
  }

  #turn(): void {
    const now = performance.now()
    if (now < this.#windowEnd) return
    const isNext = now - this.#windowEnd < WINDOW
    this.#requestsBefore = isNext ? this.#requests : 0
    this.#retriesBefore = isNext ? this.#retries : 0
    this.#requests = 0
    this.#retries = 0
    this.#windowEnd = now + WINDOW
  }
}
