/**
 * Strict UTF-8 (RFC 3629) that may come in pieces, so that a text is refused at its first wrong byte and not at its end.
 * The state between two pieces is a small number. Pure.
 */
import { isUtf8 } from 'node:buffer'

/** Between two characters: where a text begins and where it must end. */
export const ACCEPT = 0
/** A wrong byte has come; no way back. */
export const REJECT = 8

// States 1 to 3 wait for so many continuation bytes. The others wait for one whose range is narrower, which rules out
// overlong forms (E0, F0), surrogates (ED) and what is beyond U+10FFFF (F4).
const AFTER_E0 = 4
const AFTER_ED = 5
const AFTER_F0 = 6
const AFTER_F4 = 7

/** Below, a native call costs more than the loop. */
const LOOP_BELOW = 64

/** The next state, by state and byte. */
const NEXT: Uint8Array = transitions()

function transitions(): Uint8Array {
  const next = new Uint8Array((REJECT + 1) * 256).fill(REJECT)
  const on = (state: number, from: number, to: number, target: number): void => {
    next.fill(target, state * 256 + from, state * 256 + to + 1)
  }
  on(ACCEPT, 0x00, 0x7f, ACCEPT)
  on(ACCEPT, 0xc2, 0xdf, 1)
  on(ACCEPT, 0xe0, 0xef, 2)
  on(ACCEPT, 0xf0, 0xf3, 3)
  on(ACCEPT, 0xe0, 0xe0, AFTER_E0)
  on(ACCEPT, 0xed, 0xed, AFTER_ED)
  on(ACCEPT, 0xf0, 0xf0, AFTER_F0)
  on(ACCEPT, 0xf4, 0xf4, AFTER_F4)
  for (let left = 1; left <= 3; left++) on(left, 0x80, 0xbf, left - 1)
  on(AFTER_E0, 0xa0, 0xbf, 1)
  on(AFTER_ED, 0x80, 0x9f, 1)
  on(AFTER_F0, 0x90, 0xbf, 2)
  on(AFTER_F4, 0x80, 0x8f, 2)
  return next
}

/** The state after `bytes[from…to)`. */
export function checkUtf8(state: number, bytes: Uint8Array, from: number, to: number): number {
  if (to - from < LOOP_BELOW) return step(state, bytes, from, to)
  let at = from
  let now = state
  while (now !== ACCEPT && now !== REJECT && at < to) now = step(now, bytes, at, ++at)
  if (now === REJECT) return REJECT
  const end = lastBoundary(bytes, at, to)
  if (!isUtf8(bytes.subarray(at, end))) return REJECT
  return step(ACCEPT, bytes, end, to)
}

function step(state: number, bytes: Uint8Array, from: number, to: number): number {
  let now = state
  for (let at = from; at < to; at++) now = NEXT[now * 256 + bytes[at]!]!
  return now
}

/** Where the last character begins if it may be cut off, else `to`. */
function lastBoundary(bytes: Uint8Array, from: number, to: number): number {
  for (let at = to - 1; at >= from && at >= to - 3; at--) {
    const byte = bytes[at]!
    if (byte >= 0xc0) return at
    if (byte < 0x80) return to
  }
  return to
}
