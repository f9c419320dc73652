/** Packets that say their length in a field of their header. Keeps no state: the field is read again while bytes are missing. */
import { checkInteger } from '../check-integer.js'
import { checkOptions, type OptionNames } from '../check-options.js'
import type { ProtocolConnection } from '../connection.js'
import { ErrorCode, ProtocolError, RingloopError } from '../errors.js'
import type { RingBuffer } from '../ringbuffer/ring-buffer.js'
import type { Packed, Packet, Protocol } from './protocol.js'
import { asBytes, mostBytes, writeInto } from './write-into.js'

export interface LengthFieldOptions {
  /** Bytes in front of the length field. Default 0. */
  readonly offset?: number | undefined
  /** Bytes of the length field, 1 to 8. Default 4. */
  readonly size?: number | undefined
  /** Added to the field's value to get the number of bytes behind the field; may be negative. Default 0. */
  readonly adjustment?: number | undefined
  /** Bytes at the front that the handler does not get. Default `offset + size`: it gets what is behind the field. */
  readonly strip?: number | undefined
  /** Order of the field's bytes. Default `big`. */
  readonly endian?: 'big' | 'little' | undefined
  /** Bytes of a frame, header included; the peer that announces more is closed. Default 1 MiB. */
  readonly maxPacket?: number | undefined
  /** What is sent in the place of stripped bytes outside the field, such as a magic number. Default zeros. */
  readonly prefix?: Uint8Array | undefined
}

const OPTIONS = {
  offset: true,
  size: true,
  adjustment: true,
  strip: true,
  endian: true,
  maxPacket: true,
  prefix: true,
} as const satisfies OptionNames<LengthFieldOptions>

const MAX_SIZE = 8
const DEFAULT_MAX_PACKET = 1024 * 1024

/**
 * Frames with a length field, as cut by Netty's `LengthFieldBasedFrameDecoder`:
 *
 *     ┌──── offset ────┬──── size ────┬──── value + adjustment ────┐
 *     └──────────── strip ────────────┘            data            ┘
 *
 * An answer is framed the same way: `strip` bytes in front of it, the field filled in. So a packet that is sent back is
 * the frame that came, but for the `prefix`.
 *
 *     const protocol = new LengthFieldProtocol({ size: 2, maxPacket: 16_384 })
 *     const server = new Server({ onMessage: (c, ctx, data) => data }, { protocol })
 *     await server.start()
 */
export class LengthFieldProtocol implements Protocol {
  readonly takesAll = true
  readonly #offset: number
  readonly #size: number
  readonly #adjustment: number
  readonly #strip: number
  readonly #little: boolean
  readonly #maxPacket: number
  /** The stripped bytes as they are sent. */
  readonly #lead: Buffer
  readonly #packet: Packet = { ctx: undefined, data: Buffer.alloc(0) }

  /** Throws `ERR_RINGLOOP_OPTION`. */
  constructor(options: LengthFieldOptions = {}) {
    checkOptions('LengthFieldProtocol', options, OPTIONS)
    this.#offset = checkInteger('offset', options.offset, 0)
    this.#size = checkInteger('size', options.size, 4, 1, MAX_SIZE)
    this.#strip = checkInteger('strip', options.strip, this.#offset + this.#size)
    this.#maxPacket = checkInteger('maxPacket', options.maxPacket, DEFAULT_MAX_PACKET, 1)
    this.#adjustment = checkInteger('adjustment', options.adjustment, 0, Number.MIN_SAFE_INTEGER)
    this.#little = options.endian === 'little'
    checkLayout(options, Math.max(this.#offset + this.#size, this.#strip), this.#maxPacket)
    this.#lead = Buffer.alloc(this.#strip)
    if (options.prefix !== undefined) this.#lead.set(options.prefix.subarray(0, this.#strip))
  }

  unPacket(_c: ProtocolConnection, buffer: RingBuffer): Packet | undefined {
    const fieldEnd = this.#offset + this.#size
    if (buffer.length < fieldEnd) return undefined
    const value = this.#readLength(buffer)
    const length = fieldEnd + this.#adjustment + value
    if (length > this.#maxPacket) {
      throw new ProtocolError(`a frame of ${length} bytes is above maxPacket (${this.#maxPacket})`)
    }
    if (length < fieldEnd || length < this.#strip) {
      throw new ProtocolError(`the length ${value} makes a frame of ${length} bytes, less than its header`)
    }
    if (buffer.length < length) return undefined
    buffer.retrieve(this.#strip)
    this.#packet.data = buffer.take(length - this.#strip)
    return this.#packet
  }

  /** Throws `ERR_RINGLOOP_PACKET` for an answer whose length the field cannot hold. */
  packet(_c: unknown, out: Uint8Array | string): Packed {
    const payload = typeof out === 'string' ? Buffer.byteLength(out) : asBytes(out).length
    const frame = Buffer.allocUnsafe(this.#strip + payload)
    writeInto(frame, this.#strip, out)
    this.#frame(frame, 0, frame.length)
    return frame
  }

  packetInto(
    _c: ProtocolConnection,
    out: Uint8Array | string,
    _ctx: undefined,
    target: Buffer,
    offset: number,
  ): number {
    if (this.#strip + mostBytes(out) > target.length - offset) return -1
    const length = this.#strip + writeInto(target, offset + this.#strip, out)
    this.#frame(target, offset, length)
    return length
  }

  broadcast(out: Uint8Array | string): () => Packed {
    const packed = this.packet(undefined, out)
    return () => packed
  }

  #readLength(buffer: RingBuffer): number {
    const offset = this.#offset
    const little = this.#little
    switch (this.#size) {
      case 1:
        return buffer.peekUint8(offset)
      case 2:
        return little ? buffer.peekUint16LE(offset) : buffer.peekUint16(offset)
      case 4:
        return little ? buffer.peekUint32LE(offset) : buffer.peekUint32(offset)
    }
    const size = this.#size
    let value = 0
    for (let i = 0; i < size; i++) value = value * 256 + buffer.byteAt(offset + (little ? size - 1 - i : i))
    return value
  }

  /** Fills in what is in front of the payload, which is there already. */
  #frame(target: Buffer, start: number, length: number): void {
    const fieldEnd = this.#offset + this.#size
    const value = length - fieldEnd - this.#adjustment
    if (length < fieldEnd || value < 0 || value >= 256 ** this.#size) {
      throw new RingloopError(
        ErrorCode.PACKET,
        `a frame of ${length} bytes has no length that the field of ${this.#size} bytes can hold`,
      )
    }
    for (let i = 0; i < this.#strip; i++) target[start + i] = this.#lead[i]!
    let rest = value
    for (let i = 0; i < this.#size; i++) {
      const at = this.#little ? this.#offset + i : fieldEnd - 1 - i
      target[start + at] = rest % 256
      rest = Math.floor(rest / 256)
    }
  }
}

function checkLayout(options: LengthFieldOptions, header: number, maxPacket: number): void {
  const fail = (message: string): never => {
    throw new RingloopError(ErrorCode.OPTION, message)
  }
  const { endian = 'big', prefix } = options
  if (endian !== 'big' && endian !== 'little') fail(`endian must be 'big' or 'little', not '${endian}'`)
  if (header > maxPacket || !Number.isFinite(header)) {
    fail(`maxPacket (${maxPacket}) must have room for the header of ${header} bytes`)
  }
  if (prefix !== undefined && !(prefix instanceof Uint8Array)) fail('prefix must be a Uint8Array')
}
