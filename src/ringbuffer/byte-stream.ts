/**
 * Bytes on their way from a protocol to a reader that takes them when it likes: a queue with a writer's side and a
 * reader's side, both on one thread. What waits is the stream's; what was read is the reader's own.
 */
import Denque from 'denque'
import { ErrorCode, RingloopError } from '../errors.js'
import { RingBuffer } from './ring-buffer.js'

/** Where the bytes of a {@link ByteStream} come from; told, from within its methods, what becomes of them. */
export interface ByteSource {
  /** The reader wants the first bytes. Once, and not where there will be none. */
  begin?(): void
  /** So much waits that no more should come until {@link resume}. */
  pause?(): void
  /** Half of that or less waits, or nobody reads on. Only after {@link pause}. */
  resume?(): void
  /** So many bytes wait no longer, for one reason or another: for a limit that several streams share. */
  taken?(bytes: number): void
  /** The reader has left before the end: no more bytes are wanted. Once, after {@link taken}. */
  cancel?(): void
}

/**
 * The reader's side of a {@link ByteStream}: `for await (const chunk of reader)`, by one reader and once. Chunks end where
 * they happen to. The iteration rejects when the bytes end before they should, and with `ERR_RINGLOOP_STATE` where two
 * ask at a time, or somebody iterates again after its end. Leaving the loop early drops the rest.
 */
export interface ByteReader extends AsyncIterableIterator<Buffer, undefined> {
  next(): Promise<IteratorResult<Buffer, undefined>>
  return(): Promise<IteratorResult<Buffer, undefined>>
  [Symbol.asyncIterator](): ByteReader
  /** All of it, or of what is left, as one buffer. Rejects with a `RangeError` beyond `limit` bytes. */
  bytes(limit?: number): Promise<Buffer>
}

/** By default so many bytes may wait. */
const HIGH_WATER_MARK = 64 * 1024
/** Shorter pieces are gathered, so that a peer cannot make many objects of few bytes. */
const GATHER_BELOW = 4096
const FIRST_GATHERED = 256

interface Waiting {
  resolve(result: IteratorResult<Buffer, undefined>): void
  reject(error: unknown): void
}

const DONE: IteratorResult<Buffer, undefined> = { done: true, value: undefined }

export class ByteStream implements ByteReader {
  readonly #source: ByteSource
  readonly #highWaterMark: number
  /** In this order: chunks, then what is gathered. */
  #chunks: Denque<Buffer> | undefined = undefined
  #gathered: RingBuffer | undefined = undefined
  #length = 0
  #reader: Waiting | undefined = undefined
  #error: unknown = undefined
  #begun = false
  /** By `end` or `fail`. */
  #ended = false
  #discarded = false
  #full = false
  /** The reader has had the end, or has left. */
  #isRead = false
  /** After that somebody iterates anew. */
  #isReadAgain = false

  /** `source` is told to pause when more than `highWaterMark` bytes wait. */
  constructor(source: ByteSource = {}, highWaterMark: number = HIGH_WATER_MARK) {
    this.#source = source
    this.#highWaterMark = highWaterMark
  }

  /** Bytes that wait for the reader. */
  get length(): number {
    return this.#length
  }

  /** The source was told to pause, and not yet to resume. */
  get isFull(): boolean {
    return this.#full
  }

  // ---- the writer's side -------------------------------------------------------------------------------------------

  /**
   * Moves the first `count` bytes out of the ring. Returns how many of them wait now: none where a reader was waiting, and
   * none where nobody reads any more.
   */
  write(from: RingBuffer, count: number): number {
    if (this.#discarded || this.#ended) {
      from.retrieve(count)
      return 0
    }
    if (count === 0) return 0
    const reader = this.#reader
    if (reader !== undefined) {
      this.#reader = undefined
      reader.resolve({ done: false, value: from.take(count) })
      return 0
    }
    if (count < GATHER_BELOW) {
      this.#gathered ??= new RingBuffer(FIRST_GATHERED)
      from.moveTo(this.#gathered, count)
      if (this.#gathered.length >= GATHER_BELOW) this.#endGathered()
    } else {
      this.#endGathered()
      this.#push(from.take(count))
    }
    this.#length += count
    if (this.#length > this.#highWaterMark && !this.#full) {
      this.#full = true
      this.#source.pause?.()
    }
    return count
  }

  #endGathered(): void {
    const gathered = this.#gathered
    if (gathered !== undefined && !gathered.isEmpty) this.#push(gathered.take(gathered.length))
  }

  #push(chunk: Buffer): void {
    this.#chunks ??= new Denque()
    this.#chunks.push(chunk)
  }

