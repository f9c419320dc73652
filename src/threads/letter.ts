/**
 * What one loop writes to others in a turn, as the bytes of a letter (native/letter.h): publications, or the answers to
 * them, one after another. Written once, and read by each loop from a copy of its own. Each side in its own thread.
 *
 *     the mailbox that answers go to                                                      int32
 *     a publication   kind, slow, length of the topic, 0; number; length; topic; out      4 x uint8, 2 x uint32, bytes
 *     a result        kind, 3 x 0; number; sent, dropped, closed                          4 x uint8, 4 x uint32
 *     an error        kind, 3 x 0; number; length; text                                   4 x uint8, 2 x uint32, bytes
 */
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import type { Answer } from './questions.js'
import type { PublishMessage } from './thread-messages.js'

const Kind = {
  /** A publication of text, each character in a byte. */
  ASCII: 0,
  /** In two bytes, so that halves of characters cross as they are. */
  UTF16: 1,
  BYTES: 2,
  RESULT: 3,
  ERROR: 4,
} as const

const START = 4
/** Of a publication and of an error. */
const HEAD = 12
const RESULT = 20
const MAX_TOPIC = 255
const FIRST_SIZE = 4 * 1024
/** From here on a letter goes: it is read as a whole. */
const FULL = 64 * 1024

/** Text and bytes; everything else is cloned on its way. */
export function isPostable(out: unknown): out is string | Uint8Array {
  return typeof out === 'string' || out instanceof Uint8Array
}

export class LetterWriter {
  readonly #from: number
  #bytes = Buffer.allocUnsafeSlow(FIRST_SIZE)
  #end = START

  /** `from`: the mailbox that answers are to go to. */
  constructor(from: number) {
    this.#from = from
  }

  get isEmpty(): boolean {
    return this.#end === START
  }

  get isFull(): boolean {
    return this.#end >= FULL
  }

  addPublication(id: number, topic: string, out: string | Uint8Array, slow: BroadcastOptions['slow']): void {
    const kind = kindOf(out)
    const length = kind === Kind.UTF16 ? out.length * 2 : out.length
    this.#makeRoom(HEAD + MAX_TOPIC + length)
    const start = this.#end
    const topicLength = this.#bytes.write(topic, start + HEAD)
    this.#writeHead(kind, id)
    this.#bytes[start + 1] = slow === 'close' ? 1 : 0
    this.#bytes[start + 2] = topicLength
    this.#writeUint32(length)
    this.#end += topicLength
    this.#writeOut(kind, out)
    this.#end += length
  }

  #writeOut(kind: number, out: string | Uint8Array): void {
    if (typeof out !== 'string') this.#bytes.set(out, this.#end)
    else this.#bytes.write(out, this.#end, kind === Kind.ASCII ? 'latin1' : 'utf16le')
  }

  addAnswer({ id, result, error }: Answer): void {
    if (error === undefined) this.#addResult(id, result as BroadcastResult)
    else this.#addError(id, error)
  }

  #addResult(id: number, { sent, dropped, closed }: BroadcastResult): void {
    this.#makeRoom(RESULT)
    this.#writeHead(Kind.RESULT, id)
    this.#writeUint32(sent)
    this.#writeUint32(dropped)
    this.#writeUint32(closed)
  }

  #addError(id: number, text: string): void {
    const length = Buffer.byteLength(text)
    this.#makeRoom(HEAD + length)
    this.#writeHead(Kind.ERROR, id)
    this.#writeUint32(length)
    this.#end += this.#bytes.write(text, this.#end)
  }

  #writeHead(kind: number, id: number): void {
    this.#writeUint32(kind)
    this.#writeUint32(id)
  }

  #writeUint32(value: number): void {
    this.#end = this.#bytes.writeUInt32LE(value, this.#end)
  }

  #makeRoom(length: number): void {
    const needed = this.#end + length
    if (needed <= this.#bytes.length) return
    const larger = Buffer.allocUnsafeSlow(Math.max(needed, this.#bytes.length * 2))
    this.#bytes.copy(larger, 0, 0, this.#end)
    this.#bytes = larger
  }

  /** Gives the letter to `post`, which copies what it keeps, and begins the next. */
  finish(post: (bytes: Uint8Array, length: number) => void): void {
    this.#bytes.writeInt32LE(this.#from, 0)
    post(this.#bytes, this.#end)
    this.#end = START
    if (this.#bytes.length > FULL * 2) this.#bytes = Buffer.allocUnsafeSlow(FIRST_SIZE)
  }
}

function kindOf(out: string | Uint8Array): number {
  if (typeof out !== 'string') return Kind.BYTES
  return Buffer.byteLength(out) === out.length ? Kind.ASCII : Kind.UTF16
}

export class LetterReader {
  /** The mailbox that answers go to. */
  readonly from: number
  readonly #bytes: Buffer
  #at = START

  /** The memory of `bytes` is the letter's from now on: what is published as bytes lies in it. */
  constructor(bytes: Buffer) {
    this.from = bytes.readInt32LE(0)
    this.#bytes = bytes
  }

  get isOfAnswers(): boolean {
    return this.#bytes[START]! >= Kind.RESULT
  }

  get hasMore(): boolean {
    return this.#at < this.#bytes.length
  }

  publication(): PublishMessage {
    const at = this.#at
    const kind = this.#bytes[at]!
    const id = this.#bytes.readUInt32LE(at + 4)
    const from = at + HEAD + this.#bytes[at + 2]!
    const topic = this.#bytes.toString('utf8', at + HEAD, from)
    const options: BroadcastOptions = { slow: this.#bytes[at + 1] === 1 ? 'close' : 'drop' }
    this.#at = from + this.#bytes.readUInt32LE(at + 8)
    return { type: 'publish', id, publication: { topic, out: this.#out(kind, from), options } }
  }

  #out(kind: number, from: number): string | Uint8Array {
    if (kind === Kind.BYTES) return this.#bytes.subarray(from, this.#at)
    return this.#bytes.toString(kind === Kind.ASCII ? 'latin1' : 'utf16le', from, this.#at)
  }

  answer(): Answer {
    const at = this.#at
    const id = this.#bytes.readUInt32LE(at + 4)
    if (this.#bytes[at] === Kind.ERROR) {
      this.#at = at + HEAD + this.#bytes.readUInt32LE(at + 8)
      return {
        type: 'answer',
        id,
        result: undefined,
        error: this.#bytes.toString('utf8', at + HEAD, this.#at),
        code: undefined,
      }
    }
    this.#at = at + RESULT
    const sent = this.#bytes.readUInt32LE(at + 8)
    const dropped = this.#bytes.readUInt32LE(at + 12)
    const closed = this.#bytes.readUInt32LE(at + 16)
    return { type: 'answer', id, result: { sent, dropped, closed }, error: undefined, code: undefined }
  }
}
