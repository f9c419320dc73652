/**
 * A message that is not yet whole. Its bytes are unmasked and checked as they come and lie in one buffer that grows with
 * them, so that many small fragments cost no more than their bytes. Belongs to one connection from the first frame of a
 * message to its last; the protocol keeps one for reuse.
 */
import { allocateBuffer, type RingBuffer } from '../../index.js'
import { copyMasked, rotateKey } from './mask.js'
import { ACCEPT, checkUtf8, REJECT } from './utf8.js'

/** More than this is not taken on the word of a peer: it has to send the bytes. */
const TRUSTED_LENGTH = 128 * 1024
const FIRST_FRAGMENTS = 256

/** An empty message too: on memory that no handler can transfer away from the others. */
const NO_BYTES: Buffer = allocateBuffer(0)

export class Incoming {
  isText = false
  compressed = false
  /** A message that nobody wants any more: its bytes are thrown away. */
  discarded = false
  /** In a frame, or between two. */
  inFrame = false
  /** The frame is the message's last. */
  final = false
  /** Bytes of the frame that have not come yet. */
  left = 0
  /** Bytes of the message so far. */
  length = 0
  /** What came out of inflating it in a thread. */
  inflated: Buffer | Error | undefined = undefined

  #key = 0
  #bytes = NO_BYTES
  #utf8 = ACCEPT

  begin(isText: boolean, compressed: boolean, discarded: boolean): void {
    this.isText = isText
    this.compressed = compressed
    this.discarded = discarded
    this.inFrame = false
    this.length = 0
    this.inflated = undefined
    this.#bytes = NO_BYTES
    this.#utf8 = ACCEPT
  }

  /** The header of a frame has come; `key` is 0 where the payload is not masked. */
  beginFrame(final: boolean, payloadLength: number, key: number): void {
    this.inFrame = true
    this.final = final
    this.left = payloadLength
    this.#key = key
    if (!this.discarded) this.#reserve(Math.min(payloadLength, TRUSTED_LENGTH), final)
  }

  /** Takes what has come of the frame. `false`: it is a text with a wrong byte. */
  take(buffer: RingBuffer): boolean {
    while (this.left > 0 && !buffer.isEmpty) {
      const count = Math.min(this.left, buffer.contiguous)
      if (!this.discarded) this.#copy(buffer, count)
      buffer.retrieve(count)
      this.left -= count
      if (this.#utf8 === REJECT) return false
    }
    return true
  }

  #copy(buffer: RingBuffer, count: number): void {
    const { length } = this
    this.#reserve(count, this.final)
    const { storage, start } = buffer
    if (this.#key === 0) storage.copy(this.#bytes, length, start, start + count)
    else copyMasked(storage, start, start + count, this.#bytes, length, this.#key)
    this.#key = rotateKey(this.#key, count)
    this.length = length + count
    if (this.isText && !this.compressed) this.#utf8 = checkUtf8(this.#utf8, this.#bytes, length, this.length)
  }

  /** The frame came with a mask that was still on it. */
  get isMasked(): boolean {
    return this.#key !== 0
  }

  /** No character is cut off. */
  get endsWhole(): boolean {
    return this.#utf8 === ACCEPT
  }

  /** The bytes of the whole message; they are the caller's from now on. */
  finish(): Buffer {
    const bytes = this.#bytes
    this.#bytes = NO_BYTES
    if (bytes.length === this.length) return bytes
    const exact = allocateBuffer(this.length)
    bytes.copy(exact, 0, 0, this.length)
    return exact
  }

  /** Room for `count` more bytes. The size is exact where it is known, else it doubles. */
  #reserve(count: number, exactly: boolean): void {
    const needed = this.length + count
    const size = this.#bytes.length
    if (needed <= size) return
    const announced = this.length + this.left
    const doubled = Math.max(needed, size * 2, FIRST_FRAGMENTS)
    const next = allocateBuffer(exactly ? Math.min(Math.max(needed, doubled), announced) : doubled)
    this.#bytes.copy(next, 0, 0, this.length)
    this.#bytes = next
  }
}
