/**
 * A message that is being put together from what has come of its packets. It owns its memory, which grows with the bytes
 * that are really there: a length that a peer merely claims reserves nothing.
 */
import type { RingBuffer } from '../../index.js'

const FIRST_CAPACITY = 64 * 1024
/** How much more than what has come is reserved. */
const GROWTH = 4

export class Assembly {
  #buffer: Buffer = Buffer.alloc(0)
  #length = 0

  get length(): number {
    return this.#length
  }

  /** Bytes of memory it holds. */
  get capacity(): number {
    return this.#buffer.length
  }

  /** Moves `count` bytes out of the ring; `toCome` more of the same packet follow. `only`: and nothing else. */
  append(ring: RingBuffer, count: number, toCome: number, only: boolean): void {
    const needed = this.#length + count
    if (needed > this.#buffer.length) {
      const known = needed + toCome
      this.#grow(needed, only ? known : Math.max(known, this.#buffer.length * 2))
    }
    ring.copyTo(this.#buffer, this.#length, 0, count)
    ring.retrieve(count)
    this.#length = needed
  }

  #grow(needed: number, expected: number): void {
    const wanted = Math.max(FIRST_CAPACITY, needed * GROWTH)
    const larger = Buffer.allocUnsafeSlow(Math.min(wanted, expected))
    this.#buffer.copy(larger, 0, 0, this.#length)
    this.#buffer = larger
  }

  /** The whole message, the caller's own. */
  take(): Buffer {
    return this.#length === this.#buffer.length ? this.#buffer : this.#buffer.subarray(0, this.#length)
  }
}
