/**
 * What is published on one loop on its way to the others over the server's thread, and how much of it may be on the way: to
 * each other loop once, in the order of its publisher. Whoever asks for it has a `Publisher`; its thread only. Text and
 * bytes have a shorter way, loop-post.ts, where there are native mailboxes.
 */

import { leftOut, NOTHING_SENT } from '../loop/broadcast-result.js'
import type { Publication } from '../loop/publication.js'
import type { SharedStats } from '../loop/stats.js'
import type { BroadcastResult } from '../loop.js'
import type { Questions } from './questions.js'

/** How far a loop may be behind; then publications leave it out, so that what waits for it is bounded. */
const MAX_BEHIND = 16_384
const MAX_BYTES_BEHIND = 64 * 1024 * 1024
/** Of one publication so many values are weighed. */
const MAX_LOOKED_AT = 1024

/** Whether what waits for so many loops is too much for one more publication. */
export function isTooFarBehind({ size, bytes }: Questions, loops: number): boolean {
  return size >= MAX_BEHIND * loops || bytes >= MAX_BYTES_BEHIND * loops
}

/** Asks another thread to publish: the server a loop, a loop the server. */
export class Publisher {
  readonly #questions: Questions
  readonly #stats: SharedStats
  readonly #loop: number
  readonly #loops: number

  /** `loop`: where it is counted what was left out. `loops`: how many of them it goes to. */
  constructor(questions: Questions, stats: SharedStats, loop: number, loops: number) {
    this.#questions = questions
    this.#stats = stats
    this.#loop = loop
    this.#loops = loops
  }

  /**
   * `post` sends it under its number, not necessarily at once: it is a copy. Rejects with `ERR_RINGLOOP_PACKET` where
   * `out` cannot be cloned or packed.
   */
  publish(
    publication: Publication,
    post: (id: number, publication: Publication) => void,
  ): Promise<BroadcastResult> {
    if (this.isTooFarBehind) {
      this.#stats.countLeftOut(this.#loop, this.#loops)
      return Promise.resolve(leftOut(this.#loops))
    }
    const { out, options } = publication
    return this.#questions.ask(NOTHING_SENT, weight(out), (id) =>
      post(id, { ...publication, out: copyOf(out), options: { ...options } }),
    )
  }

  /** What is published now is left out. */
  get isTooFarBehind(): boolean {
    return isTooFarBehind(this.#questions, this.#loops)
  }
}

/** A copy of bytes has no more memory than they need; cloned they would bring along what they are a part of. */
function copyOf(out: unknown): unknown {
  if (typeof out === 'string') return out
  if (out instanceof Uint8Array) return new Uint8Array(out)
  if (!isPlain(out)) return structuredClone(out)
  return Object.fromEntries(Object.entries(out).map(([name, value]) => [name, copyOf(value)]))
}

/** The strings and bytes in it, at any depth, as far as it is looked at. */
function weight(out: unknown): number {
  const found = [out]
  let bytes = 0
  for (let i = 0; i < found.length; i++) {
    const value = found[i]
    if (typeof value === 'string') bytes += value.length
    else if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) bytes += value.byteLength
    else if (typeof value === 'object' && value !== null) findMore(found, value)
  }
  return bytes
}

function findMore(found: unknown[], value: object): void {
  for (const part of partsOf(value)) {
    if (found.length >= MAX_LOOKED_AT) return
    found.push(part)
  }
}

/** Of a map the entries, each a list of two. */
function partsOf(value: object): Iterable<unknown> {
  return Array.isArray(value) || value instanceof Map || value instanceof Set ? value : Object.values(value)
}

function isPlain(value: unknown): value is object {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
}
