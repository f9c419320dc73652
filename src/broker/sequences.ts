/**
 * The numbers of what this server publishes over its broker: 1, 2, 3 … for each topic, so that whoever gets it sees a hole.
 * It remembers the topics that were last published to, so many at most: one that comes again after that begins anew. The
 * server's thread only.
 */
const MAX_TOPICS = 65_536

export class Sequences {
  readonly #last = new Map<string, number>()
  readonly #max: number

  constructor(max: number = MAX_TOPICS) {
    this.#max = max
  }

  next(topic: string): number {
    const sequence = (this.#last.get(topic) ?? 0) + 1
    // To the end, as the youngest.
    this.#last.delete(topic)
    this.#last.set(topic, sequence)
    if (this.#last.size > this.#max) this.#last.delete(this.#last.keys().next().value as string)
    return sequence
  }
}
