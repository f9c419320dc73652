/**
 * Memory from which copies for handlers are cut: cheaper than an allocation for each, and owned by whoever keeps one of
 * them. A kept copy keeps its whole slab alive, hence a small one for small copies. One pair for each thread.
 */
import { Buffer } from 'node:buffer'

const SMALL_SLAB_SIZE = 8192
/** Longer ones come from the large slab. */
const SMALL_COPY_UP_TO = 256
const LARGE_SLAB_SIZE = 65536
/** Longer copies get memory of their own. */
const LARGE_COPY_UP_TO = 16384

const NO_MEMORY: ArrayBufferLike = new ArrayBuffer(0)

/** What `Buffer.from(arrayBuffer, offset, length)` ends in after its checks: half the time of a small copy. */
export const BufferOn: new (memory: ArrayBufferLike, offset: number, length: number) => Buffer =
  Buffer[Symbol.species as never]

/** One piece of memory after another. */
class Slab {
  readonly #size: number
  #used: number
  memory: ArrayBufferLike = NO_MEMORY
  window: DataView = new DataView(NO_MEMORY as ArrayBuffer)

  constructor(size: number) {
    this.#size = size
    this.#used = size + 1 // so that the first copy, even an empty one, makes the memory
  }

  /** The offset of `length` bytes in what is `memory` then; a multiple of 8. */
  reserve(length: number): number {
    if (this.#used + length > this.#size) {
      this.memory = Buffer.allocUnsafeSlow(this.#size).buffer
      this.window = new DataView(this.memory)
      this.#used = 0
    }
    const at = this.#used
    this.#used = (at + length + 7) & ~7
    return at
  }
}

export const smallSlab: Slab = new Slab(SMALL_SLAB_SIZE)
const largeSlab: Slab = new Slab(LARGE_SLAB_SIZE)

/** A buffer of `length` bytes with whatever they hold, starting at a multiple of 8 in its memory. */
export function allocate(length: number): Buffer {
  if (length > LARGE_COPY_UP_TO) return Buffer.allocUnsafeSlow(length)
  const slab = length <= SMALL_COPY_UP_TO ? smallSlab : largeSlab
  const at = slab.reserve(length)
  return new BufferOn(slab.memory, at, length)
}
