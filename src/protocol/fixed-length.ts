/** Packets of one length. Keeps no state. */
import { checkInteger } from '../check-integer.js'
import { checkOptions, type OptionNames } from '../check-options.js'
import type { ProtocolConnection } from '../connection.js'
import { ErrorCode, RingloopError } from '../errors.js'
import type { RingBuffer } from '../ringbuffer/ring-buffer.js'
import type { Packed, Packet, Protocol } from './protocol.js'
import { asBytes, writeInto } from './write-into.js'

export interface FixedLengthOptions {
  /** Bytes of every packet, at least 1. It bounds what a packet takes. */
  readonly length: number
}

const OPTIONS = { length: true } as const satisfies OptionNames<FixedLengthOptions>

/**
 * Every `length` bytes are a packet; an answer must have exactly as many.
 *
 *     const protocol = new FixedLengthProtocol({ length: 16 })
 *     const server = new Server({ onMessage: (c, ctx, data) => data }, { protocol })
 *     await server.start()
 */
export class FixedLengthProtocol implements Protocol {
  readonly takesAll = true
  readonly #length: number
  readonly #packet: Packet = { ctx: undefined, data: Buffer.alloc(0) }

  /** Throws `ERR_RINGLOOP_OPTION`. */
  constructor(options: FixedLengthOptions) {
    checkOptions('FixedLengthProtocol', options, OPTIONS)
    // It has no default: 0 is refused as any other wrong number.
    this.#length = checkInteger('length', options.length ?? 0, 0, 1)
  }

  unPacket(_c: ProtocolConnection, buffer: RingBuffer): Packet | undefined {
    if (buffer.length < this.#length) return undefined
    this.#packet.data = buffer.take(this.#length)
    return this.#packet
  }

  /** Throws `ERR_RINGLOOP_PACKET` for an answer of another length. */
  packet(_c: unknown, out: Uint8Array | string): Packed {
    const bytes = asBytes(out)
    if (bytes.length === this.#length) return bytes
    throw new RingloopError(
      ErrorCode.PACKET,
      `a packet must have ${this.#length} bytes, this one has ${bytes.length}`,
    )
  }

  packetInto(
    _c: ProtocolConnection,
    out: Uint8Array | string,
    _ctx: undefined,
    target: Buffer,
    offset: number,
  ): number {
    if (!(out instanceof Uint8Array) || out.length !== this.#length) return -1
    return out.length > target.length - offset ? -1 : writeInto(target, offset, out)
  }

  broadcast(out: Uint8Array | string): () => Packed {
    const packed = this.packet(undefined, out)
    return () => packed
  }
}
