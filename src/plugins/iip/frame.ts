/**
 * The frame of IIP: its fields, limits and both directions of its code. A reader holds numbers only; the bytes stay in
 * the ring that they came in.
 *
 *     status 1 │ path n │ NUL │ channel 4, big-endian │ length 4, big-endian │ data
 */
import { ProtocolError, type RingBuffer } from '../../index.js'
import { badValue } from './errors.js'

/** First, only, middle and last packet of a request; the same of a response; and the end of the connection. */
export const Status = {
  REQUEST_FIRST: 0,
  REQUEST: 1,
  REQUEST_MORE: 2,
  REQUEST_LAST: 3,
  RESPONSE_FIRST: 4,
  RESPONSE: 5,
  RESPONSE_MORE: 6,
  RESPONSE_LAST: 7,
  CLOSE: 8,
} as const

/** The lowest status of a side: what a server reads, and what a client reads. */
export type Side = typeof Status.REQUEST_FIRST | typeof Status.RESPONSE_FIRST

/** Distance of a status from its {@link Side}. */
export const FIRST = 0
export const ONLY = 1
const MORE = 2
export const LAST = 3

/** Bytes of a path, without the NUL. */
export const MAX_PATH = 2048
/** Bytes of data in one packet; what is longer goes in several. */
export const MAX_DATA: number = 16 * 1024 * 1024
/** Channel and length. */
const TAIL = 8
/** Status, an empty path, channel and length. */
export const MIN_HEADER = 10
const NO_BYTES: Buffer = Buffer.alloc(0)

/** What the header parser needs to know of its connection. */
export interface KnownChannels {
  isOpen(channel: number): boolean
}

/** Parses headers. The fields hold the last one for which {@link read} was `true`. */
export class FrameReader {
  /** The status less the side's lowest: {@link FIRST}, {@link ONLY}, {@link MORE} or {@link LAST}. */
  kind = 0
  /** The path is `storage[pathStart…pathEnd)` of the ring. */
  pathStart = 0
  pathEnd = 0
  channel = 0
  length = 0
  readonly #side: Side
  readonly #channels: KnownChannels

  constructor(side: Side, channels: KnownChannels) {
    this.#side = side
    this.#channels = channels
  }

  /** Bytes of the header. */
  get size(): number {
    return this.pathEnd - this.pathStart + MIN_HEADER
  }

