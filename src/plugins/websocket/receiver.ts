/**
 * Frames on their way in, for all connections of one protocol object. A whole small frame is unmasked straight into the
 * handler's copy; what is fragmented, compressed or not yet whole goes through an `Incoming`.
 */
import { isUtf8 } from 'node:buffer'
import { type Packet, ProtocolError, type RingBuffer } from '../../index.js'
import { TooLong } from './deflate.js'
import {
  CloseStatus,
  FIN,
  FIRST_CONTROL,
  headerLengthOf,
  isValidCloseCode,
  LENGTH_16,
  MASK_LENGTH,
  MASKED,
  MAX_CONTROL_PAYLOAD,
  MAX_HEADER_LENGTH,
  OPCODE_BITS,
  Opcode,
  RSV1,
  RSV2_AND_3,
} from './frame.js'
import { Incoming } from './incoming.js'
import { maskInPlace } from './mask.js'
import { BINARY, TEXT, type WebSocketContext } from './message.js'
import type { WebSocketSettings } from './options.js'
import type { Sender } from './sender.js'
import { type Session, State, type WebSocketConnection } from './session.js'
import { ACCEPT, checkUtf8 } from './utf8.js'

const WHOLE_TEXT = FIN | Opcode.TEXT
const WHOLE_BINARY = FIN | Opcode.BINARY
const WHOLE_PING = FIN | Opcode.PING
const NOT_ASCII = 0x80808080
const SMALL_HEADER = 2 + MASK_LENGTH
/** Frames of a connection in a turn of the loop that are no message; a header and its payload are two steps. */
const STEPS_PER_TURN = 256
/** Above, a native call is faster than a loop by the word. */
const WORDS_UP_TO = 125

const NO_STORAGE: Buffer = Buffer.alloc(0)

/** A violation, and the close code that the peer is told. */
class Violation extends ProtocolError {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

export class Receiver {
  readonly #settings: WebSocketSettings
  readonly #sender: Sender
  /** Frames of the peer have to be masked: it is a client. */
  readonly #wantsMask: boolean
  readonly #packet: Packet<WebSocketContext> = { ctx: TEXT, data: NO_STORAGE }
  /** In the call of `next` that is under way: pings are new where the buffer is no longer than this. */
  #newFrom: number = Number.POSITIVE_INFINITY
  /** One that is in use by nobody. */
  #spare: Incoming | undefined = new Incoming()
  /** For reads by the word; the storage is the loop's slab nearly always. */
  #window = new DataView(NO_STORAGE.buffer)
  #windowed = NO_STORAGE

  constructor(settings: WebSocketSettings, sender: Sender) {
    this.#settings = settings
    this.#sender = sender
    this.#wantsMask = settings.client === undefined
  }

  /** The next message, or `undefined` when it is not yet whole. Control frames before it are answered. */
  next(c: WebSocketConnection, session: Session, buffer: RingBuffer): Packet<WebSocketContext> | undefined {
    if (session.lookedAt > 0) return this.#nextLookedAt(c, session, buffer)
    return this.#next(c, session, buffer)
  }

  #next(c: WebSocketConnection, session: Session, buffer: RingBuffer): Packet<WebSocketContext> | undefined {
    try {
      if (session.incoming === undefined && session.state === State.OPEN && this.#wantsMask) {
        const packet = this.#wholeFrame(c, buffer)
        if (packet !== undefined) return packet
      }
      return this.#frames(c, session, buffer)
    } catch (error) {
      if (error instanceof Violation) this.#tell(session, error)
      throw error
    }
  }

