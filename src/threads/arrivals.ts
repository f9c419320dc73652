/**
 * What has come from other threads and waits for its turn: a round of Node's loop takes about a millisecond's worth of it,
 * in the order in which it came, so that those who are served here get theirs in between. How much may wait is bounded by
 * whoever sends it. The thread that it came to only.
 */
import Denque from 'denque'

/** How long a round may go on with it. */
const ROUND_MS = 1

export class Arrivals<Message> {
  readonly #waiting = new Denque<Message>()
  readonly #take: (message: Message) => boolean
  readonly #round = (): void => this.#runRound()

  /** `take` gives `true` where there is more in the message, for which it is called again. It must not throw. */
  constructor(take: (message: Message) => boolean) {
    this.#take = take
  }

  /** It is taken in a later round: what comes in one leaves together. */
  add(message: Message): void {
    if (this.#waiting.push(message) === 1) setImmediate(this.#round)
  }

  #runRound(): void {
    const end = performance.now() + ROUND_MS
    do if (!this.#take(this.#waiting.peekFront()!)) this.#waiting.shift()
    while (this.#waiting.length > 0 && performance.now() < end)
    if (this.#waiting.length > 0) setImmediate(this.#round)
  }
}
