/**
 * Compressing and inflating messages (RFC 7692, section 7.2), one zlib run per message: between two messages a
 * connection holds no zlib state, only the window, at most 32 KiB, and that only where context takeover was agreed on.
 * Small messages are done at once; large ones in Node's threads, a few at a time per loop. The loop's thread only.
 */
import {
  constants,
  deflateRaw,
  deflateRawSync,
  inflateRaw,
  inflateRawSync,
  type ZlibOptions,
} from 'node:zlib'
import { allocateBuffer } from '../../index.js'
import type { DeflateSide } from './deflate-params.js'
import type { DeflateSettings } from './options.js'

/** A compressed message of so many bytes that inflates to so many is inflated at once: some 60 microseconds. */
const INFLATE_NOW = 8 * 1024
const INFLATED_NOW = 64 * 1024
/** A message up to this length is compressed at once: some 400 microseconds at most. */
const DEFLATE_NOW = 32 * 1024
/** What one step in Node's threads makes. */
const CHUNK_SIZE = 64 * 1024
/** zlib cannot make a raw stream for a window of 256 bytes; the one for 512 refers at most 250 bytes back. */
const MIN_ZLIB_BITS = 9
/** The end of a flush, which is not sent (RFC 7692, section 7.2.1). */
const TAIL: Buffer = Buffer.from([0, 0, 0xff, 0xff])
/** The tail, and an empty last block: zlib refuses a message that was cut, for its stream has no end. */
const END: Buffer = Buffer.from([...TAIL, 1, 0, 0, 0xff, 0xff])

/** An empty message too: on memory that no handler can transfer away from the others. */
const NO_BYTES: Buffer = allocateBuffer(0)

/** The message is longer than allowed. */
export class TooLong extends Error {}

type Done = (error: Error | null, result: Buffer) => void

/** Runs a few zlib calls at a time in Node's threads, in the order in which they were asked for. */
export class ZlibQueue {
  readonly #limit: number
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Calls `start` now or when its turn comes; it has to call what it is given once. */
  run(start: (done: () => void) => void): void {
    const go = (): void => {
      this.#running++
      start(this.#done)
    }
    if (this.#running < this.#limit) go()
    else this.#waiting.push(go)
  }

  readonly #done = (): void => {
    this.#running--
    this.#waiting.shift()?.()
  }
}

/** The last bytes that went through one direction of a connection. */
class Window {
  readonly #size: number
  #bytes: Buffer = NO_BYTES

  constructor(side: DeflateSide) {
    this.#size = side.takeover ? 2 ** side.windowBits : 0
  }

  add(bytes: Uint8Array): void {
    if (this.#size === 0 || bytes.length === 0) return
    const kept = this.#size - bytes.length
    if (kept <= 0) this.#bytes = Buffer.from(bytes.subarray(bytes.length - this.#size))
    else this.#bytes = Buffer.concat([this.#bytes.subarray(-kept), bytes])
  }

  /** What zlib is to start with. */
  get options(): ZlibOptions {
    return this.#bytes.length === 0 ? {} : { dictionary: this.#bytes }
  }
}

/** Inflates the messages of the peer. */
export class Inflater {
  readonly #window: Window
  readonly #queue: ZlibQueue

  constructor(side: DeflateSide, queue: ZlibQueue) {
    this.#window = new Window(side)
    this.#queue = queue
  }

  /** The message, or `undefined` where it has to be done {@link later}. Throws {@link TooLong}, or what zlib throws. */
  now(payload: Buffer, limit: number): Buffer | undefined {
    if (payload.length > INFLATE_NOW) return undefined
    // It should be one byte, but nothing else can be meant.
    if (payload.length === 0) return NO_BYTES
    const most = Math.min(limit, INFLATED_NOW)
    try {
      const message = inflateRawSync(withEnd(payload), this.#options(most))
      this.#window.add(message)
      return message
    } catch (error) {
      if (!isTooLong(error)) throw error
      if (most < limit) return undefined
      throw tooLong(limit)
    }
  }

  /** Calls back once, later. One message at a time. */
  later(payload: Buffer, limit: number, callback: Done): void {
    this.#queue.run((done) => {
      inflateRaw(withEnd(payload), { ...this.#options(limit), chunkSize: CHUNK_SIZE }, (error, message) => {
        done()
        if (error === null) this.#window.add(message)
        callback(isTooLong(error) ? tooLong(limit) : error, message)
      })
    })
  }

  #options(maxOutputLength: number): ZlibOptions {
    return { ...this.#window.options, maxOutputLength }
  }
}

function isTooLong(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | null)?.code === 'ERR_BUFFER_TOO_LARGE'
}

function tooLong(limit: number): TooLong {
  return new TooLong(`the message inflates to more than maxPayload (${limit} bytes)`)
}

/** Compresses messages to the peer. */
export class Deflater {
  readonly windowBits: number
  readonly #settings: DeflateSettings
  readonly #window: Window
  readonly #queue: ZlibQueue

  constructor(side: DeflateSide, settings: DeflateSettings, queue: ZlibQueue) {
    this.windowBits = Math.max(MIN_ZLIB_BITS, side.windowBits)
    this.#settings = settings
    this.#window = new Window(side)
    this.#queue = queue
  }

  isForNow(length: number): boolean {
    return length <= DEFLATE_NOW
  }

  now(message: Uint8Array): Buffer {
    return compress(message, this.#settings, this.windowBits, this.#window.options)
  }

  /** Calls back once, later. One message at a time. */
  later(message: Buffer, callback: Done): void {
    const options = deflateOptions(this.#settings, this.windowBits, this.#window.options)
    this.#queue.run((done) => {
      deflateRaw(message, { ...options, chunkSize: CHUNK_SIZE }, (error, result) => {
        done()
        callback(error, error === null ? withoutTail(result) : NO_BYTES)
      })
    })
  }

  /** A message was sent compressed: what the peer's window now holds. */
  sent(message: Uint8Array): void {
    this.#window.add(message)
  }
}

/** A message compressed by itself: any peer can inflate it whose window is not smaller. */
export function compress(
  message: Uint8Array,
  settings: DeflateSettings,
  windowBits: number,
  window: ZlibOptions = {},
): Buffer {
  return withoutTail(deflateRawSync(message, deflateOptions(settings, windowBits, window)))
}

function deflateOptions(settings: DeflateSettings, windowBits: number, window: ZlibOptions): ZlibOptions {
  const { level, memLevel } = settings
  return { ...window, level, memLevel, windowBits, finishFlush: constants.Z_SYNC_FLUSH }
}

function withoutTail(compressed: Buffer): Buffer {
  return compressed.subarray(0, compressed.length - TAIL.length)
}

function withEnd(compressed: Buffer): Buffer {
  return Buffer.concat([compressed, END])
}
