/**
 * Sees holes in what the publishers of one topic have numbered. What a publisher did before it was first seen is not
 * known, and no hole. It remembers so many publishers at most, those that were last seen. The server's thread only.
 */
import type { PublisherId } from './frame.js'
import { RecentNumbers } from './recent-numbers.js'

const MAX_PUBLISHERS = 1024

export class GapWatch {
  readonly #last: RecentNumbers

  constructor(max: number = MAX_PUBLISHERS) {
    this.#last = new RecentNumbers(max)
  }

  /** How many of `publisher` are missing before `sequence`. One that is not above the last begins anew. */
  see(publisher: PublisherId, sequence: number): number {
    const last = this.#last.get(publisher)
    this.#last.set(publisher, sequence)
    if (last === undefined) return 0
    return sequence > last ? sequence - last - 1 : sequence - 1
  }
}
