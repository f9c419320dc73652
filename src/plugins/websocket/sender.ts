/**
 * Frames on their way out, for all connections of one protocol object. A frame is written straight into the loop's out
 * slab where it can be; large messages that are to be compressed wait in the session's outbox, and all behind them.
 */
import { MAX_UTF8_BYTES, type Packed } from '../../index.js'
import { compress } from './deflate.js'
import { closePayload, FIN, headerLength, MASK_LENGTH, MASKED, Opcode, RSV1, writeHeader } from './frame.js'
import { copyMasked, maskInPlace, randomKey } from './mask.js'
import { TEXT, type WebSocketContext, type WebSocketMessage, type WebSocketOut } from './message.js'
import type { WebSocketSettings } from './options.js'
import { type DeflateState, type Outgoing, type Session, State, type WebSocketConnection } from './session.js'

/** From here on the loop writes a payload from where it lies. */
const COPY_UP_TO = 32 * 1024 - 1
/** A broadcast up to this length is compressed, at once: some 3 milliseconds. */
const BROADCAST_DEFLATE_UP_TO = 256 * 1024
/** When more waits to be compressed on one connection, all of it goes out plain, so that back-pressure is felt. */
const MAX_OUTBOX = 1024 * 1024

const TEXT_FRAME = FIN | Opcode.TEXT
const BINARY_FRAME = FIN | Opcode.BINARY
const NOTHING: Packed = []

export class Sender {
  readonly #settings: WebSocketSettings
  readonly #masks: boolean
  readonly #maskBit: number
  /** A header and a payload, reused: the loop is done with them before the next frame is made. */
  readonly #headers: readonly Buffer[]
  readonly #pair: Uint8Array[]

  constructor(settings: WebSocketSettings) {
    this.#settings = settings
    this.#masks = settings.client !== undefined
    this.#maskBit = this.#masks ? MASKED : 0
    const header = Buffer.alloc(headerLength(Number.POSITIVE_INFINITY))
    this.#headers = Array.from({ length: header.length + 1 }, (_, length) => header.subarray(0, length))
    this.#pair = [header, header]
  }

  // ---- messages ----------------------------------------------------------------------------------------------------

  /** Bytes written to `target[offset…]`, or -1 where {@link pack} has to do it. */
  packInto(
    session: Session,
    out: WebSocketOut,
    ctx: WebSocketContext | undefined,
    target: Buffer,
    offset: number,
  ): number {
    if (session.state !== State.OPEN) return 0
    if (session.deflate !== undefined && !this.#goesPlain(session.deflate, out)) return -1
    if (typeof out === 'string') return this.#textInto(out, target, offset)
    if (out instanceof Uint8Array) {
      return this.#bytesInto(out, ctx === TEXT ? TEXT_FRAME : BINARY_FRAME, target, offset)
    }
    return -1
  }

  /** A message too short to be compressed, with none before it. */
  #goesPlain({ outbox }: DeflateState, out: WebSocketOut): boolean {
    const { threshold } = this.#settings.deflate!
    if (outbox.length > 0) return false
    if (typeof out === 'string') return out.length * MAX_UTF8_BYTES < threshold
    return out instanceof Uint8Array && out.length < threshold
  }