  /**
   * Looks at the header at the front of the ring and takes nothing out. `false`: it is not complete. Throws a
   * `ProtocolError` as soon as a byte shows that it is wrong.
   */
  read(ring: RingBuffer): boolean {
    if (ring.contiguous !== ring.length) ring.linearize()
    const { storage, start, length } = ring
    if (length === 0) return false
    const end = start + length
    const kind = storage[start]! - this.#side
    if (kind < FIRST || kind > LAST) throw statusError(storage[start]!)
    const nul = findNul(storage, start + 1, end)
    if (nul < 0 || end - nul - 1 < 4) return false
    const channel = uint32(storage, nul + 1)
    if (!this.#channels.isOpen(channel)) throw new ProtocolError(`there is no channel ${channel}`)
    if (end - nul - 1 < TAIL) return false
    const size = uint32(storage, nul + 5)
    if (size === 0 || size > MAX_DATA) throw new ProtocolError(`a packet cannot hold ${size} bytes`)
    this.kind = kind
    this.pathStart = start + 1
    this.pathEnd = nul
    this.channel = channel
    this.length = size
    return true
  }
}

function findNul(storage: Buffer, from: number, end: number): number {
  const limit = Math.min(end, from + MAX_PATH + 1)
  for (let at = from; at < limit; at++) if (storage[at] === 0) return at
  if (limit - from > MAX_PATH) throw new ProtocolError(`a path is longer than ${MAX_PATH} bytes`)
  return -1
}

function statusError(status: number): ProtocolError {
  if (status === Status.CLOSE) return new ProtocolError('the peer sent the close packet')
  return new ProtocolError(`status ${status} is not allowed here`)
}

/** Whether a packet may follow one on the same channel; `inside`: a message has begun and not ended. */
export function checkOrder(kind: number, inside: boolean, channel: number): void {
  if (kind >= MORE === inside) return
  const what = inside ? 'begins before the last one has ended' : 'goes on before it has begun'
  throw new ProtocolError(`a message on channel ${channel} ${what}`)
}

function uint32(bytes: Buffer, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
}

function putUint32(target: Buffer, value: number, at: number): void {
  target[at] = value >>> 24
  target[at + 1] = value >>> 16
  target[at + 2] = value >>> 8
  target[at + 3] = value
}

/** Writes a header at `target[offset…]`; `path` ends with its NUL. Returns the offset behind it. */
export function putHeader(
  target: Buffer,
  offset: number,
  status: number,
  path: Buffer,
  channel: number,
  length: number,
): number {
  let at = offset
  target[at++] = status
  if (path.length < 48) for (let i = 0; i < path.length; i++) target[at++] = path[i]!
  else at += path.copy(target, at)
  putUint32(target, channel, at)
  putUint32(target, length, at + 4)
  return at + TAIL
}

function header(status: number, path: Buffer, channel: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(1 + path.length + TAIL)
  putHeader(bytes, 0, status, path, channel, length)
  return bytes
}

/**
 * The packets of a message, or of a part of one: `begins` and `ends` say which. The data is not copied. `path` ends
 * with its NUL.
 */
export function packets(
  side: Side,
  path: Buffer,
  channel: number,
  data: Uint8Array,
  begins = true,
  ends = true,
): Uint8Array[] {
  const parts: Uint8Array[] = []
  for (let from = 0; from < data.length; from += MAX_DATA) {
    const to = Math.min(from + MAX_DATA, data.length)
    const first = begins && from === 0
    const last = ends && to === data.length
    const kind = first ? (last ? ONLY : FIRST) : last ? LAST : MORE
    parts.push(header(side + kind, path, channel, to - from), data.subarray(from, to))
  }
  return parts
}

/** How many packets a message of so many bytes takes. */
export function packetCount(length: number): number {
  return Math.ceil(length / MAX_DATA)
}

/** A path as it stands in a frame, with its NUL; a string is taken as UTF-8. Throws `ERR_RINGLOOP_OPTION` where it cannot. */
export function framePath(path: string): Buffer {
  const bytes = Buffer.from(`${path}\0`)
  if (bytes.length === 1 || bytes.length > MAX_PATH + 1) {
    throw badValue(`a path has 1 to ${MAX_PATH} bytes, not ${bytes.length - 1}`)
  }
  if (bytes.indexOf(0) !== bytes.length - 1) throw badValue('a path cannot hold a NUL')
  return bytes
}

/**
 * One packet as bytes, for tools and tests. Throws `ERR_RINGLOOP_OPTION` for what a peer would refuse: an unknown status, a bad
 * path, data of no bytes or more than 16 MiB. Only the close packet may have neither path nor data.
 */
export function encodePacket(
  status: number,
  path: string,
  channel: number,
  data: Uint8Array = NO_BYTES,
): Buffer {
  if (!Number.isInteger(status) || status < 0 || status > Status.CLOSE) {
    throw badValue(`a status is 0 to ${Status.CLOSE}, not ${status}`)
  }
  if (!Number.isInteger(channel) || channel < 0 || channel > 0xffffffff) {
    throw badValue(`a channel is a number of 32 bits, not ${channel}`)
  }
  const mayBeEmpty = status === Status.CLOSE
  if (data.length > MAX_DATA || (data.length === 0 && !mayBeEmpty)) {
    throw badValue(`a packet holds 1 to ${MAX_DATA} bytes, not ${data.length}`)
  }
  const pathBytes = mayBeEmpty && path === '' ? Buffer.from('\0') : framePath(path)
  return Buffer.concat([header(status, pathBytes, channel, data.length), data])
}
