/**
 * The topics of one loop: the way from a name to those of its connections that are subscribed. A topic is there while it
 * has subscribers; a connection remembers its own topics by itself. The loop's thread only: the topics of other loops are
 * theirs, and what is published reaches them through a {@link Relay}.
 */
import type { AnyConnection, Subscriptions } from '../connection/host.js'
import type { Logger } from '../log.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import { checkPublishOptions } from '../options.js'
import { checkTopicName } from '../topic-name.js'
import { addResults, NOTHING_SENT } from './broadcast-result.js'
import { Delivery } from './delivery.js'
import type { LoopCounters } from './stats.js'
import { Topic } from './topic.js'
import { TurnDeliveries } from './turn-deliveries.js'

export const UNPUBLISHED = 'a publication did not reach every loop'
/** Up to this length a message waits for the end of the turn. */
const SMALL = 4 * 1024

/** Brings what is published on this loop to the other loops of the server; resolves with what they did. */
export type Relay = (topic: string, out: unknown, options: BroadcastOptions) => Promise<BroadcastResult>

/** What topics ask of their loop. */
export interface TopicsOwner {
  readonly logger: Logger
  /** There is something to deliver at the end of a turn. */
  scheduleTurn(): void
}

export class Topics implements Subscriptions {
  readonly turn: TurnDeliveries
  readonly #topics = new Map<string, Topic>()
  readonly #owner: TopicsOwner
  readonly #counters: LoopCounters
  readonly #relay: Relay | undefined

  /** Without a `relay` there are no other loops. */
  constructor(owner: TopicsOwner, counters: LoopCounters, relay: Relay | undefined) {
    this.turn = new TurnDeliveries(() => owner.scheduleTurn())
    this.#owner = owner
    this.#counters = counters
    this.#relay = relay
  }

  add(name: string, c: AnyConnection): string {
    let topic = this.#find(name)
    if (topic === undefined) {
      topic = new Topic(copyOf(name))
      this.#topics.set(topic.name, topic)
    }
    topic.add(c)
    return topic.name
  }

  remove(name: string, c: AnyConnection): void {
    const topic = this.#topics.get(name)
    if (topic?.remove(c) === true && topic.size === 0) this.#topics.delete(name)
  }

  /** How many connections of this loop are subscribed to `name`. Throws `ERR_RINGLOOP_TOPIC`. */
  count(name: string): number {
    return this.#find(name)?.size ?? 0
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
    const all = this.#relay === undefined ? here : addLater(here, this.#relay(name, out, options))
    // A publisher that awaits nothing is not to end the process, and its mistake is not to go unseen.
    all.catch((err: unknown) => this.#owner.logger.error({ err }, UNPUBLISHED))
    return all
  }

  /**
   * On this loop, at the end of the turn: to those who are subscribed now, but for `publisher`. Throws
   * `ERR_RINGLOOP_TOPIC`, and what a protocol throws for an `out` that none of theirs can pack; where only some
   * cannot, or one that packs for each connection, it rejects.
   */
  deliver(
    name: string,
    out: unknown,
    slow: BroadcastOptions['slow'],
    publisher: AnyConnection | undefined,
  ): Promise<BroadcastResult> {
    const topic = this.#find(name)
    if (topic === undefined) return Promise.resolve(NOTHING_SENT)
    const { list } = topic
    // The publisher's bytes are its own again when this returns.
    const delivery = new Delivery(out instanceof Uint8Array ? Buffer.from(out) : out, slow, this.#counters)
    delivery.packForAny(list)
    return new Promise((resolve, reject) => {
      this.turn.add({ delivery, topic, list, publisher, resolve, reject })
      if (!canWait(delivery, out)) this.turn.deliver()
    })
  }
}

/** A name that was cut from a message is a view of it, and would keep the whole message in memory. */
function copyOf(name: string): string {
  return Buffer.from(name).toString()
}

/** What is neither text nor bytes may be changed by the publisher; what is large is worth a write of its own. */
function canWait({ isPacked }: Delivery, out: unknown): boolean {
  return isPacked && (typeof out === 'string' || out instanceof Uint8Array) && out.length <= SMALL
}

async function addLater(
  here: Promise<BroadcastResult>,
  there: Promise<BroadcastResult>,
): Promise<BroadcastResult> {
  const [a, b] = await Promise.all([here, there])
  return addResults(a, b)
}