  /** Begins with bytes that were looked at while they waited. */
  #nextLookedAt(
    c: WebSocketConnection,
    session: Session,
    buffer: RingBuffer,
  ): Packet<WebSocketContext> | undefined {
    this.#newFrom = buffer.length - session.lookedAt
    try {
      return this.#next(c, session, buffer)
    } finally {
      session.lookedAt = Math.max(0, buffer.length - this.#newFrom)
      this.#newFrom = Number.POSITIVE_INFINITY
    }
  }

  /** What waits begins with a frame; those that are too many are looked at with the next bytes. Whatever is wrong with one is found when it is its turn. */
  lookAhead(session: Session, buffer: RingBuffer): void {
    for (let steps = 0; steps < STEPS_PER_TURN && session.state === State.OPEN; steps++) {
      const { lookedAt } = session
      const header = this.#headerAt(buffer, lookedAt)
      if (header === 0) return
      const length = payloadLengthAt(buffer, lookedAt)
      if (buffer.length < lookedAt + header + length) return
      session.lookedAt = lookedAt + header + length
      if (buffer.byteAt(lookedAt) !== WHOLE_PING) continue
      const frame = Buffer.allocUnsafe(header + length)
      buffer.copyTo(frame, 0, lookedAt)
      if (this.#wantsMask) maskInPlace(frame, header, frame.length, frame.readInt32LE(header - MASK_LENGTH))
      this.#sender.control(session.connection, Opcode.PONG, frame.subarray(header))
    }
  }

  /** The length of the header of the frame at `at`; 0 where it has not come, or begins as none may. */
  #headerAt(buffer: RingBuffer, at: number): number {
    if (buffer.length < at + 2) return 0
    const first = buffer.byteAt(at)
    const second = buffer.byteAt(at + 1)
    const opcode = first & OPCODE_BITS
    const isControl = opcode >= FIRST_CONTROL
    if ((first & RSV2_AND_3) !== 0 || ((second & MASKED) !== 0) !== this.#wantsMask) return 0
    if (isControl ? !isControlStart(first, second) : opcode > Opcode.BINARY) return 0
    const header = headerLengthOf(second & ~MASKED) + (this.#wantsMask ? MASK_LENGTH : 0)
    return buffer.length < at + header ? 0 : header
  }

  /**
   * A whole unfragmented message below 64 KiB that lies in one piece: nearly every frame there is. Anything else, right or
   * wrong, is left to {@link #frames}.
   */
  #wholeFrame(c: WebSocketConnection, buffer: RingBuffer): Packet<WebSocketContext> | undefined {
    const available = buffer.contiguous
    if (available < SMALL_HEADER) return undefined
    const { storage, start } = buffer
    const first = storage[start]!
    if (first !== WHOLE_TEXT && first !== WHOLE_BINARY) return undefined
    let length = storage[start + 1]! - MASKED
    let payload = start + SMALL_HEADER
    if (length >= LENGTH_16) {
      if (length > LENGTH_16 || available < SMALL_HEADER + 2) return undefined
      length = (storage[start + 2]! << 8) | storage[start + 3]!
      if (length < LENGTH_16) return undefined
      payload += 2
    }
    const header = payload - start
    if (length < 0 || length > this.#settings.maxPayload || available < header + length) return undefined
    const isText = first === WHOLE_TEXT
    const key = this.#windowOn(storage).getInt32(payload - MASK_LENGTH, true)
    if (key !== 0) this.#unmask(storage, payload, length, key)
    if (isText && !this.#isText(storage, payload, length)) throw notUtf8()
    buffer.retrieve(header)
    this.#packet.ctx = isText ? TEXT : BINARY
    this.#packet.data = buffer.take(length)
    if (key !== 0 && buffer.isEmpty) c.unmaskFrames()
    return this.#packet
  }

  #unmask(storage: Buffer, from: number, length: number, key: number): void {
    const end = from + length
    if (length > WORDS_UP_TO) {
      maskInPlace(storage, from, end, key)
      return
    }
    const bytes = this.#window
    const lastWord = end - 4
    let i = from
    for (; i <= lastWord; i += 4) bytes.setInt32(i, bytes.getInt32(i, true) ^ key, true)
    for (let turning = key; i < end; i++, turning >>= 8) bytes.setUint8(i, bytes.getUint8(i) ^ turning)
  }

  #isText(storage: Buffer, from: number, length: number): boolean {
    const end = from + length
    return (
      (length <= WORDS_UP_TO && this.#isAscii(from, end)) || checkUtf8(ACCEPT, storage, from, end) === ACCEPT
    )
  }

  #isAscii(from: number, end: number): boolean {
    const bytes = this.#window
    const lastWord = end - 4
    let bits = 0
    let i = from
    for (; i <= lastWord; i += 4) bits |= bytes.getInt32(i, true)
    for (; i < end; i++) bits |= bytes.getUint8(i)
    return (bits & NOT_ASCII) === 0
  }

  #windowOn(storage: Buffer): DataView {
    if (this.#windowed !== storage) {
      this.#windowed = storage
      this.#window = new DataView(storage.buffer, storage.byteOffset, storage.length)
    }
    return this.#window
  }

  /** Any frames, as many as one turn is for: those that are no message cost time too. */
  #frames(
    c: WebSocketConnection,
    session: Session,
    buffer: RingBuffer,
  ): Packet<WebSocketContext> | undefined {
    for (let steps = 0; steps < STEPS_PER_TURN; steps++) {
      const { incoming } = session
      if (incoming?.inFrame !== true) {
        if (!this.#header(session, buffer)) return undefined
        if (session.state === State.CLOSED) {
          buffer.retrieveAll()
          return undefined
        }
        continue
      }
      if (incoming.inflated !== undefined) {
        const packet = this.#inflated(session, incoming)
        if (packet !== undefined) return packet
        continue
      }
      if (!incoming.take(buffer)) throw notUtf8()
      if (incoming.left > 0) return undefined
      if (incoming.isMasked && buffer.isEmpty) c.unmaskFrames()
      if (!incoming.final) {
        incoming.inFrame = false
      } else if (incoming.discarded) {
        this.#release(session, incoming)
      } else {
        return incoming.compressed
          ? this.#inflate(c, session, incoming)
          : this.#whole(session, incoming, incoming.finish())
      }
    }
    c.yield()
    return undefined
  }

  // ---- headers -----------------------------------------------------------------------------------------------------

  /**
   * Takes the header of the next frame and begins it, or the whole frame if it is a control frame. `false`: it has not
   * come yet.
   */
  #header(session: Session, buffer: RingBuffer): boolean {
    if (buffer.length < 2) return false
    if (buffer.contiguous < Math.min(buffer.length, MAX_HEADER_LENGTH + MAX_CONTROL_PAYLOAD))
      buffer.linearize()
    const { storage, start, length: available } = buffer
    const first = storage[start]!
    const second = storage[start + 1]!
    const opcode = first & OPCODE_BITS
    this.#checkStart(session, first, second)
    const lengthBits = second & ~MASKED
    const isMasked = this.#wantsMask
    const header = headerLengthOf(lengthBits) + (isMasked ? MASK_LENGTH : 0)
    if (available < header) {
      if (lengthBits > LENGTH_16 && available > 2) checkSign(storage[start + 2]!)
      return false
    }
    const payloadLength = lengthBits < LENGTH_16 ? lengthBits : readLength(storage, start + 2, lengthBits)
    const key = isMasked ? storage.readInt32LE(start + header - MASK_LENGTH) : 0
    if (opcode >= FIRST_CONTROL) {
      if (available < header + payloadLength) return false
      const isNew = available <= this.#newFrom
      this.#control(session, opcode, takePayload(buffer, header, payloadLength, key), isNew)
      return true
    }
    this.#checkLength(session, first, payloadLength)
    buffer.retrieve(header)
    this.#beginFrame(session, first, payloadLength, key)
    return true
  }

  /** What the first two bytes can be wrong in (RFC 6455, sections 5.1 to 5.5). */
  #checkStart(session: Session, first: number, second: number): void {
    const opcode = first & OPCODE_BITS
    if ((first & RSV2_AND_3) !== 0) throw violation('a reserved bit is set')
    if ((first & RSV1) !== 0 && (session.deflate === undefined || !startsMessage(opcode))) {
      throw violation('RSV1 is set where nothing is compressed')
    }
    if (((second & MASKED) !== 0) !== this.#wantsMask) {
      throw violation(this.#wantsMask ? 'a frame of a client is not masked' : 'a frame of a server is masked')
    }
    if (opcode >= FIRST_CONTROL) {
      if (opcode > Opcode.PONG) throw violation(`unknown opcode ${opcode}`)
      if ((first & FIN) === 0) throw violation('a control frame is fragmented')
      if ((second & ~MASKED) > MAX_CONTROL_PAYLOAD)
        throw violation('a control frame is longer than 125 bytes')
    } else if (opcode === Opcode.CONTINUATION) {
      if (session.incoming === undefined) throw violation('a continuation without a message')
    } else {
      if (opcode > Opcode.BINARY) throw violation(`unknown opcode ${opcode}`)
      if (session.incoming !== undefined) throw violation('a new message within a fragmented one')
    }
  }

  /** Before any memory is taken. */
  #checkLength({ incoming }: Session, first: number, payloadLength: number): void {
    const { maxPayload } = this.#settings
    const isCompressed = incoming?.compressed ?? (first & RSV1) !== 0
    const limit = isCompressed ? deflatedAtMost(maxPayload) : maxPayload
    if ((incoming?.length ?? 0) + payloadLength > limit && incoming?.discarded !== true) {
      throw new Violation(CloseStatus.TOO_BIG, `a message is longer than maxPayload (${maxPayload} bytes)`)
    }
  }

  #beginFrame(session: Session, first: number, payloadLength: number, key: number): void {
    let { incoming } = session
    if (incoming === undefined) {
      incoming = this.#spare ?? new Incoming()
      this.#spare = undefined
      const isText = (first & OPCODE_BITS) === Opcode.TEXT
      incoming.begin(isText, (first & RSV1) !== 0, session.state !== State.OPEN)
      session.incoming = incoming
    }
    incoming.beginFrame((first & FIN) !== 0, payloadLength, key)
  }

  // ---- messages ----------------------------------------------------------------------------------------------------

  #whole(session: Session, incoming: Incoming, data: Buffer): Packet<WebSocketContext> {
    if (incoming.isText && !(incoming.compressed ? isUtf8(data) : incoming.endsWhole)) throw notUtf8()
    this.#packet.ctx = incoming.isText ? TEXT : BINARY
    this.#packet.data = data
    this.#release(session, incoming)
    return this.#packet
  }

  #release(session: Session, incoming: Incoming): void {
    session.incoming = undefined
    this.#spare = incoming
  }

  #inflate(
    c: WebSocketConnection,
    session: Session,
    incoming: Incoming,
  ): Packet<WebSocketContext> | undefined {
    const { inflater } = session.deflate!
    const { maxPayload } = this.#settings
    const payload = incoming.finish()
    let data: Buffer | undefined
    try {
      data = inflater.now(payload, maxPayload)
    } catch (error) {
      throw inflateViolation(error as Error)
    }
    if (data !== undefined) return this.#whole(session, incoming, data)
    c.holdPackets()
    inflater.later(payload, maxPayload, (error, message) => {
      incoming.inflated = error ?? message
      c.releasePackets()
    })
    return undefined
  }

  /** What a thread has made of a message. */
  #inflated(session: Session, incoming: Incoming): Packet<WebSocketContext> | undefined {
    const result = incoming.inflated!
    if (result instanceof Error) throw inflateViolation(result)
    if (!incoming.discarded) return this.#whole(session, incoming, result)
    this.#release(session, incoming)
    return undefined
  }

  // ---- control frames ----------------------------------------------------------------------------------------------

  #control(session: Session, opcode: number, payload: Buffer, isNew: boolean): void {
    if (opcode === Opcode.CLOSE) this.#close(session, payload)
    else if (opcode === Opcode.PING && isNew && session.state === State.OPEN) {
      this.#sender.control(session.connection, Opcode.PONG, payload)
    }
  }

  #close(session: Session, payload: Buffer): void {
    const isEmpty = payload.length === 0
    if (payload.length === 1) throw violation('the payload of a close frame has one byte')
    const code = isEmpty ? CloseStatus.NO_STATUS : payload.readUInt16BE()
    if (!isEmpty && !isValidCloseCode(code)) throw violation('a close frame with a code that is not allowed')
    if (!isUtf8(payload.subarray(2))) {
      throw new Violation(CloseStatus.INVALID_DATA, 'the reason of a close frame is not UTF-8')
    }
    session.shared.lifecycle.finishClose(session, code, payload.toString('utf8', 2))
  }

  /** The peer is told why, where it was not told to close before; then the loop closes the connection. */
  #tell(session: Session, { status, message }: Violation): void {
    if (session.state === State.OPEN) {
      session.ending = { code: status, reason: message }
      this.#sender.close(session, status, message)
    }
    session.state = State.CLOSED
  }
}