  /** No byte follows; what waits can still be read, and then the reader gets `error`, if there is one. */
  end(error?: unknown): void {
    if (this.#ended) return
    this.#ended = true
    this.#error = error
    this.#settle()
  }

  /** The rest never comes: what waits is dropped, and the reader gets the error. Does nothing after {@link end}. */
  fail(error: unknown): void {
    if (this.#ended) return
    this.#drop()
    this.end(error ?? new RingloopError(ErrorCode.CLOSED, 'the bytes ended before they should'))
  }

  /** Nobody reads (on): what waits and what still comes is dropped. For the reader that is the end. */
  discard(): void {
    if (this.#discarded) return
    this.#discarded = true
    this.#drop()
    this.#settle()
    if (!this.#ended) this.#source.cancel?.()
  }

  #drop(): void {
    this.#chunks = undefined
    this.#gathered = undefined
    if (this.#length > 0) this.#took(this.#length)
    else this.#unblock()
  }

  /** A reader that waits learns that there is no more. */
  #settle(): void {
    const reader = this.#reader
    if (reader === undefined) return
    this.#reader = undefined
    if (this.#error !== undefined && !this.#discarded) reader.reject(this.#error)
    else reader.resolve(this.#done())
  }

  #done(): IteratorResult<Buffer, undefined> {
    this.#isRead = true
    return DONE
  }

  // ---- the reader's side -------------------------------------------------------------------------------------------

  next(): Promise<IteratorResult<Buffer, undefined>> {
    if (this.#reader !== undefined) {
      return Promise.reject(
        new RingloopError(ErrorCode.STATE, 'a stream of bytes is read by one, and chunk by chunk'),
      )
    }
    if (this.#isReadAgain) {
      return Promise.reject(
        new RingloopError(ErrorCode.STATE, 'a stream of bytes is read once, and this one was read or left'),
      )
    }
    if (!this.#begun) this.#begin()
    const chunk = this.#shift()
    if (chunk !== undefined) return Promise.resolve({ done: false, value: chunk })
    if (this.#discarded) return Promise.resolve(this.#done())
    if (this.#error !== undefined) return Promise.reject(this.#error)
    if (this.#ended) return Promise.resolve(this.#done())
    return new Promise((resolve, reject) => {
      this.#reader = { resolve, reject }
    })
  }

  return(): Promise<IteratorResult<Buffer, undefined>> {
    this.discard()
    return Promise.resolve(this.#done())
  }

  [Symbol.asyncIterator](): this {
    this.#isReadAgain = this.#isRead
    return this
  }

  async bytes(limit: number = Number.POSITIVE_INFINITY): Promise<Buffer> {
    const chunks: Buffer[] = []
    let length = 0
    for await (const chunk of this) {
      length += chunk.length
      if (length > limit) throw new RangeError(`there are more than ${limit} bytes`)
      chunks.push(chunk)
    }
    return Buffer.concat(chunks, length)
  }

  #begin(): void {
    this.#begun = true
    if (!this.#ended && !this.#discarded) this.#source.begin?.()
  }

  #shift(): Buffer | undefined {
    const gathered = this.#gathered
    const chunk =
      this.#chunks?.shift() ?? (gathered?.isEmpty === false ? gathered.take(gathered.length) : undefined)
    if (chunk !== undefined) this.#took(chunk.length)
    return chunk
  }

  #took(bytes: number): void {
    this.#length -= bytes
    this.#source.taken?.(bytes)
    this.#unblock()
  }

  #unblock(): void {
    if (!this.#full || this.#length > this.#highWaterMark / 2) return
    this.#full = false
    this.#source.resume?.()
  }
}
