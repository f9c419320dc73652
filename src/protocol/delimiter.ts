/** Packets that end with a sequence of bytes. `c.session` is how far the unfinished packet has been searched. */
import { checkInteger } from '../check-integer.js'
import { checkOptions, type OptionNames } from '../check-options.js'
import type { ProtocolConnection } from '../connection.js'
import { ErrorCode, ProtocolError, RingloopError } from '../errors.js'
import type { RingBuffer } from '../ringbuffer/ring-buffer.js'
import type { Packed, Packet, Protocol } from './protocol.js'
import { asBytes, mostBytes, writeInto } from './write-into.js'

export interface DelimiterOptions {
  /** What ends a packet; a string is taken as UTF-8. At least one byte. */
  readonly delimiter: Uint8Array | string
  /** The handler gets the delimiter too, and sends it itself. Default `false`: it is cut off, and appended to answers. */
  readonly keep?: boolean | undefined
  /** Bytes of a packet without its delimiter; the peer that sends more is closed. Default 1 MiB. */
  readonly maxPacket?: number | undefined
}

const OPTIONS = {
  delimiter: true,
  keep: true,
  maxPacket: true,
} as const satisfies OptionNames<DelimiterOptions>

const DEFAULT_MAX_PACKET = 1024 * 1024

/**
 * Packets with a delimiter behind each. What a packet contains is not looked at when it is sent: the delimiter within
 * it would end it there.
 *
 *     const protocol = new DelimiterProtocol({ delimiter: '\0', maxPacket: 4096 })
 *     const server = new Server({ onMessage: (c, ctx, data) => data }, { protocol })
 *     await server.start()
 */
export class DelimiterProtocol implements Protocol {
  readonly takesAll = true
  protected readonly maxPacket: number
  /** The one packet that is handed over each time. */
  protected readonly cut: Packet = { ctx: undefined, data: Buffer.alloc(0) }
  readonly #delimiter: Buffer
  readonly #needle: Uint8Array | number
  readonly #kept: number
  /** What is appended to an answer. */
  readonly #suffix: Buffer

  /** Throws `ERR_RINGLOOP_OPTION`. */
  constructor(options: DelimiterOptions) {
    checkOptions('DelimiterProtocol', options, OPTIONS)
    const { delimiter, keep = false } = options
    if (!(delimiter instanceof Uint8Array || typeof delimiter === 'string') || delimiter.length === 0) {
      throw new RingloopError(ErrorCode.OPTION, 'delimiter must be a string or a Uint8Array, and not empty')
    }
    this.#delimiter = Buffer.from(delimiter as string)
    this.#needle = this.#delimiter.length === 1 ? this.#delimiter[0]! : this.#delimiter
    this.#kept = keep ? this.#delimiter.length : 0
    this.#suffix = keep ? Buffer.alloc(0) : this.#delimiter
    this.maxPacket = checkInteger('maxPacket', options.maxPacket, DEFAULT_MAX_PACKET)
  }

  onConnect(c: ProtocolConnection): void {
    c.session = 0
  }

  unPacket(c: ProtocolConnection, buffer: RingBuffer): Packet | undefined {
    if (buffer.isEmpty) return undefined
    const found = buffer.indexOf(this.#needle, c.session as number)
    if (found === -1) {
      // The delimiter may have begun with the last bytes.
      const searched = Math.max(0, buffer.length - this.#delimiter.length + 1)
      if (searched > this.maxPacket) throw this.tooLong()
      c.session = searched
      return undefined
    }
    if (found > this.maxPacket) throw this.tooLong()
    c.session = 0
    this.cut.data = buffer.take(found + this.#kept)
    buffer.retrieve(this.#delimiter.length - this.#kept)
    return this.cut
  }

  packet(_c: ProtocolConnection, out: Uint8Array | string): Packed {
    const bytes = asBytes(out)
    return this.#suffix.length === 0 ? bytes : [bytes, this.#suffix]
  }

  packetInto(
    _c: ProtocolConnection,
    out: Uint8Array | string,
    _ctx: undefined,
    target: Buffer,
    offset: number,
  ): number {
    const suffix = this.#suffix
    if (mostBytes(out) + suffix.length > target.length - offset) return -1
    const length = writeInto(target, offset, out)
    return length + writeInto(target, offset + length, suffix)
  }

  broadcast(out: Uint8Array | string): () => Packed {
    const packed = Buffer.concat([asBytes(out), this.#suffix])
    return () => packed
  }

  protected tooLong(): ProtocolError {
    return new ProtocolError(`a packet has no end within maxPacket (${this.maxPacket} bytes)`)
  }
}
