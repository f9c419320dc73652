/** The default protocol: what one read brought is one packet, what is returned goes out as it is. Keeps no state. */
import { checkOptions, type OptionNames } from '../check-options.js'
import type { ProtocolConnection } from '../connection.js'
import type { RingBuffer } from '../ringbuffer/ring-buffer.js'
import type { Packed, Packet, Protocol } from './protocol.js'
import { asBytes, MAX_UTF8_BYTES } from './write-into.js'

export interface RawOptions {
  /** The handler gets a view of the loop's memory instead of a copy. Default `false`. */
  readonly borrow?: boolean | undefined
}

const OPTIONS = { borrow: true } as const satisfies OptionNames<RawOptions>

/** Bytes as they come. There are no packet borders on TCP: a message may come in any number of pieces. */
export class RawProtocol implements Protocol {
  readonly borrow: boolean
  readonly #packet: Packet = { ctx: undefined, data: Buffer.alloc(0) }

  /**
   * With `borrow` the handler gets a view of the loop's memory instead of a copy: valid until `onMessage` returns, so not
   * for handlers that keep `data` or wait for something before they read it. Returning or sending it is safe. It pays
   * from some KiB on. Default `false`. Throws `ERR_RINGLOOP_OPTION`.
   */
  constructor(options: RawOptions = {}) {
    checkOptions('RawProtocol', options, OPTIONS)
    this.borrow = options.borrow === true
  }

  unPacket(_c: ProtocolConnection, buffer: RingBuffer): Packet | undefined {
    if (buffer.isEmpty) return undefined
    if (this.borrow) {
      this.#packet.data = buffer.peekAll()
      buffer.retrieveAll()
    } else {
      this.#packet.data = buffer.take(buffer.length)
    }
    return this.#packet
  }

  packet(_c: ProtocolConnection, out: Uint8Array | string): Packed {
    return asBytes(out)
  }

  packetInto(
    _c: ProtocolConnection,
    out: Uint8Array | string,
    _ctx: undefined,
    target: Buffer,
    offset: number,
  ): number {
    const room = target.length - offset
    if (typeof out !== 'string') return -1
    return out.length * MAX_UTF8_BYTES <= room ? target.write(out, offset) : -1
  }

  broadcast(out: Uint8Array | string): () => Packed {
    const bytes = asBytes(out)
    return () => bytes
  }
}
