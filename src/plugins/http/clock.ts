/**
 * What all HTTP connections of a protocol on one loop share: the Date field, the heads of plain answers, and the sweep
 * that finds who has waited too long. One timer in all; a request only notes when it came.
 */
import { ResponseHead } from '../../http1/index.js'
import { LogLimit, type Loop, type ProtocolConnection, type Timer } from '../../index.js'
import type { HttpOutput } from './response.js'

const MAX_PERIOD = 500
const MIN_PERIOD = 20
/** Sweeps within the shortest time-out. */
const SWEEPS = 4

// biome-ignore lint/suspicious/noExplicitAny: the loop has connections of other protocols too
type Sweep = (c: ProtocolConnection<any>, now: number) => void

export class HttpClock {
  /** Milliseconds on a clock of its own; as old as the last sweep. */
  now = 0
  /** A time-out that is over by this clock and this much more is over. */
  readonly period: number
  /** What is logged of answers that never came, or broke off. */
  readonly answerLog: LogLimit = new LogLimit()
  readonly #loop: Loop
  readonly #sweep: Sweep
  #timer: Timer | undefined
  #open = 0
  #date = ''
  #textHead: Buffer = Buffer.alloc(0)
  #textLength = -1

  constructor(loop: Loop, timeouts: readonly number[], sweep: Sweep) {
    const shortest = Math.min(...timeouts.filter((ms) => ms > 0))
    this.period = Math.max(MIN_PERIOD, Math.min(MAX_PERIOD, Math.floor(shortest / SWEEPS)))
    this.#loop = loop
    this.#sweep = sweep
  }

  /** A connection more; the first one starts the timer. */
  enter(): void {
    this.#open++
    if (this.#open > 1) return
    this.#read()
    this.#timer ??= this.#loop.runEvery(this.period, () => this.#tick()).unref()
    if (!this.#timer.active) this.#timer.restart()
  }

  /** One less; the last one stops the timer. */
  leave(): void {
    this.#open--
    if (this.#open === 0) this.#timer?.stop()
  }

  /** `Date: …` with its line end. */
  get date(): string {
    return this.#date
  }

  /** The head of a `200` whose body is `length` bytes of plain text. */
  textHead(length: number): Buffer {
    if (length !== this.#textLength) {
      this.#textLength = length
      const head = new ResponseHead(200, undefined).text('', length, '', this.#date)
      this.#textHead = Buffer.from(head, 'latin1')
    }
    return this.#textHead
  }

  #read(): void {
    this.now = performance.now()
    const date = `Date: ${new Date().toUTCString()}\r\n`
    if (date === this.#date) return
    this.#date = date
    this.#textLength = -1
  }

  /** After a time in which the loop was busy it first reads what has come meanwhile. */
  #tick(): void {
    const before = this.now
    this.#read()
    const { now } = this
    if (now - before > 2 * this.period) return
    for (const c of this.#loop.connections as Iterable<ProtocolConnection<HttpOutput>>) this.#sweep(c, now)
  }
}