  #bytesInto(bytes: Uint8Array, first: number, target: Buffer, offset: number): number {
    const { length } = bytes
    if (length > COPY_UP_TO || length + headerLength(length) + MASK_LENGTH > target.length - offset) return -1
    let at = writeHeader(target, offset, first, length, this.#maskBit)
    if (this.#masks) at += MASK_LENGTH
    target.set(bytes, at)
    if (this.#masks) maskBehindKey(target, at, at + length)
    return at + length - offset
  }

  /** The length of the header is guessed from that of the string; where that was wrong, the payload moves. */
  #textInto(text: string, target: Buffer, offset: number): number {
    const room = target.length - offset
    const mask = this.#masks ? MASK_LENGTH : 0
    if (text.length * MAX_UTF8_BYTES + headerLength(text.length * MAX_UTF8_BYTES) + mask > room) return -1
    const guessed = offset + headerLength(text.length) + mask
    const length = target.write(text, guessed)
    const at = offset + headerLength(length) + mask
    if (at !== guessed) target.copyWithin(at, guessed, guessed + length)
    writeHeader(target, offset, TEXT_FRAME, length, this.#maskBit)
    if (this.#masks) maskBehindKey(target, at, at + length)
    return at + length - offset
  }

  /** The frames of a message, for this connection and for now. Throws a `TypeError` for what is no message. */
  pack(
    c: WebSocketConnection,
    session: Session,
    out: WebSocketOut,
    ctx: WebSocketContext | undefined,
  ): Packed {
    if (session.state !== State.OPEN) return NOTHING
    const message = this.#outgoing(out, ctx)
    const { deflate } = session
    if (deflate === undefined) return this.#frame(message.first, message.bytes)
    return this.#packDeflated(c, deflate, message)
  }

  #outgoing(out: WebSocketOut, ctx: WebSocketContext | undefined): Outgoing {
    const isPlain = typeof out === 'string' || out instanceof Uint8Array
    const { data, binary, compress }: WebSocketMessage = isPlain ? { data: out } : out
    const isText = typeof data === 'string'
    if (!isText && !(data instanceof Uint8Array)) {
      throw new TypeError('a WebSocket message must be a string, bytes, or { data } with one of them')
    }
    const bytes = isText ? Buffer.from(data) : asBuffer(data)
    const first = (binary ?? (!isText && ctx !== TEXT)) ? BINARY_FRAME : TEXT_FRAME
    const threshold = this.#settings.deflate?.threshold ?? Number.POSITIVE_INFINITY
    return { first, bytes, compress: bytes.length > 0 && (compress ?? bytes.length >= threshold) }
  }

  /** One message for many connections: framed once, and compressed once per size of window. */
  broadcast(out: WebSocketOut): (c: WebSocketConnection) => Packed | undefined {
    const message = this.#outgoing(out, undefined)
    const { first, bytes } = message
    const plain = this.#masks ? undefined : this.#wholeFrame(first, bytes)
    const compressed: (Buffer | undefined)[] = []
    const compressedFor = (windowBits: number): Buffer => {
      const small = compress(bytes, this.#settings.deflate!, windowBits)
      return small.length < bytes.length ? this.#wholeFrame(first | RSV1, small) : plain!
    }
    return (c) => {
      const session = c.session as Session
      if (session.state !== State.OPEN) return undefined
      const { deflate } = session
      if (plain === undefined) return this.pack(c, session, out, undefined)
      if (deflate === undefined) return plain
      if (deflate.outbox.length > 0) return this.#packDeflated(c, deflate, message)
      if (!message.compress || bytes.length > BROADCAST_DEFLATE_UP_TO) return plain
      const { windowBits } = deflate.deflater
      const frame = compressed[windowBits] ?? compressedFor(windowBits)
      compressed[windowBits] = frame
      if (frame !== plain) deflate.deflater.sent(bytes)
      return frame
    }
  }

  // ---- compression -------------------------------------------------------------------------------------------------

  #packDeflated(c: WebSocketConnection, deflate: DeflateState, message: Outgoing): Packed {
    const { outbox, deflater } = deflate
    if (outbox.length === 0 && (!message.compress || deflater.isForNow(message.bytes.length))) {
      return this.#packNow(deflate, message)
    }
    outbox.push({ ...message, bytes: Buffer.from(message.bytes) })
    deflate.outboxBytes += message.bytes.length
    if (deflate.outboxBytes > MAX_OUTBOX) this.flushOutbox(c, deflate)
    else if (outbox.length === 1) this.#compressFirst(c, deflate)
    return NOTHING
  }

  #packNow({ deflater }: DeflateState, message: Outgoing): Packed {
    const { first, bytes } = message
    if (message.compress) {
      const small = deflater.now(bytes)
      if (small.length < bytes.length) {
        deflater.sent(bytes)
        return this.#frame(first | RSV1, small)
      }
    }
    return this.#frame(first, bytes)
  }

  #compressFirst(c: WebSocketConnection, deflate: DeflateState): void {
    const message = deflate.outbox[0]!
    const { first, bytes } = message
    deflate.deflater.later(bytes, (error, small) => {
      const isSent = this.#sendFirst(c, deflate, message, () => {
        if (error !== null || small.length >= bytes.length) return this.#frame(first, bytes)
        deflate.deflater.sent(bytes)
        return this.#frame(first | RSV1, small)
      })
      if (isSent) this.#continueOutbox(c, deflate)
    })
  }

  #continueOutbox(c: WebSocketConnection, deflate: DeflateState): void {
    for (let next = deflate.outbox[0]; next !== undefined; next = deflate.outbox[0]) {
      if (next.compress && !deflate.deflater.isForNow(next.bytes.length)) {
        this.#compressFirst(c, deflate)
        return
      }
      const message = next
      if (!this.#sendFirst(c, deflate, message, () => this.#packNow(deflate, message))) return
    }
  }

  /**
   * Sends `message` where it is the first of the outbox still: a publication that goes out before it may be one too many,
   * which flushes the outbox. `false`: that has happened, or nothing can be sent any more.
   */
  #sendFirst(c: WebSocketConnection, deflate: DeflateState, message: Outgoing, pack: () => Packed): boolean {
    const { outbox } = deflate
    if (outbox[0] !== message) return false
    const isSent = c.sendPacked(() => {
      if (outbox[0] !== message) return undefined
      deflate.outboxBytes -= outbox.shift()!.bytes.length
      return pack()
    })
    if (!isSent && outbox[0] === message) this.dropOutbox(deflate)
    return isSent
  }

  /** Sends what waits to be compressed as it is. */
  flushOutbox(c: WebSocketConnection, deflate: DeflateState): void {
    for (let next = deflate.outbox[0]; next !== undefined; next = deflate.outbox[0]) {
      const { first, bytes } = next
      if (!this.#sendFirst(c, deflate, next, () => this.#frame(first, bytes))) return
    }
  }

  /** A message that is being compressed in a thread is found missing when it is done. */
  dropOutbox(deflate: DeflateState): void {
    deflate.outbox.length = 0
    deflate.outboxBytes = 0
  }

  // ---- frames ------------------------------------------------------------------------------------------------------

  /** `false` as of `c.send`. */
  control(c: WebSocketConnection, opcode: number, payload: Uint8Array): boolean {
    return c.sendRaw(this.#wholeFrame(FIN | opcode, payload))
  }

  /** A close frame, behind everything that was sent before. Without a code it is empty. */
  close(session: Session, code: number | undefined, reason: string): void {
    const { connection, deflate } = session
    if (deflate !== undefined) this.flushOutbox(connection, deflate)
    this.control(connection, Opcode.CLOSE, closePayload(code, reason))
  }

  /** Valid until the next frame is made. */
  #frame(first: number, payload: Uint8Array): Packed {
    if (this.#masks) return this.#wholeFrame(first, payload)
    const header = this.#headers[headerLength(payload.length)]!
    writeHeader(header, 0, first, payload.length, 0)
    this.#pair[0] = header
    this.#pair[1] = payload
    return this.#pair
  }

  /** Header and payload in memory of their own. */
  #wholeFrame(first: number, payload: Uint8Array): Buffer {
    const length = headerLength(payload.length) + (this.#masks ? MASK_LENGTH : 0) + payload.length
    const frame = Buffer.allocUnsafe(length)
    let at = writeHeader(frame, 0, first, payload.length, this.#maskBit)
    if (this.#masks) {
      const key = randomKey()
      frame.writeInt32LE(key, at)
      at += MASK_LENGTH
      copyMasked(asBuffer(payload), 0, payload.length, frame, at, key)
    } else {
      frame.set(payload, at)
    }
    return frame
  }
}

function maskBehindKey(target: Buffer, from: number, to: number): void {
  const key = randomKey()
  target.writeInt32LE(key, from - MASK_LENGTH)
  maskInPlace(target, from, to, key)
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
