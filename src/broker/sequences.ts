/**
 * The numbers of what this server publishes over its broker: 1, 2, 3 … for each topic, so that whoever gets it sees a hole.
 * It remembers the topics that were last published to, so many at most: one that comes again after that begins anew. The
 * server's thread only.
 */
import { RecentNumbers } from './recent-numbers.js'

const MAX_TOPICS = 65_536

export class Sequences {
  readonly #last: RecentNumbers

  constructor(max: number = MAX_TOPICS) {
    this.#last = new RecentNumbers(max)
  }

  next(topic: string): number {
    const sequence = (this.#last.get(topic) ?? 0) + 1
    this.#last.set(topic, sequence)
    return sequence
  }
}
