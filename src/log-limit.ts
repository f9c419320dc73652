/**
 * Keeps a log short that peers can make longer: of the lines of one kind it lets one through in a period, and says how many
 * were left out before it. One for each loop; it holds a few numbers per kind. The loop's thread only.
 */

import { toError } from './errors.js'

const PERIOD_MS = 1000
/** Kinds may be what peers make up, so that there is no end of them. */
const MAX_KINDS = 64
/** So much of an error's message tells it from others: messages may be as long as what a peer sends. */
const KIND_LENGTH = 200

interface Period {
  /** When the last line was let through. */
  since: number
  leftOut: number
}

export class LogLimit {
  readonly #periods: Map<string, Period> = new Map()
  /** Of the kinds for which there was no room. */
  readonly #others: Period = beginning()
  readonly #periodMs: number

  /** `periodMs`: how often a line of one kind is let through. Default 1 s. */
  constructor(periodMs: number = PERIOD_MS) {
    this.#periodMs = periodMs
  }

  /**
   * Called before a line of the kind is written: how many were left out since the last one, or `undefined` where this one
   * is to be left out. 64 kinds are told apart at a time; what is beyond them counts as one.
   */
  admit(kind: string, now: number = performance.now()): number | undefined {
    const period = this.#periodOf(kind, now)
    if (now - period.since < this.#periodMs) {
      period.leftOut++
      return undefined
    }
    const { leftOut } = period
    period.since = now
    period.leftOut = 0
    return leftOut
  }

  /** The same before a line that says that `what` has failed: a kind is that and the error's message. */
  admitError(what: string, error: unknown): number | undefined {
    return this.admit(`${what}: ${toError(error).message.slice(0, KIND_LENGTH)}`)
  }

  #periodOf(kind: string, now: number): Period {
    const known = this.#periods.get(kind)
    if (known !== undefined) return known
    if (this.#periods.size >= MAX_KINDS) this.#forget(now)
    if (this.#periods.size >= MAX_KINDS) return this.#others
    const period = beginning()
    this.#periods.set(kind, period)
    return period
  }

  /** Those whose period is over. What they have left out is not lost. */
  #forget(now: number): void {
    for (const [kind, { since, leftOut }] of this.#periods) {
      if (now - since < this.#periodMs) continue
      this.#others.leftOut += leftOut
      this.#periods.delete(kind)
    }
  }
}

function beginning(): Period {
  return { since: Number.NEGATIVE_INFINITY, leftOut: 0 }
}
