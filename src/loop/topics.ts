/**
 * The topics of one loop: who of its connections is subscribed to what. A topic is there while it has subscribers. What a
 * connection is subscribed to is remembered there too, by the connection; here is the way from a topic to them. The
 * loop's thread only: the topics of other loops are theirs.
 */
import type { AnyConnection, Subscriptions } from '../connection/host.js'
import type { Logger } from '../log.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import { checkPublishOptions } from '../options.js'
import { checkTopicName } from '../topic-name.js'
import { addResults, NOTHING_SENT } from './broadcast-result.js'
import { Delivery } from './delivery.js'
import { CELL, type LoopCounters } from './stats.js'

export const UNPUBLISHED = 'a publication did not reach every loop'

class Topic {
  readonly subscribers: Set<AnyConnection> = new Set()
  /** The same in their order, while nobody comes or goes; a delivery under way keeps the one it began with. */
  list: readonly AnyConnection[] | undefined = undefined
}

/** Brings what is published on this loop to the other loops of the server; resolves with what they did. */
export type Relay = (topic: string, out: unknown, options: BroadcastOptions) => Promise<BroadcastResult>

export class Topics implements Subscriptions {
  readonly #topics = new Map<string, Topic>()
  readonly #counters: LoopCounters
  readonly #logger: Logger
  readonly #relay: Relay | undefined

  /** Without a `relay` there are no other loops. */
  constructor(counters: LoopCounters, logger: Logger, relay: Relay | undefined) {
    this.#counters = counters
    this.#logger = logger
    this.#relay = relay
  }

  add(name: string, c: AnyConnection): void {
    let topic = this.#topics.get(name)
    if (topic === undefined) {
      checkTopicName(name)
      topic = new Topic()
      this.#topics.set(name, topic)
    }
    topic.subscribers.add(c)
    topic.list = undefined
  }

  remove(name: string, c: AnyConnection): void {
    const topic = this.#topics.get(name)
    if (topic?.subscribers.delete(c) !== true) return
    topic.list = undefined
    if (topic.subscribers.size === 0) this.#topics.delete(name)
  }

  /** How many connections of this loop are subscribed to `name`. Throws `ERR_RINGLOOP_TOPIC`. */
  count(name: string): number {
    return this.#find(name)?.subscribers.size ?? 0
  }

  /** A topic that is there has a good name. */
  #find(name: string): Topic | undefined {
    const topic = this.#topics.get(name)
    if (topic === undefined) checkTopicName(name)
    return topic
  }

  publish(
    name: string,
    out: unknown,
    options: BroadcastOptions,
    publisher: AnyConnection | undefined,
  ): Promise<BroadcastResult> {
    checkPublishOptions(options)
    const here = this.deliver(name, out, options.slow, publisher)
    if (this.#relay === undefined) return Promise.resolve(here)
    const all = this.#relay(name, out, options).then((there) => addResults(here, there))
    // A publisher that awaits nothing is not to end the process, and its mistake is not to go unseen.
    all.catch((err: unknown) => this.#logger.error({ err }, UNPUBLISHED))
    return all
  }

  /**
   * To those who were subscribed when it began and still are when it is their turn; not to `publisher`. Throws
   * `ERR_RINGLOOP_TOPIC`, and what a protocol throws for an `out` that it cannot pack.
   */
  deliver(
    name: string,
    out: unknown,
    slow: BroadcastOptions['slow'],
    publisher: AnyConnection | undefined,
  ): BroadcastResult {
    const topic = this.#find(name)
    if (topic === undefined) return NOTHING_SENT
    const delivery = new Delivery(out, slow)
    const list = topic.list ?? [...topic.subscribers]
    topic.list = list
    for (let i = 0; i < list.length; i++) {
      const c = list[i]!
      if (c === publisher || !c.isReachable) continue
      // What runs for one may have changed who is there.
      if (topic.list === list || topic.subscribers.has(c)) delivery.offer(c)
    }
    const { result } = delivery
    this.#counters.add(CELL.slowConsumerDrops, result.dropped)
    return result
  }
}
