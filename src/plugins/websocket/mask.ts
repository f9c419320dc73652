/**
 * Masking (RFC 6455, section 5.3). A key is a 32-bit number whose lowest byte belongs to the first byte of the payload,
 * so that whole words can be masked at once. Pure, but for the pool of random keys, one per thread.
 */
import { randomFillSync } from 'node:crypto'
import { simdMask } from './simd-mask.js'

/** Below, setting up anything else costs more than a byte at a time. */
const BYTES_BELOW = 96
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
  copyMasked(bytes, from, to, bytes, from, key)
}

/** Copies `source[from…to)` to `target[at…]` and masks or unmasks the copy, which may lie where the source does. */
export function copyMasked(
  source: Uint8Array,
  from: number,
  to: number,
  target: Uint8Array,
  at: number,
  key: number,
): void {
  if (to - from < BYTES_BELOW) copyBytes(source, from, to, target, at, key)
  else if (simdMask === undefined) copyWords(source, from, to, target, at, key)
  else copyBlocks(source, from, to, target, at, key)
}

function copyBytes(
  source: Uint8Array,
  from: number,
  to: number,
  target: Uint8Array,
  at: number,
  key: number,
): void {
  let turning = key
  for (let i = from, j = at; i < to; i++, j++) {
    target[j] = source[i]! ^ turning
    turning = (turning >>> 8) | (turning << 24)
  }
}

function copyWords(
  source: Uint8Array,
  from: number,
  to: number,
  target: Uint8Array,
  at: number,
  key: number,
): void {
  const aligned = from + (-(target.byteOffset + at) & 3)
  copyBytes(source, from, aligned, target, at, key)
  const start = at + aligned - from
  target.set(source.subarray(aligned, to), start)
  const words = new Int32Array(target.buffer, target.byteOffset + start, (to - aligned) >> 2)
  const wordKey = rotateKey(key, aligned - from)
  for (let i = 0; i < words.length; i++) words[i]! ^= wordKey
  const end = start + to - aligned
  copyBytes(target, start + words.length * 4, end, target, start + words.length * 4, wordKey)
}

function copyBlocks(
  source: Uint8Array,
  from: number,
  to: number,
  target: Uint8Array,
  at: number,
  key: number,
): void {
  const { block } = simdMask!
  for (let done = 0; done < to - from; done += block.length) {
    const count = Math.min(block.length, to - from - done)
    block.set(source.subarray(from + done, from + done + count))
    simdMask!.xor(count, key)
    target.set(count === block.length ? block : block.subarray(0, count), at + done)
  }
}
