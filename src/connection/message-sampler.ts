/**
 * Times the handler of about one message in 128, which then stands for those since the last one: a clock read for each
 * would cost as much as a small handler. Which message is next is drawn by lot: traffic may have a period of its own.
 * The loop's thread only.
 */
import type { Connection } from '../connection.js'
import type { Handler } from '../handler.js'

/** Of so many messages one is timed, on average. */
const SAMPLE_MEAN = 128
/** At a low rate more messages are timed than one in SAMPLE_MEAN: the first after so long. */
const SAMPLE_MS = 10

export class MessageSampler {
  /** Counts down to the message that is timed. */
  left = 1
  /** How many messages the timed one stands for. */
  #messages = 1
  #timedAt = 0
  readonly #onTimed: (ms: number, messages: number) => void

  /** `onTimed` gets how long the handler took, and for how many messages that stands. */
  constructor(onTimed: (ms: number, messages: number) => void) {
    this.#onTimed = onTimed
  }

  /** A turn begins: after a quiet time the next message is timed, and stands for those since the last one. */
  beginTurn(now: number): void {
    if (((now - this.#timedAt) | 0) < SAMPLE_MS) return
    this.#messages += 1 - this.left
    this.left = 1
  }

  /** Calls `onMessage` and times it. */
  time<Ctx, Out>(
    handler: Handler<Ctx, Out>,
    c: Connection<Out>,
    now: number,
    ctx: Ctx,
    data: Buffer,
  ): ReturnType<Handler<Ctx, Out>['onMessage']> {
    const messages = this.#messages
    this.#messages = 1 + Math.floor(Math.random() * (2 * SAMPLE_MEAN - 1))
    this.left = this.#messages
    this.#timedAt = now
    const start = performance.now()
    try {
      return handler.onMessage(c, ctx, data)
    } finally {
      this.#onTimed(performance.now() - start, messages)
    }
  }
}
