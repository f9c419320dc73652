/**
 * What this server has published to one topic with history and has not got back yet: subscribers here get it in its turn
 * among those of the others, and its publisher is told then what was done. The server's thread only.
 */
import { NOTHING_SENT } from '../loop/broadcast-result.js'
import type { PublisherConnection } from '../loop/publication.js'
import type { BroadcastResult } from '../loop.js'

export interface Echo {
  /** Which connection does not get it. */
  readonly publisher: PublisherConnection | undefined
  resolve(result: BroadcastResult | Promise<BroadcastResult>): void
}

export class Echoes {
  readonly #bySequence = new Map<number, Echo>()

  /** Resolves with what was done once it has come back, or with nothing when that is not to be expected. */
  expect(sequence: number, publisher: PublisherConnection | undefined): Promise<BroadcastResult> {
    return new Promise((resolve) => this.#bySequence.set(sequence, { publisher, resolve }))
  }

  /** It has come back: `undefined` for one that nobody expects. */
  take(sequence: number): Echo | undefined {
    const echo = this.#bySequence.get(sequence)
    this.#bySequence.delete(sequence)
    return echo
  }

  /** It will not come back. */
  giveUp(sequence: number): void {
    this.take(sequence)?.resolve(NOTHING_SENT)
  }

  giveUpAll(): void {
    for (const sequence of this.#bySequence.keys()) this.giveUp(sequence)
  }
}
