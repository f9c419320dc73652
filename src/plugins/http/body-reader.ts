/**
 * Takes the body of one request out of a connection's bytes: so many bytes, or chunks (RFC 9112, section 7.1). Strict:
 * what two servers could read differently is refused. Bytes are copied once, into one growing buffer or the stream.
 */
import { CHUNKED, type HeadParser, HttpError } from '../../http1/index.js'
import { allocateBuffer, type ByteStream, RingBuffer } from '../../index.js'
import { tooLarge } from './request.js'

const CR = 0x0d
const LF = 0x0a
const SEMICOLON = 0x3b
const TAB = 0x09
const SPACE = 0x20

const TOKEN = "[\\w!#$%&'*+\\-.^`|~]+"
const QUOTED = '"(?:[\\t \\x21\\x23-\\x5b\\x5d-\\x7e\\x80-\\xff]|\\\\[\\t\\x20-\\x7e\\x80-\\xff])*"'
/** RFC 9112, section 7.1.1. */
const EXTENSIONS = new RegExp(`^(?:[ \\t]*;[ \\t]*${TOKEN}(?:[ \\t]*=[ \\t]*(?:${TOKEN}|${QUOTED}))?)*$`)
/** Hexadecimal digits of a chunk size: enough for what a number can hold. */
const MAX_SIZE_DIGITS = 13
/** Bytes of the extensions of one chunk, and of all chunks of a body. */
const MAX_EXTENSION = 1024
const MAX_EXTENSIONS = 16 * 1024
/** Chunks that are read in one turn of the loop: they may be so small that a read brings ten thousand. */
const CHUNKS_PER_TURN = 128
/** Memory that is taken on the word of a client. */
const FIRST_STORAGE = 4096
const INCOMPLETE = -1

const State = { SIZE: 0, DATA: 1, DATA_END: 2, TRAILERS: 3, DONE: 4 } as const
type State = (typeof State)[keyof typeof State]

export class BodyReader {
  readonly #stream: ByteStream | undefined
  readonly #maxBodyBytes: number
  readonly #parser: HeadParser
  readonly #chunked: boolean
  #gathered: RingBuffer | undefined
  #state: State
  /** Bytes of the body, or of the chunk, that are still to come. */
  #missing: number
  #total = 0
  #extensions = 0
  /** Chunks that may still be begun in this turn. */
  #budget = CHUNKS_PER_TURN

  constructor(length: number, maxBodyBytes: number, parser: HeadParser, stream: ByteStream | undefined) {
    this.#stream = stream
    this.#maxBodyBytes = maxBodyBytes
    this.#parser = parser
    this.#chunked = length === CHUNKED
    this.#missing = this.#chunked ? 0 : length
    this.#state = this.#chunked ? State.SIZE : State.DATA
  }

  get stream(): ByteStream | undefined {
    return this.#stream
  }

  /** The last {@link read} has stopped before its time: what it has left is for the next turn. */
  get isTired(): boolean {
    return this.#budget === 0
  }

  /** Called once in a turn. `true` once the body is over. Throws {@link HttpError} 400, 413, 431. */
  read(buffer: RingBuffer): boolean {
    this.#budget = CHUNKS_PER_TURN
    for (;;) {
      switch (this.#state) {
        case State.SIZE:
          if (this.isTired || !this.#readSize(buffer)) return false
          this.#budget--
          break
        case State.DATA:
          if (!this.#readData(buffer)) return false
          this.#state = this.#chunked ? State.DATA_END : State.DONE
          break
        case State.DATA_END:
          if (!readLineEnd(buffer)) return false
          this.#state = State.SIZE
          break
        case State.TRAILERS:
          if (this.#parser.parseTrailers(buffer) === undefined) return false
          this.#state = State.DONE
          break
        default:
          this.#stream?.end()
          return true
      }
    }
  }

  /** The whole body; of a stream nothing. */
  take(): Buffer {
    return this.#gathered?.peekAll() ?? allocateBuffer(0)
  }

  #readData(buffer: RingBuffer): boolean {
    const count = Math.min(buffer.length, this.#missing)
    if (this.#stream !== undefined) {
      this.#stream.write(buffer, count)
    } else {
      this.#gathered ??= new RingBuffer(Math.min(this.#missing, FIRST_STORAGE))
      buffer.moveTo(this.#gathered, count)
    }
    this.#missing -= count
    return this.#missing === 0
  }

  #readSize(buffer: RingBuffer): boolean {
    const digits = countDigits(buffer)
    if (digits === INCOMPLETE) return false
    const lineEnd = digits + this.#extensionLength(buffer, digits)
    if (lineEnd < digits || !isLineEnd(buffer, lineEnd)) return false
    this.#extensions += lineEnd - digits
    if (this.#extensions > MAX_EXTENSIONS) throw new HttpError(413, 'too many chunk extensions')
    const line = buffer.peek(lineEnd).toString('latin1')
    if (lineEnd > digits && !EXTENSIONS.test(line.slice(digits))) throw badChunk()
    const size = Number.parseInt(line, 16)
    buffer.retrieve(lineEnd + 2)
    this.#total += size
    if (this.#total > this.#maxBodyBytes) throw tooLarge(this.#maxBodyBytes)
    this.#missing = size
    this.#state = size === 0 ? State.TRAILERS : State.DATA
    return true
  }

  /** Bytes between the size and the line's end. */
  #extensionLength(buffer: RingBuffer, from: number): number {
    const { length } = buffer
    for (let at = from; at < length; at++) {
      const byte = buffer.byteAt(at)
      if (byte === CR) return at - from
      if (at - from === MAX_EXTENSION) throw new HttpError(413, 'a chunk extension is too long')
      if (byte < SPACE && byte !== TAB) throw badChunk()
    }
    return INCOMPLETE
  }
}

function badChunk(): HttpError {
  return new HttpError(400, 'no valid chunk')
}

/** How many digits the size has, once the byte behind them is there too. */
function countDigits(buffer: RingBuffer): number {
  const { length } = buffer
  for (let at = 0; at < length; at++) {
    const byte = buffer.byteAt(at)
    if (isHexDigit(byte)) {
      if (at === MAX_SIZE_DIGITS) throw badChunk()
      continue
    }
    if (at === 0 || !endsSize(byte)) throw badChunk()
    return at
  }
  return INCOMPLETE
}

function endsSize(byte: number): boolean {
  return byte === CR || byte === SEMICOLON || byte === SPACE || byte === TAB
}

function isHexDigit(byte: number): boolean {
  const letter = byte | 0x20
  return (byte >= 0x30 && byte <= 0x39) || (letter >= 0x61 && letter <= 0x66)
}

/** Whether CR LF is at `offset`; `false` also while the LF has not come. */
function isLineEnd(buffer: RingBuffer, offset: number): boolean {
  if (buffer.length > offset && buffer.byteAt(offset) !== CR) throw badChunk()
  if (buffer.length < offset + 2) return false
  if (buffer.byteAt(offset + 1) !== LF) throw badChunk()
  return true
}

function readLineEnd(buffer: RingBuffer): boolean {
  if (!isLineEnd(buffer, 0)) return false
  buffer.retrieve(2)
  return true
}
