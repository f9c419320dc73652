/** Frames of RFC 6455, section 5.2: constants, close codes, and the bytes of a frame's header. Pure, keeps nothing. */

export const Opcode = { CONTINUATION: 0, TEXT: 1, BINARY: 2, CLOSE: 8, PING: 9, PONG: 10 } as const

export const FIN = 0x80
/** Set on the first frame of a compressed message (RFC 7692, section 6). */
export const RSV1 = 0x40
export const RSV2_AND_3 = 0x30
export const OPCODE_BITS = 0x0f
/** From this opcode on frames are control frames. */
export const FIRST_CONTROL = 8

export const MASKED = 0x80
export const MASK_LENGTH = 4
export const MAX_CONTROL_PAYLOAD = 125
/** The longest header: two bytes, a 64-bit length, a mask. */
export const MAX_HEADER_LENGTH = 14

export const LENGTH_16 = 126
const LENGTH_64 = 127
const MAX_LENGTH_16 = 0xffff
const TWO_TO_32 = 0x1_0000_0000

/** Close codes that this side sends by itself (RFC 6455, section 7.4.1). */
export const CloseStatus = {
  NORMAL: 1000,
  GOING_AWAY: 1001,
  PROTOCOL_ERROR: 1002,
  /** Never sent: there was none in the close frame. */
  NO_STATUS: 1005,
  /** Never sent: the connection ended without a close frame. */
  ABNORMAL: 1006,
  INVALID_DATA: 1007,
  POLICY: 1008,
  TOO_BIG: 1009,
  INTERNAL_ERROR: 1011,
} as const

/** Whether a close frame may carry `code`: those of the RFC and the IANA registry, and 3000 to 4999. */
export function isValidCloseCode(code: number): boolean {
  if (code >= 3000) return code <= 4999
  return code >= 1000 && code <= 1014 && code !== 1004 && code !== 1005 && code !== 1006
}

/** Bytes of an unmasked header. */
export function headerLength(payloadLength: number): number {
  if (payloadLength < LENGTH_16) return 2
  return payloadLength <= MAX_LENGTH_16 ? 4 : 10
}

/** The same by the seven bits of a header that say the length, or how many bytes say it. */
export function headerLengthOf(lengthBits: number): number {
  if (lengthBits < LENGTH_16) return 2
  return lengthBits === LENGTH_16 ? 4 : 10
}

/** Writes the header up to where a mask would follow; returns the index behind it. `maskBit` is 0 or {@link MASKED}. */
export function writeHeader(
  target: Uint8Array,
  at: number,
  first: number,
  payloadLength: number,
  maskBit: number,
): number {
  target[at] = first
  if (payloadLength < LENGTH_16) {
    target[at + 1] = payloadLength | maskBit
    return at + 2
  }
  if (payloadLength <= MAX_LENGTH_16) {
    target[at + 1] = LENGTH_16 | maskBit
    target[at + 2] = payloadLength >>> 8
    target[at + 3] = payloadLength
    return at + 4
  }
  target[at + 1] = LENGTH_64 | maskBit
  writeUint32(target, at + 2, Math.floor(payloadLength / TWO_TO_32))
  writeUint32(target, at + 6, payloadLength % TWO_TO_32)
  return at + 10
}

function writeUint32(target: Uint8Array, at: number, value: number): void {
  target[at] = value >>> 24
  target[at + 1] = value >>> 16
  target[at + 2] = value >>> 8
  target[at + 3] = value
}

/** The payload of a close frame; nothing without a code. `reason` must fit in 123 bytes of UTF-8. */
export function closePayload(code: number | undefined, reason: string): Buffer {
  if (code === undefined) return Buffer.alloc(0)
  const payload = Buffer.allocUnsafe(2 + Buffer.byteLength(reason))
  payload.writeUInt16BE(code)
  payload.write(reason, 2)
  return payload
}
