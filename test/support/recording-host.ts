/** Whom a broker tells, in tests: keeps everything, and notes what a broker must not do. */
import type { Broker, BrokerHost, BrokerPosition } from '../../src/broker.js'
import { type MemoryLogger, memoryLogger } from './memory-logger.js'

export interface Received {
  readonly topic: string
  readonly bytes: Buffer
  readonly position: BrokerPosition | undefined
}

export class RecordingHost implements BrokerHost {
  readonly logger: MemoryLogger = memoryLogger()
  /** In the order in which they came; of topics that are joined, as a server takes them. */
  readonly received: Received[] = []
  readonly joinedTopics: Set<string> = new Set()
  /** The connection was lost, and is not back. */
  isAway = false
  /** Why topics were parted, one for each call. */
  readonly reasons: string[] = []
  /** What a broker must not do, but did. A throw would only reach the broker. */
  readonly violations: string[] = []
  /** Called for each message that is taken, while the broker tells it. */
  onMessage: () => void = () => {}
  /** How often it was told anything. */
  calls = 0
  readonly #wanted: Set<string> = new Set()

  message(topic: string, bytes: Uint8Array, position?: BrokerPosition): void {
    this.calls++
    if (!this.#wanted.has(topic)) this.violations.push(`a message to '${topic}', which is not wanted`)
    if (!this.joinedTopics.has(topic)) return
    this.received.push({ topic, bytes: Buffer.from(bytes), position })
    this.onMessage()
  }

  joined(topics: readonly string[]): void {
    this.calls++
    this.isAway = false
    for (const topic of topics) {
      if (!this.#wanted.has(topic)) this.violations.push(`'${topic}' is joined and not wanted`)
      if (this.joinedTopics.has(topic)) this.violations.push(`'${topic}' is joined twice`)
      this.joinedTopics.add(topic)
    }
  }

  parted(topics: readonly string[], reason: string): void {
    this.calls++
    if (this.isAway) this.violations.push('parted twice')
    this.isAway = true
    for (const topic of topics) {
      if (!this.joinedTopics.delete(topic)) this.violations.push(`'${topic}' is parted and was not joined`)
    }
    this.reasons.push(reason)
  }

  subscribe(broker: Broker, ...topics: readonly string[]): void {
    for (const topic of topics) this.#wanted.add(topic)
    broker.subscribe(topics)
  }

  unsubscribe(broker: Broker, ...topics: readonly string[]): void {
    for (const topic of topics) {
      this.#wanted.delete(topic)
      this.joinedTopics.delete(topic)
    }
    broker.unsubscribe(topics)
  }

  has(...topics: readonly string[]): boolean {
    return topics.every((topic) => this.joinedTopics.has(topic))
  }

  of(topic: string): Received[] {
    return this.received.filter((each) => each.topic === topic)
  }

  texts(topic: string): string[] {
    return this.of(topic).map(({ bytes }) => String(bytes))
  }
}
