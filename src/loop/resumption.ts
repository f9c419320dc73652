/**
 * A subscriber of a topic with history on its way from where it was to where the topic is: what is published meanwhile is
 * held back for it, and what it got from the history it does not get again. The loop's thread only.
 */
import Denque from 'denque'
import type { BrokerPosition } from '../broker.js'

/** So much is held back at most; what is older is dropped. */
const MAX_HELD = 1024
const MAX_HELD_BYTES = 4 * 1024 * 1024

export interface Held {
  readonly out: unknown
  readonly position: BrokerPosition
}

export class Resumption {
  readonly #held = new Denque<Held>()
  #bytes = 0
  /** The last one for which there was no room. */
  #dropped: BrokerPosition | undefined = undefined
  /** What was dropped did not come from the history either. */
  isBroken = false
  /** What it has got. Until it is over everything is held back. */
  #upTo: BrokerPosition | undefined = undefined
  #isOver = false

  hold(out: unknown, position: BrokerPosition): void {
    this.#held.push({ out, position })
    this.#bytes += bytesOf(out)
    while (this.#held.length > MAX_HELD || this.#bytes > MAX_HELD_BYTES) {
      const oldest = this.#held.shift()!
      this.#bytes -= bytesOf(oldest.out)
      this.#dropped = oldest.position
    }
  }

  /** What was held back and does not lie before `upTo`, in order; it is held no longer. */
  take(upTo: BrokerPosition | undefined): readonly Held[] {
    const held = this.#held.toArray()
    this.#held.clear()
    this.#bytes = 0
    if (this.#dropped !== undefined && !(upTo !== undefined && isUpTo(this.#dropped, upTo)))
      this.isBroken = true
    return upTo === undefined ? held : held.filter(({ position }) => !isUpTo(position, upTo))
  }

  /** It has everything up to `upTo`. What lies before that may still come. What is held back yet is dropped. */
  end(upTo: BrokerPosition | undefined): void {
    this.#isOver = true
    this.#upTo = upTo
    this.#held.clear()
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

function bytesOf(out: unknown): number {
  return typeof out === 'string' || out instanceof Uint8Array ? out.length : 0
}