/** Whether these can be the first bytes of a control frame (section 5.5). */
function isControlStart(first: number, second: number): boolean {
  const isKnown = (first & OPCODE_BITS) <= Opcode.PONG
  return isKnown && (first & FIN) !== 0 && (second & ~MASKED) <= MAX_CONTROL_PAYLOAD
}

/** What the header at `at`, which is whole, says. */
function payloadLengthAt(buffer: RingBuffer, at: number): number {
  const lengthBits = buffer.byteAt(at + 1) & ~MASKED
  if (lengthBits < LENGTH_16) return lengthBits
  if (lengthBits === LENGTH_16) return buffer.peekUint16(at + 2)
  return buffer.peekUint32(at + 2) * 0x1_0000_0000 + buffer.peekUint32(at + 6)
}

/** What cannot be compressed grows a little: stored blocks have headers, and a client may flush often. */
function deflatedAtMost(length: number): number {
  return length + (length >>> 10) + 64
}

function startsMessage(opcode: number): boolean {
  return opcode === Opcode.TEXT || opcode === Opcode.BINARY
}

function violation(message: string): Violation {
  return new Violation(CloseStatus.PROTOCOL_ERROR, message)
}

function notUtf8(): Violation {
  return new Violation(CloseStatus.INVALID_DATA, 'a text is not UTF-8')
}

function inflateViolation(error: Error): Violation {
  if (error instanceof TooLong) return new Violation(CloseStatus.TOO_BIG, error.message)
  return new Violation(CloseStatus.INVALID_DATA, `a message cannot be inflated: ${error.message}`)
}

/** A 16-bit or 64-bit length, which must not be written longer than it has to be (section 5.2). */
function readLength(storage: Buffer, at: number, lengthBits: number): number {
  if (lengthBits === LENGTH_16) {
    const length = storage.readUInt16BE(at)
    if (length < LENGTH_16) throw violation('a length is written in more bytes than it needs')
    return length
  }
  checkSign(storage[at]!)
  const length = storage.readUInt32BE(at) * 0x1_0000_0000 + storage.readUInt32BE(at + 4)
  if (length <= 0xffff) throw violation('a length is written in more bytes than it needs')
  return length
}

function checkSign(byte: number): void {
  if (byte >= 0x80) throw violation('a 64-bit length with its first bit set')
}

/** A copy of a control frame's payload. */
function takePayload(buffer: RingBuffer, header: number, length: number, key: number): Buffer {
  buffer.retrieve(header)
  const payload = buffer.take(length)
  if (key !== 0) maskInPlace(payload, 0, length, key)
  return payload
}
