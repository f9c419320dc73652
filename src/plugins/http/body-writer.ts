/**
 * Sends the body of one answer from its source: in chunks (RFC 9112, section 7.1), so many bytes, or up to the end of the
 * connection, and not faster than the client takes it. Owns the iterator; the parts are the source's. The loop's thread only.
 */
import { CHUNKED, UNKNOWN } from '../../http1/index.js'
import { ErrorCode, type ProtocolConnection, RingloopError } from '../../index.js'
import { type BodyPart, endIterator, type HttpOutput } from './response.js'

const CRLF = Buffer.from('\r\n')
const LAST_CHUNK = Buffer.from('0\r\n\r\n')

export class BodyWriter {
  /** Bytes that the connection was given, chunk heads included. */
  given = 0
  readonly #parts: AsyncIterator<BodyPart>
  readonly #chunked: boolean
  /** Below 0 if unknown. */
  readonly #length: number
  #sent = 0

  constructor(stream: AsyncIterable<BodyPart>, length: number) {
    this.#parts = stream[Symbol.asyncIterator]()
    this.#chunked = length === CHUNKED
    this.#length = length
  }

  /** `true` once all is sent, `false` when nothing can be sent any more. Rejects for a fault of the source. */
  async sendTo(c: ProtocolConnection<HttpOutput>): Promise<boolean> {
    // Nothing else would say that the body is not whole.
    c.endsWithReset = this.#length === UNKNOWN
    while (await c.drained()) {
      const { done, value } = await this.#parts.next()
      if (done) {
        if (this.#length >= 0 && this.#sent !== this.#length) throw this.#wrongLength()
        if (this.#chunked) c.sendRaw(LAST_CHUNK)
        c.endsWithReset = false
        return true
      }
      this.#send(c, partBytes(value))
    }
    this.end()
    return false
  }

  /** The source is told that nobody wants the rest. */
  end(): void {
    endIterator(this.#parts)
  }

  #send(c: ProtocolConnection<HttpOutput>, bytes: Uint8Array): void {
    const { length } = bytes
    this.#sent += length
    if (this.#length >= 0 && this.#sent > this.#length) throw this.#wrongLength()
    if (length === 0) return
    const head = this.#chunked ? chunkHead(length) : undefined
    this.given += length + (head === undefined ? 0 : head.length + CRLF.length)
    c.sendRaw(head === undefined ? bytes : [head, bytes, CRLF])
  }

  #wrongLength(): RingloopError {
    return new RingloopError(
      ErrorCode.PACKET,
      `the stream does not have the ${this.#length} bytes of its content-length`,
    )
  }
}

/** Views and buffers are sent as their bytes; a part that is anything else is a fault of the source. */
function partBytes(part: unknown): Uint8Array {
  if (typeof part === 'string') return Buffer.from(part)
  if (part instanceof Uint8Array) return part
  if (ArrayBuffer.isView(part)) return Buffer.from(part.buffer, part.byteOffset, part.byteLength)
  if (part instanceof ArrayBuffer || part instanceof SharedArrayBuffer) return Buffer.from(part)
  throw new RingloopError(ErrorCode.PACKET, 'a part of a streamed body must be a string or bytes')
}

function chunkHead(length: number): Buffer {
  return Buffer.from(`${length.toString(16)}\r\n`)
}
