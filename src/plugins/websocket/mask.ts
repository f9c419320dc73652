/**
 * Masking (RFC 6455, section 5.3). A key is a 32-bit number whose lowest byte belongs to the first byte of the payload,
 * so that whole words can be masked at once. Pure, but for the pool of random keys, one per thread.
 */
import { randomFillSync } from 'node:crypto'

/** Below, a view for whole words costs more than it saves. */
const BYTES_BELOW = 64
const KEY_POOL = 1024

const keys = new Int32Array(KEY_POOL)
let nextKey = KEY_POOL

/** A key that cannot be foreseen (section 10.3). */
export function randomKey(): number {
  if (nextKey === KEY_POOL) {
    randomFillSync(keys)
    nextKey = 0
  }
  return keys[nextKey++]!
}

/** The key for a payload that goes on `count` bytes later. */
export function rotateKey(key: number, count: number): number {
  const bits = (count & 3) * 8
  return bits === 0 ? key : (key >>> bits) | (key << (32 - bits))
}

/** Masks or unmasks `bytes[from…to)` where they lie. */
export function maskInPlace(bytes: Uint8Array, from: number, to: number, key: number): void {
  if (to - from < BYTES_BELOW) {
    maskBytes(bytes, from, to, key)
    return
  }
  const aligned = from + (-(bytes.byteOffset + from) & 3)
  maskBytes(bytes, from, aligned, key)
  const words = new Int32Array(bytes.buffer, bytes.byteOffset + aligned, (to - aligned) >> 2)
  const wordKey = rotateKey(key, aligned - from)
  for (let i = 0; i < words.length; i++) words[i]! ^= wordKey
  maskBytes(bytes, aligned + words.length * 4, to, wordKey)
}

function maskBytes(bytes: Uint8Array, from: number, to: number, key: number): void {
  let turning = key
  for (let at = from; at < to; at++) {
    bytes[at]! ^= turning
    turning = (turning >>> 8) | (turning << 24)
  }
}

/** Copies `source[from…to)` to `target[at…]` and masks or unmasks the copy. */
export function copyMasked(
  source: Buffer,
  from: number,
  to: number,
  target: Buffer,
  at: number,
  key: number,
): void {
  if (to - from < BYTES_BELOW) {
    let turning = key
    for (let i = from, j = at; i < to; i++, j++) {
      target[j] = source[i]! ^ turning
      turning = (turning >>> 8) | (turning << 24)
    }
    return
  }
  source.copy(target, at, from, to)
  maskInPlace(target, at, at + to - from, key)
}
