/**
 * The one timer of a connection: it watches the handshake, then for idleness, and once the connection is closing for a
 * peer that does not take the rest. A message costs it nothing but the time of the last byte, which the table keeps: when
 * the timer fires it looks at that, and sets itself for what is left. Made when first needed. The loop's thread only.
 */
import { Timer } from '../timers/timer.js'

/** The connection, as its timer sees it. */
export interface TimedConnection {
  readonly isClosing: boolean
  /** How long it may be idle, or, while it is closing, take none of its last bytes; in ms. */
  readonly patience: number
  /** Milliseconds since a byte last went in or out. */
  readonly idleFor: number
  /** An answer is pending: that is no idleness. */
  readonly isBusy: boolean
  /** How many rounds it takes until every socket that is ready has been read. */
  readonly roundsToReadAll: number
  readClock(): number
  handshakeIsLate(): void
  idleIsOver(): void
  closeIsLate(): void
}

export class ConnectionTimer extends Timer {
  /** It watches for a peer that does not take the rest. */
  isWatchingClose = false
  readonly #connection: TimedConnection
  /** When the handshake and a promise of `onConnect` must be over, by the loop's clock. */
  #deadline: number | undefined = undefined
  /** How often it found its time over: everything that had come must have been read first. */
  #looks = 0

  constructor(connection: TimedConnection) {
    super()
    this.#connection = connection
    this.unref()
  }

  /** The handshake must be over in `ms`; the caller starts the timer. */
  startHandshake(ms: number): void {
    this.#deadline = (this.#connection.readClock() + ms) | 0
  }

  /** The handshake is being watched. */
  get isWatchingHandshake(): boolean {
    return this.#deadline !== undefined
  }

  endHandshake(): void {
    this.#deadline = undefined
    this.#looks = 0
  }

  fire(): void {
    const c = this.#connection
    const { isClosing, patience } = c
    const deadline = isClosing ? undefined : this.#deadline
    const rest = deadline === undefined ? patience - c.idleFor : (deadline - c.readClock()) | 0
    if (rest > 0) {
      this.#looks = 0
      this.restart(rest)
    } else if (++this.#looks <= c.roundsToReadAll) {
      // Timers run before the poll: after a stall the bytes that came meanwhile have not been read yet.
      this.restart(0)
    } else if (isClosing) {
      c.closeIsLate()
    } else if (deadline !== undefined) {
      c.handshakeIsLate()
    } else if (c.isBusy) {
      this.restart(patience)
    } else {
      c.idleIsOver()
    }
  }
}
