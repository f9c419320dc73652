/**
 * Fairness: who has had enough of the loop's time and waits for the next turn. One connection may not hurt another, so a
 * connection hands over packets for about a millisecond in a turn; what is left waits in its ring, and it waits here, in
 * turn with the others. The sockets are polled between two rounds. The loop's thread only.
 *
 * Reading the clock for each packet would cost as much as a small packet, so it is read after every so many, and how many
 * that is follows from what packets have cost in the turns before.
 */
import Denque from 'denque'
import type { Turns, TurnTaker } from '../connection/host.js'

/** How long one connection may go on in one turn. */
const SLICE_MS = 1
/** How long those who wait may take together between two polls. Where there are more of them each gets less. */
const ROUND_MS = 4
const MIN_SLICE_MS = 0.1
/** Between two looks at the clock there should not be more than this. */
const LOOK_MS = 0.25
const MAX_PACKETS_PER_LOOK = 32
/** Promises that may go on between two polls: each of them is trusted to stop after half a millisecond. */
const YIELDS_PER_ROUND = 4
/** Of those who ask whether it is late, one in so many makes it look at the clock. */
const ASKED_PER_LOOK = 8
/** A chain of promises has kept the loop for so long that it should let the others have their turn. */
const OVERDUE_MS = 0.5

export class TurnQueue implements Turns {
  packetsPerLook: number = MAX_PACKETS_PER_LOOK
  readonly #connections = new Denque<TurnTaker>()
  readonly #yielded = new Denque<() => void>()
  readonly #onWaiting: () => void
  #lastLook = 0
  #untilTired: number = ASKED_PER_LOOK
  /** When callbacks began to run after the sockets were last polled, as far as the loop knows. */
  #runningSince = 0

  /** `onWaiting` is called when somebody begins to wait. */
  constructor(onWaiting: () => void) {
    this.#onWaiting = onWaiting
  }

  /** Nobody waits for a turn. */
  get isEmpty(): boolean {
    return this.#connections.length === 0 && this.#yielded.length === 0
  }

  get slice(): number {
    const share = ROUND_MS / (1 + this.#connections.length)
    return share > SLICE_MS ? SLICE_MS : Math.max(share, MIN_SLICE_MS)
  }

  /** A turn begins. */
  begin(now: number): void {
    this.#lastLook = now
    this.#runningSince = now
  }

  /** Somebody has looked at the clock. */
  look(now: number): void {
    this.#lastLook = now
  }

  lap(): number {
    const now = performance.now()
    const lap = now - this.#lastLook
    this.#lastLook = now
    return lap
  }

  get isOverdue(): boolean {
    return performance.now() - this.#runningSince > OVERDUE_MS
  }

  get isTired(): boolean {
    if (--this.#untilTired > 0) return false
    const isTired = this.isOverdue
    // Once it is, everybody who asks is told so, until the next turn.
    this.#untilTired = isTired ? 1 : ASKED_PER_LOOK
    return isTired
  }

  push(c: TurnTaker): void {
    this.#connections.push(c)
    this.#onWaiting()
  }

  /** Resolves in a later round. */
  yield(): Promise<void> {
    return new Promise((resolve) => {
      this.#yielded.push(resolve)
      this.#onWaiting()
    })
  }

  /** One round: those who wait now go on, in the order in which they came, as far as the time allows. */
  run(): void {
    const end = performance.now() + ROUND_MS
    this.#lastLook = end - ROUND_MS
    for (let left = this.#connections.length; left > 0 && this.#lastLook < end; left--) {
      this.#connections.shift()!.takeTurn()
      this.#lastLook = performance.now()
    }
    const resumed = Math.min(this.#yielded.length, YIELDS_PER_ROUND)
    for (let i = 0; i < resumed; i++) this.#yielded.shift()!()
    this.#runningSince = performance.now()
  }

  /** So many packets took so long: that is how often the clock is looked at from now on. */
  learn(packets: number, ms: number): void {
    if (ms <= 0) return
    const perLook = Math.trunc((packets * LOOK_MS) / ms)
    this.packetsPerLook = Math.max(1, Math.min(perLook, MAX_PACKETS_PER_LOOK))
  }

  /** The loop has stopped: whoever yielded goes on, the connections have ended. */
  close(): void {
    this.#connections.clear()
    for (let resolve = this.#yielded.shift(); resolve !== undefined; resolve = this.#yielded.shift())
      resolve()
  }
}
