/**
 * What one publication is on its way over a broker: who has published it, its number, and `out` as bytes. Pure; any
 * thread. Both sides are ringloop, of perhaps different versions: a frame of a version that is not known is not ours.
 *
 *     0  'RL'             2  version, 1
 *     3  bits 0-1: text, bytes or a cloned value; bit 2: slow subscribers are closed
 *     4  the publisher, 8 bytes drawn at its start
 *    12  the number of the publication among the publisher's of this topic, 48 bits, big-endian
 *    18  `out`
 */
import { isUtf8 } from 'node:buffer'
import { deserialize, serialize } from 'node:v8'
import { ErrorCode, RingloopError, toError } from '../errors.js'

/** 8 bytes, as 16 hexadecimal digits. */
export type PublisherId = string

export interface Frame {
  readonly publisher: PublisherId
  readonly sequence: number
  readonly out: unknown
  readonly slow: 'drop' | 'close'
}

const HEADER = 18
const VERSION = 1
const AT = { VERSION: 2, FLAGS: 3, PUBLISHER: 4, SEQUENCE: 12 } as const
const SEQUENCE_BYTES = 6
const KIND = { TEXT: 0, BYTES: 1, CLONED: 2 } as const
const KIND_BITS = 3
const CLOSES_SLOW = 4

/** Throws `ERR_RINGLOOP_PACKET` where `out` cannot be cloned. */
export function encodeFrame({ publisher, sequence, out, slow }: Frame): Buffer {
  const kind = kindOf(out)
  const payload = kind === KIND.CLONED ? clone(out) : (out as string | Uint8Array)
  const length = typeof payload === 'string' ? Buffer.byteLength(payload) : payload.length
  const frame = Buffer.allocUnsafe(HEADER + length)
  frame.write('RL', 'latin1')
  frame[AT.VERSION] = VERSION
  frame[AT.FLAGS] = kind | (slow === 'close' ? CLOSES_SLOW : 0)
  frame.write(publisher, AT.PUBLISHER, 'hex')
  frame.writeUIntBE(sequence, AT.SEQUENCE, SEQUENCE_BYTES)
  if (typeof payload === 'string') frame.write(payload, HEADER)
  else frame.set(payload, HEADER)
  return frame
}

/** `undefined` for what is no frame of ours. Text and bytes of the result may be views of `bytes`. */
export function decodeFrame(bytes: Uint8Array): Frame | undefined {
  const frame = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  if (frame.length < HEADER || frame.toString('latin1', 0, 2) !== 'RL' || frame[AT.VERSION] !== VERSION) {
    return undefined
  }
  const flags = frame[AT.FLAGS]!
  if (flags > (KIND_BITS | CLOSES_SLOW)) return undefined
  const payload = readPayload(flags & KIND_BITS, frame.subarray(HEADER))
  if (payload === undefined) return undefined
  return {
    publisher: frame.toString('hex', AT.PUBLISHER, AT.SEQUENCE),
    sequence: frame.readUIntBE(AT.SEQUENCE, SEQUENCE_BYTES),
    out: payload.out,
    slow: (flags & CLOSES_SLOW) === 0 ? 'drop' : 'close',
  }
}

function kindOf(out: unknown): number {
  if (typeof out === 'string') return KIND.TEXT
  return out instanceof Uint8Array ? KIND.BYTES : KIND.CLONED
}

function clone(out: unknown): Buffer {
  try {
    return serialize(out)
  } catch (error) {
    const reason = toError(error).message
    throw new RingloopError(
      ErrorCode.PACKET,
      `what goes to other machines must be cloneable: ${reason}`,
      error,
    )
  }
}

function readPayload(kind: number, payload: Buffer): { readonly out: unknown } | undefined {
  if (kind === KIND.BYTES) return { out: payload }
  if (kind === KIND.TEXT) return isUtf8(payload) ? { out: payload.toString() } : undefined
  if (kind !== KIND.CLONED) return undefined
  try {
    return { out: deserialize(payload) }
  } catch {
    return undefined
  }
}
