/**
 * Idle ring buffers of one loop, so that only connections with unfinished packets own memory. The pool owns the rings
 * in it, and whoever took one owns that until giving it back. One thread only.
 */
import assert from 'node:assert'
import { checkOptions, type OptionNames } from '../check-options.js'
import { RingBuffer } from './ring-buffer.js'

export interface RingBufferPoolOptions {
  /** Rings kept at most; more are left to the garbage collector. Default 1024. */
  maxBuffers?: number
  /** A ring that has grown beyond this many bytes is not kept. Default 65536. */
  maxCapacity?: number
  /** Bytes of a new ring's first storage. Default 4096. */
  initialCapacity?: number
  /** Bytes to which a ring may grow while it is out; see the constructor of {@link RingBuffer}. Default no limit. */
  growthLimit?: number
}

const OPTIONS = {
  maxBuffers: true,
  maxCapacity: true,
  initialCapacity: true,
  growthLimit: true,
} as const satisfies OptionNames<RingBufferPoolOptions>

/** A stack of rings: the one given last is taken first, since its memory is most likely still in the cache. */
export class RingBufferPool {
  readonly #idle: RingBuffer[] = []
  readonly #maxBuffers: number
  readonly #maxCapacity: number
  readonly #initialCapacity: number
  readonly #growthLimit: number

  /** Throws `ERR_RINGLOOP_OPTION` for options that it does not have. */
  constructor(options: RingBufferPoolOptions = {}) {
    checkOptions('a ring buffer pool', options, OPTIONS)
    this.#maxBuffers = options.maxBuffers ?? 1024
    this.#maxCapacity = options.maxCapacity ?? 65536
    this.#initialCapacity = options.initialCapacity ?? 4096
    this.#growthLimit = options.growthLimit ?? Number.POSITIVE_INFINITY
  }

  /** Rings waiting to be taken. */
  get size(): number {
    return this.#idle.length
  }

  /** An empty ring, the caller's own until it is given back. */
  take(): RingBuffer {
    const ring = this.#idle.pop()
    if (ring === undefined) return new RingBuffer(this.#initialCapacity, this.#growthLimit)
    ring.pooled = false
    return ring
  }

  /** Empties the ring and keeps it, unless it is too large or there are enough. It must not be used after this. */
  give(ring: RingBuffer): void {
    if (ring.pooled) assert.fail('a ring buffer was given to the pool twice')
    ring.reset()
    if (this.#idle.length >= this.#maxBuffers || ring.capacity > this.#maxCapacity) return
    ring.pooled = true
    this.#idle.push(ring)
  }
}
