/** What the link to a broker has counted. The server's thread only. */

/** What went over the broker and what was lost, in this process. */
export interface BrokerStats {
  /** Of the broker: `redis`. */
  readonly name: string
  readonly connected: boolean
  /** That have subscribers in this process. */
  readonly topics: number
  /** Publications that the engine has taken, and those that were rejected. */
  readonly published: number
  readonly rejected: number
  /** Messages for subscribers here. */
  readonly received: number
  /** Calls of `onGap` that were caused, and the messages that are known to be missing. */
  readonly gaps: number
  readonly missed: number
  /** Messages on our channels that are none of ours: dropped. */
  readonly strangers: number
}

export class BrokerCounters {
  readonly #name: string
  published = 0
  rejected = 0
  received = 0
  gaps = 0
  missed = 0
  strangers = 0

  constructor(name: string) {
    this.#name = name
  }

  snapshot(connected: boolean, topics: number): BrokerStats {
    const { published, rejected, received, gaps, missed, strangers } = this
    return {
      name: this.#name,
      connected,
      topics,
      published,
      rejected,
      received,
      gaps,
      missed,
      strangers,
    }
  }
}
