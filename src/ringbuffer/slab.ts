/**
 * Memory from which small buffers are cut: cheaper than an allocation for each, and owned by whoever keeps one of them. A
 * kept buffer keeps its whole slab alive, hence a small one for small buffers. One thread only.
 */
import { Buffer } from 'node:buffer'
import { markAsUntransferable } from 'node:worker_threads'

const SMALL_SLAB_SIZE = 8192
/** Longer ones come from the large slab. */
const SMALL_UP_TO = 256
const LARGE_SLAB_SIZE = 65536
/** Longer buffers get memory of their own. */
export const LARGE_UP_TO: number = 16384

const NO_MEMORY: ArrayBufferLike = new ArrayBuffer(0)

/** What `Buffer.from(arrayBuffer, offset, length)` ends in after its checks: half the time of a small copy. */
const BufferOn: new (memory: ArrayBufferLike, offset: number, length: number) => Buffer =
  Buffer[Symbol.species as never]

/** A buffer on `length` bytes of `memory` from `at` on, which must be there: nothing is checked. */
export function bufferOn(memory: ArrayBufferLike, at: number, length: number): Buffer {
  return new BufferOn(memory, at, length)
}

/**
 * Cuts one buffer after another from one piece of memory, and takes a new piece when that is used up. For who writes a
 * buffer through a `DataView` before it exists, by the word, without a view being made for each:
 *
 *     const at = slab.reserve(length)
 *     slab.window.setUint32(at, …)
 *     const data = slab.cut(at, length)
 *
 * The memory cannot be transferred to another thread, as that of Node's own pool: whoever tries copies it (before
 * Node 21) or gets a `DataCloneError`, for other buffers lie in it too.
 */
export class BufferSlab {
  readonly #size: number
  #used: number
  #memory: ArrayBufferLike = NO_MEMORY
  #bytes: Buffer = Buffer.from(NO_MEMORY)
  #window: DataView = new DataView(NO_MEMORY as ArrayBuffer)

  /** `size` is the most that can be reserved at a time. */
  constructor(size: number = SMALL_SLAB_SIZE) {
    this.#size = size
    this.#used = size + 1 // so that the first buffer, even an empty one, makes the memory
  }

  /** What is cut from now on lies in here, until the next {@link reserve}. */
  get memory(): ArrayBufferLike {
    return this.#memory
  }

  /** All of {@link memory}, byte by byte. */
  get bytes(): Buffer {
    return this.#bytes
  }

  /** All of {@link memory}, by the word. */
  get window(): DataView {
    return this.#window
  }

  /** The offset of `length` bytes in what is {@link memory} then, with whatever they hold; a multiple of 8. */
  reserve(length: number): number {
    if (this.#used + length > this.#size) this.#renew(length)
    const at = this.#used
    this.#used = (at + length + 7) & ~7
    return at
  }

  #renew(length: number): void {
    if (length > this.#size)
      throw new RangeError(`${length} bytes cannot be cut from a slab of ${this.#size}`)
    this.#bytes = Buffer.allocUnsafeSlow(this.#size)
    this.#memory = this.#bytes.buffer
    markAsUntransferable(this.#memory)
    this.#window = new DataView(this.#memory)
    this.#used = 0
  }

  /** The buffer on what {@link reserve} has given last. */
  cut(at: number, length: number): Buffer {
    return bufferOn(this.#memory, at, length)
  }
}

/** For copies of up to 256 bytes, of this thread. */
export const smallSlab: BufferSlab = new BufferSlab(SMALL_SLAB_SIZE)
export const largeSlab: BufferSlab = new BufferSlab(LARGE_SLAB_SIZE)

/**
 * A buffer of `length` bytes with whatever they hold, the caller's own, cut from a slab of this thread up to 16 KiB. It
 * starts at a multiple of 8 in its memory.
 */
export function allocateBuffer(length: number): Buffer {
  if (length > LARGE_UP_TO) return Buffer.allocUnsafeSlow(length)
  const slab = length <= SMALL_UP_TO ? smallSlab : largeSlab
  return slab.cut(slab.reserve(length), length)
}
