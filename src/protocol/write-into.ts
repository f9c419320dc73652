/** What the codecs share: an answer as bytes, or written straight into the loop's out slab. */
import { notSendable } from './not-sendable.js'

/** As UTF-8 a string takes at most so many bytes for each of its UTF-16 units, which `length` counts. */
export const MAX_UTF8_BYTES = 3
/** Below this a loop is faster than the native copy; measured on Node 20. */
const LOOP_COPY_BELOW = 36

const ADVICE = 'this protocol sends strings and Uint8Arrays'

/** Throws `ERR_RINGLOOP_PACKET` for what is neither a string nor a Uint8Array. */
export function asBytes(out: Uint8Array | string): Uint8Array {
  if (typeof out === 'string') return Buffer.from(out)
  if (out instanceof Uint8Array) return out
  throw notSendable(out, ADVICE)
}

/** The most bytes that {@link writeInto} can write. Throws as {@link asBytes}. */
export function mostBytes(out: Uint8Array | string): number {
  if (typeof out === 'string') return out.length * MAX_UTF8_BYTES
  if (out instanceof Uint8Array) return out.length
  throw notSendable(out, ADVICE)
}

/** Writes `out` (a string as UTF-8) at `target[offset…]`, where {@link mostBytes} are free; returns how many bytes. */
export function writeInto(target: Buffer, offset: number, out: Uint8Array | string): number {
  if (typeof out === 'string') return target.write(out, offset)
  const { length } = out
  if (length >= LOOP_COPY_BELOW) target.set(out, offset)
  else for (let i = 0; i < length; i++) target[offset + i] = out[i]!
  return length
}
