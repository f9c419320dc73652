/**
 * A subscriber of a topic with history on its way from where it was to where the topic is: what is published meanwhile is
 * held back for it, and what it got from the history it does not get again. The loop's thread only.
 */
import type { BrokerPosition } from '../broker.js'

/** So much is held back at most; then it cannot catch up. */
const MAX_HELD = 1024
const MAX_HELD_BYTES = 4 * 1024 * 1024

export interface Held {
  readonly out: unknown
  readonly position: BrokerPosition
}

export class Resumption {
  #held: Held[] = []
  #bytes = 0
  /** What was held back could not all be. */
  isBroken = false
  /** What it has got. Until it is over everything is held back. */
  #upTo: BrokerPosition | undefined = undefined
  #isOver = false

  hold(out: unknown, position: BrokerPosition): void {
    const bytes = typeof out === 'string' || out instanceof Uint8Array ? out.length : 0
    if (this.isBroken || this.#held.length >= MAX_HELD || this.#bytes + bytes > MAX_HELD_BYTES) {
      this.isBroken = true
      this.#held = []
      return
    }
    this.#held.push({ out, position })
    this.#bytes += bytes
  }

  /** What was held back and does not lie before `upTo`, in order; it is held no longer. */
  take(upTo: BrokerPosition | undefined): readonly Held[] {
    const held = this.#held
    this.#held = []
    this.#bytes = 0
    return upTo === undefined ? held : held.filter(({ position }) => !isUpTo(position, upTo))
  }

  /** It has everything up to `upTo`. What lies before that may still come. */
  end(upTo: BrokerPosition | undefined): void {
    this.#isOver = true
    this.#upTo = upTo
  }

  /** Whether what is at `position` is held back, or was got already, or begins what is to be delivered. */
  place(position: BrokerPosition): 'hold' | 'skip' | 'deliver' {
    if (!this.#isOver) return 'hold'
    return this.#upTo !== undefined && isUpTo(position, this.#upTo) ? 'skip' : 'deliver'
  }
}

function isUpTo(position: BrokerPosition, upTo: BrokerPosition): boolean {
  return position.epoch === upTo.epoch && position.offset <= upTo.offset
}
