/**
 * A message whose bytes are taken as they come, instead of all at once. The session pushes, one reader iterates; both on
 * the loop's thread. The chunks are the reader's own.
 */
import Denque from 'denque'
import { ErrorCode, RingloopError } from '../../index.js'

/** Told when the reader took bytes, or will take no more. */
export interface BodyOwner {
  bodyRead(bytes: number): void
}

/**
 * The bytes of a request or response, chunk by chunk, once. The iteration rejects when the connection ends before the
 * body does, and with `ERR_RINGLOOP_STATE` for a second reader. Leaving the loop early drops the rest. Bytes that wait to
 * be read count against the connection's limit.
 */
export class IipBody implements AsyncIterable<Buffer> {
  readonly #owner: BodyOwner
  readonly #chunks = new Denque<Buffer>()
  #waiting: ((result: IteratorResult<Buffer>) => void) | undefined = undefined
  #fail: ((error: unknown) => void) | undefined = undefined
  #error: unknown = undefined
  #ended = false
  #dropped = false

  /** @internal */
  constructor(owner: BodyOwner) {
    this.#owner = owner
  }

  /** `false`: the chunk was dropped. @internal */
  push(chunk: Buffer): boolean {
    if (this.#dropped || this.#ended) return false
    const wake = this.#waiting
    if (wake === undefined) {
      this.#chunks.push(chunk)
      return true
    }
    this.#waiting = undefined
    wake({ done: false, value: chunk })
    return false
  }

  /** No chunk follows. @internal */
  end(): void {
    this.#ended = true
    this.#waiting?.({ done: true, value: undefined })
    this.#waiting = undefined
  }

  /** The rest never comes, and what waits to be read is worth nothing. @internal */
  fail(error: unknown): void {
    if (this.#ended) return
    this.#ended = true
    this.#error = error
    this.#clear()
    const reject = this.#waiting === undefined ? undefined : this.#fail
    this.#waiting = undefined
    reject?.(error)
  }

  /** Nobody reads (on): what waits and what comes is dropped. @internal */
  drop(): void {
    if (this.#dropped) return
    this.#dropped = true
    this.#clear()
    this.#waiting?.({ done: true, value: undefined })
    this.#waiting = undefined
  }

  #clear(): void {
    let bytes = 0
    for (let chunk = this.#chunks.shift(); chunk !== undefined; chunk = this.#chunks.shift()) {
      bytes += chunk.length
    }
    this.#owner.bodyRead(bytes)
  }

  #next(): Promise<IteratorResult<Buffer>> {
    if (this.#waiting !== undefined) {
      return Promise.reject(new RingloopError(ErrorCode.STATE, 'a body is read by one, and chunk by chunk'))
    }
    const chunk = this.#chunks.shift()
    if (chunk !== undefined) {
      this.#owner.bodyRead(chunk.length)
      return Promise.resolve({ done: false, value: chunk })
    }
    if (this.#error !== undefined) return Promise.reject(this.#error)
    if (this.#ended || this.#dropped) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve, reject) => {
      this.#waiting = resolve
      this.#fail = reject
    })
  }

  [Symbol.asyncIterator](): AsyncIterator<Buffer> {
    return {
      next: () => this.#next(),
      return: () => {
        this.drop()
        return Promise.resolve({ done: true, value: undefined })
      },
    }
  }

  /** All of it as one buffer; rejects with a `RangeError` beyond `limit` bytes. */
  async bytes(limit: number = Number.POSITIVE_INFINITY): Promise<Buffer> {
    const chunks: Buffer[] = []
    let length = 0
    for await (const chunk of this) {
      length += chunk.length
      if (length > limit) throw new RangeError(`the body is longer than ${limit} bytes`)
      chunks.push(chunk)
    }
    return Buffer.concat(chunks, length)
  }
}
