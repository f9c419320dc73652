/**
 * One server of a balancer: its client, and whether it may be asked. It lives on its balancer's thread and owns its client.
 *
 *     asked ── maxFailures failures ─▶ paused ── its time is over ─▶ one request tries it ── success ─▶ asked
 *                                        ▲─────────────────────────────────┘ failure
 */
import type { IipClient } from './client.js'

/** One server, as the balancer sees it now. */
export interface BackendStatus {
  readonly address: string
  readonly weight: number
  /** It has failed, or is being tried after that: it is not asked unless there is no other. */
  readonly paused: boolean
  /** Failures since the last success. */
  readonly failures: number
  /** Requests that wait for their answers. */
  readonly pending: number
  readonly connections: number
}

/** Of all servers of a balancer; see `IipBalancerOptions`. */
export interface BackendLimits {
  readonly maxFailures: number
  readonly pause: number
}

export class Backend {
  readonly address: string
  readonly weight: number
  readonly client: IipClient
  readonly #limits: BackendLimits
  /** Since the last success. */
  #failures = 0
  /** In ms of `performance.now()`; 0: it is not paused. */
  #pausedUntil = 0
  /** Its pause is over, and one request tries whether it is back. */
  #isTried = false
  /** It has said that it is going to stop: answers to what it still has are no sign that it is back. */
  #isDraining = false

  constructor(address: string, weight: number, client: IipClient, limits: BackendLimits) {
    this.address = address
    this.weight = weight
    this.client = client
    this.#limits = limits
  }

  get status(): BackendStatus {
    const { address, weight, client } = this
    const paused = !this.mayBeAsked
    return {
      address,
      weight,
      paused,
      failures: this.#failures,
      pending: client.pending,
      connections: client.connections,
    }
  }

  /** `false`: only where there is no other. */
  get mayBeAsked(): boolean {
    return this.#pausedUntil === 0 || (!this.#isTried && this.#pausedUntil <= performance.now())
  }

  /** A request goes to it. `true`: it is the one that tries it, which owes a {@link tried}. */
  begin(): boolean {
    if (this.#pausedUntil === 0 || !this.mayBeAsked) return false
    this.#isTried = true
    this.#isDraining = false
    return true
  }

  /** Whatever became of the request that {@link begin} let try it. */
  tried(): void {
    this.#isTried = false
  }

  succeeded(): void {
    this.#failures = 0
    if (!this.#isDraining) this.#pausedUntil = 0
  }

  /** `true`: that is why it is paused from now on. `isCertain`: no more failures are needed. */
  failed(isCertain = false): boolean {
    this.#failures = isCertain ? Math.max(this.#failures + 1, this.#limits.maxFailures) : this.#failures + 1
    if (this.#failures < this.#limits.maxFailures) return false
    const wasAsked = this.mayBeAsked || this.#isTried
    this.#pause()
    return wasAsked
  }

  /** It says that it is going to stop. */
  drain(): void {
    this.#isDraining = true
    this.#pause()
  }

  /** It is not asked for a while, and then by one request first. */
  #pause(): void {
    this.#pausedUntil = performance.now() + this.#limits.pause
  }
}
