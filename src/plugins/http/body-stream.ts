/** The body of a request on its way from the protocol to the handler. Bounded: while much of it waits, the peer does. */
import { ErrorCode, RingBuffer, RingloopError } from '../../index.js'

/** What a stream asks of its connection. */
export interface BodySource {
  /** The handler wants the first bytes. */
  begin(): void
  pause(): void
  resume(): void
}

/** So many bytes may wait for the handler until the peer is held back. */
const FULL = 64 * 1024

interface Reader {
  resolve(result: IteratorResult<Buffer, undefined>): void
  reject(error: Error): void
}

/** Read once, by one reader: `for await (const piece of request.stream)`. */
export class BodyStream implements AsyncIterableIterator<Buffer, undefined> {
  readonly #source: BodySource
  readonly #waiting: RingBuffer = new RingBuffer()
  #begun = false
  #ended = false
  #discarded = false
  #error: Error | undefined
  #reader: Reader | undefined
  #full = false

  constructor(source: BodySource) {
    this.#source = source
  }

  /** The peer is held back because the handler does not read. */
  get isFull(): boolean {
    return this.#full
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  next(): Promise<IteratorResult<Buffer, undefined>> {
    if (!this.#begun) {
      this.#begun = true
      if (!this.#ended && !this.#discarded) this.#source.begin()
    }
    if (this.#reader !== undefined) {
      return Promise.reject(new RingloopError(ErrorCode.STATE, 'a body is read by one, and piece by piece'))
    }
    return new Promise((resolve, reject) => {
      this.#reader = { resolve, reject }
      this.#serve()
    })
  }

  /** The handler has seen enough: the rest is thrown away. */
  return(): Promise<IteratorResult<Buffer, undefined>> {
    this.discard()
    return Promise.resolve({ done: true, value: undefined })
  }

  /** Takes `buffer[0…count)` out of the connection's bytes. */
  take(buffer: RingBuffer, count: number): void {
    if (this.#discarded) {
      buffer.retrieve(count)
      return
    }
    moveBytes(buffer, this.#waiting, count)
    this.#serve()
    if (this.#waiting.length < FULL || this.#full) return
    this.#full = true
    this.#source.pause()
  }

  end(): void {
    this.#ended = true
    this.#serve()
  }

  fail(error: Error): void {
    if (this.#ended) return
    this.#error = error
    this.#serve()
  }

  discard(): void {
    this.#discarded = true
    this.#waiting.reset()
    this.#unblock()
    this.#serve()
  }

  #serve(): void {
    const reader = this.#reader
    if (reader === undefined) return
    if (!this.#waiting.isEmpty) {
      this.#reader = undefined
      reader.resolve({ done: false, value: this.#waiting.take(this.#waiting.length) })
      this.#unblock()
    } else if (this.#error !== undefined) {
      this.#reader = undefined
      reader.reject(this.#error)
    } else if (this.#ended || this.#discarded) {
      this.#reader = undefined
      reader.resolve({ done: true, value: undefined })
    }
  }

  #unblock(): void {
    if (!this.#full) return
    this.#full = false
    this.#source.resume()
  }
}

/** Moves the first `count` bytes, without a view being made of them where they lie in one piece. */
export function moveBytes(from: RingBuffer, to: RingBuffer, count: number): void {
  const first = Math.min(count, from.contiguous)
  to.writeRange(from.storage, from.start, from.start + first)
  from.retrieve(first)
  if (first < count) moveBytes(from, to, count - first)
}
