/** A length-prefixed protocol for tests: 4 bytes big-endian, then as many bytes; `ctx` counts the packets. */
import type { ProtocolConnection } from '../../src/connection.js'
import { ProtocolError } from '../../src/errors.js'
import type { Packet, Protocol } from '../../src/protocol/protocol.js'
import type { RingBuffer } from '../../src/ringbuffer/ring-buffer.js'

const HEADER = 4
const MAX_LENGTH = 64 * 1024 * 1024

export class LengthProtocol implements Protocol<number, Uint8Array | string> {
  #count = 0

  unPacket(_c: ProtocolConnection, buffer: RingBuffer): Packet<number> | undefined {
    if (buffer.length < HEADER) return undefined
    const length = buffer.peekUint32()
    if (length > MAX_LENGTH) throw new ProtocolError(`a packet of ${length} bytes`)
    if (buffer.length < HEADER + length) return undefined
    buffer.retrieve(HEADER)
    return { ctx: ++this.#count, data: buffer.take(length) }
  }

  packet(_c: ProtocolConnection, out: Uint8Array | string): Uint8Array[] {
    const bytes = Buffer.from(out as string)
    const header = Buffer.alloc(HEADER)
    header.writeUInt32BE(bytes.length)
    return [header, bytes]
  }
}

/** The bytes of packets, one after the other. */
export function frames(...bodies: readonly (Uint8Array | string)[]): Buffer {
  const parts: Uint8Array[] = []
  for (const body of bodies) {
    const header = Buffer.alloc(HEADER)
    header.writeUInt32BE(Buffer.byteLength(body as string))
    parts.push(header, Buffer.from(body as string))
  }
  return Buffer.concat(parts)
}

/** The bodies in whole packets; throws when a packet is cut off. */
export function bodies(bytes: Buffer): Buffer[] {
  const found: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at)
    if (at + HEADER + length > bytes.length) throw new Error('the last packet is cut off')
    found.push(bytes.subarray(at + HEADER, at + HEADER + length))
    at += HEADER + length
  }
  return found
}
