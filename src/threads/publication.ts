/**
 * What is published on one loop on its way to the others, and how much of it may be on the way. It goes over the server's
 * thread: to each other loop once, in the order of its publisher. Whoever asks for it has a `Publisher`; its thread only.
 */

import { LEFT_OUT, NOTHING_SENT } from '../loop/broadcast-result.js'
import type { SharedStats } from '../loop/stats.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import type { Questions } from './questions.js'

export interface Publication {
  readonly topic: string
  readonly out: unknown
  readonly options: BroadcastOptions
}

/** How far a loop may be behind; then publications leave it out, so that what waits for it is bounded. */
const MAX_BEHIND = 16_384
const MAX_BYTES_BEHIND = 64 * 1024 * 1024

/** Asks another thread to publish: the server a loop, a loop the server. */
export class Publisher {
  readonly #questions: Questions
  readonly #stats: SharedStats
  readonly #loop: number
  readonly #loops: number

  /** `loop`: where it is counted what was left out. `loops`: for how many of them an answer waits. */
  constructor(questions: Questions, stats: SharedStats, loop: number, loops: number) {
    this.#questions = questions
    this.#stats = stats
    this.#loop = loop
    this.#loops = loops
  }

  /** `post` sends it under its number. Rejects with `ERR_RINGLOOP_PACKET` where `out` cannot be cloned or packed. */
  publish(
    { topic, out, options }: Publication,
    post: (id: number, publication: Publication) => void,
  ): Promise<BroadcastResult> {
    if (this.#isTooFarBehind) {
      this.#stats.countLeftOut(this.#loop)
      return Promise.resolve(LEFT_OUT)
    }
    const publication = { topic, out: detached(out), options }
    return this.#questions.ask(NOTHING_SENT, weight(publication.out), (id) => post(id, publication))
  }

  get #isTooFarBehind(): boolean {
    const { size, bytes } = this.#questions
    return size >= MAX_BEHIND * this.#loops || bytes >= MAX_BYTES_BEHIND * this.#loops
  }
}

/** Without the memory that its bytes are a part of: it would be cloned with them. */
function detached(out: unknown): unknown {
  if (out instanceof Uint8Array) return alone(out)
  if (!isPlain(out)) return out
  return Object.fromEntries(Object.entries(out).map(([name, value]) => [name, alone(value)]))
}

function alone(value: unknown): unknown {
  if (!(value instanceof Uint8Array) || value.length === value.buffer.byteLength) return value
  return new Uint8Array(value)
}

/** The bytes of it that are seen without looking deep. */
function weight(out: unknown): number {
  return isPlain(out)
    ? Object.values(out).reduce((sum: number, each) => sum + lengthOf(each), 0)
    : lengthOf(out)
}

function lengthOf(value: unknown): number {
  return typeof value === 'string' || value instanceof Uint8Array ? value.length : 0
}

function isPlain(value: unknown): value is object {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
}
