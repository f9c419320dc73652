/**
 * What one connection is subscribed to, brought in line with what is wanted: a round of changes at a time, so that what Redis
 * has acknowledged is always known. The server's thread only.
 */
import type { RedisClient } from './redis-client.js'

/** So many topics go in one command: Redis serves nobody else while it works on one. */
const MAX_TOPICS = 1000

/** Who has a connection. */
export interface SubscriptionsOwner {
  /** Begins the names of channels. */
  readonly prefix: string
  readonly wanted: ReadonlySet<string>
  joined(topics: readonly string[]): void
  message(topic: string, bytes: Buffer): void
}

export class RedisSubscriptions {
  readonly #client: RedisClient
  readonly #owner: SubscriptionsOwner
  readonly #prefixBytes: number
  /** What Redis has acknowledged, and whether the owner knows it. */
  readonly #acknowledged: Map<string, boolean> = new Map()
  readonly #changed: Set<string> = new Set()
  #isRunning = false

  constructor(client: RedisClient, owner: SubscriptionsOwner) {
    this.#client = client
    this.#owner = owner
    this.#prefixBytes = Buffer.byteLength(owner.prefix)
  }

  /** The topics that the owner was told to be joined. */
  get joined(): string[] {
    return [...this.#acknowledged].filter(([, isTold]) => isTold).map(([topic]) => topic)
  }

  /** These have become wanted, or are not wanted any more. Rejects when Redis refuses them or the connection ends. */
  async change(topics: Iterable<string>): Promise<void> {
    for (const topic of topics) {
      this.#changed.add(topic)
      if (this.#acknowledged.has(topic)) this.#acknowledged.set(topic, false)
    }
    if (this.#isRunning) return
    this.#isRunning = true
    while (this.#changed.size > 0) await this.#round()
    this.#isRunning = false
  }

  async #round(): Promise<void> {
    const wanted: string[] = []
    const unwanted: string[] = []
    const known: string[] = []
    for (const topic of this.#changed) {
      if (wanted.length + unwanted.length + known.length === MAX_TOPICS) break
      this.#changed.delete(topic)
      const isKnown = this.#acknowledged.has(topic)
      if (!this.#owner.wanted.has(topic)) {
        if (isKnown) unwanted.push(topic)
      } else if (isKnown) known.push(topic)
      else wanted.push(topic)
    }
    this.#tell(known)
    if (unwanted.length > 0) {
      for (const topic of unwanted) this.#acknowledged.delete(topic)
      await this.#client.unsubscribe(this.#channels(unwanted), this.#receive, true)
    }
    if (wanted.length > 0) {
      await this.#client.subscribe(this.#channels(wanted), this.#receive, true)
      for (const topic of wanted) this.#acknowledged.set(topic, false)
      this.#tell(wanted)
    }
  }

  /** Those that are still wanted. */
  #tell(topics: readonly string[]): void {
    const joined = topics.filter((topic) => this.#owner.wanted.has(topic) && !this.#acknowledged.get(topic))
    for (const topic of joined) this.#acknowledged.set(topic, true)
    if (joined.length > 0) this.#owner.joined(joined)
  }

  #channels(topics: readonly string[]): string[] {
    return topics.map((topic) => this.#owner.prefix + topic)
  }

  /** One for all channels: a function for each would be memory for each. */
  readonly #receive = (bytes: Buffer, channel: Buffer): void => {
    const topic = channel.toString('utf8', this.#prefixBytes)
    if (this.#acknowledged.get(topic) === true) this.#owner.message(topic, bytes)
  }
}
