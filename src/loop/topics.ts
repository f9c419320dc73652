/**
 * The topics of one loop: the way from a name to those of its connections that are subscribed. A topic is there while it
 * has subscribers; a connection remembers its own topics by itself. The loop's thread only: the topics of other loops are
 * theirs, and what is published reaches them through a {@link Relay}.
 */
import { positionText } from '../broker/position.js'
import { SharedAnswers } from '../broker/shared-answers.js'
import type { BrokerPosition } from '../broker.js'
import type { AnyConnection, Subscriptions } from '../connection/host.js'
import type { Subscription } from '../connection.js'
import { ErrorCode, type RingloopError } from '../errors.js'
import type { Gap } from '../handler.js'
import type { Logger } from '../log.js'
import { LogLimit } from '../log-limit.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import { checkPublishOptions } from '../options.js'
import { checkTopicName } from '../topic-name.js'
import { addResults, NOTHING_SENT } from './broadcast-result.js'
import { Delivery } from './delivery.js'
import type { Publication } from './publication.js'
import { type CaughtUp, hasHistory, NOT_CAUGHT_UP, type RemoteTopics } from './remote-topics.js'
import type { Resumption } from './resumption.js'
import type { LoopCounters } from './stats.js'
import { Topic } from './topic.js'
import { TurnDeliveries } from './turn-deliveries.js'

const UNPUBLISHED = 'a publication did not reach every loop'
/** Up to this length a message waits for the end of the turn. */
const SMALL = 4 * 1024

/** So many may catch up at the same time, each with something else: they are not to keep publications from other loops. */
const MAX_ASKED = 4096

/**
 * Brings what is published on this loop to the other loops of the server and over its broker; resolves with what the others
 * did, of a topic with history with what all did.
 */
export type Relay = (publication: Publication) => Promise<BroadcastResult>

/** What topics ask of their loop. */
export interface TopicsOwner {
  readonly id: number
  readonly logger: Logger
  /** What the handler makes of a publication at its place in the history of its topic. */
  withPosition(topic: string, out: unknown, position: string): unknown
  /** Calls the handler's `onGap`. */
  callOnGap(topic: string, gap: Gap): unknown
  /** There is something to deliver at the end of a turn. */
  scheduleTurn(): void
}

export class Topics implements Subscriptions {
  readonly turn: TurnDeliveries
  readonly #topics = new Map<string, Topic>()
  readonly #owner: TopicsOwner
  readonly #counters: LoopCounters
  readonly #relay: Relay | undefined
  readonly #remote: RemoteTopics | undefined
  readonly #failures = new LogLimit()
  readonly #answers = new SharedAnswers<CaughtUp>()

  /** Without a `relay` there are no other loops and no broker, without `remote` no broker. */
  constructor(
    owner: TopicsOwner,
    counters: LoopCounters,
    relay: Relay | undefined,
    remote: RemoteTopics | undefined,
  ) {
    this.turn = new TurnDeliveries(() => owner.scheduleTurn())
    this.#owner = owner
    this.#counters = counters
    this.#relay = relay
    this.#remote = remote
  }

  add(name: string, c: AnyConnection): string {
    let topic = this.#find(name)
    if (topic === undefined) {
      topic = new Topic(copyOf(name))
      this.#topics.set(topic.name, topic)
      this.#remote?.want(topic.name, true)
    }
    topic.add(c)
    return topic.name
  }

  remove(name: string, c: AnyConnection): void {
    const topic = this.#topics.get(name)
    if (topic?.remove(c) !== true || topic.size > 0) return
    this.#topics.delete(name)
    this.#remote?.want(name, false)
  }

  /** Whether it is delivered in the order of its history alone. Not so what is no name, which is refused later. */
  #keeps(name: string): boolean {
    return typeof name === 'string' && hasHistory(this.#remote?.historyPrefix, name)
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
    const all = this.#keeps(name)
      ? this.#publishKept(name, out, options, publisher)
      : this.#publishHereFirst(name, out, options, publisher)
    // A publisher that awaits nothing is not to end the process, and its mistake is not to go unseen.
    all.catch((err: unknown) => logUnpublished(this.#owner.logger, err))
    return all
  }

  #publishHereFirst(
    topic: string,
    out: unknown,
    options: BroadcastOptions,
    publisher: AnyConnection | undefined,
  ): Promise<BroadcastResult> {
    const here = this.deliver({ topic, out, options }, publisher?.id)
    return this.#relay === undefined ? here : addLater(here, this.#relay({ topic, out, options }))
  }

  /** It comes back with its place among all others. What no protocol here can pack is refused all the same. */
  #publishKept(
    topic: string,
    out: unknown,
    options: BroadcastOptions,
    publisher: AnyConnection | undefined,
  ): Promise<BroadcastResult> {
    const list = this.#find(topic)?.list
    if (list !== undefined) new Delivery(out, options.slow, this.#counters).packForAny(list)
    const by = publisher === undefined ? undefined : { loop: this.#owner.id, connection: publisher.id }
    return this.#relay!({ topic, out, options, publisher: by })
  }

  /**
   * On this loop, at the end of the turn: to those who are subscribed now, but for the connection `publisherId`. Throws
   * `ERR_RINGLOOP_TOPIC`, and what a protocol throws for an `out` that none of theirs can pack; where only some
   * cannot, or one that packs for each connection, it rejects.
   */
  deliver(
    { topic: name, out: published, options, position }: Publication,
    publisherId = 0,
  ): Promise<BroadcastResult> {
    const topic = this.#find(name)
    if (topic === undefined) return Promise.resolve(NOTHING_SENT)
    const { list } = topic
    const out = position === undefined ? published : this.#positioned(name, published, position)
    // The publisher's bytes are its own again when this returns.
    const own = out instanceof Uint8Array ? Buffer.from(out) : out
    const delivery = new Delivery(own, options.slow, this.#counters)
    delivery.packForAny(list)
    return new Promise((resolve, reject) => {
      this.turn.add({ delivery, topic, list, publisherId, position, resolve, reject })
      if (!canWait(delivery, out)) this.turn.deliver()
    })
  }

  /** What has come from the server's thread: one that was published on this loop leaves its publisher out. */
  deliverOf(publication: Publication): Promise<BroadcastResult> {
    const { publisher } = publication
    return this.deliver(publication, publisher?.loop === this.#owner.id ? publisher.connection : 0)
  }

  // ---- over the broker -----------------------------------------------------------------------------------------------

  #positioned(topic: string, out: unknown, position: BrokerPosition): unknown {
    return this.#owner.withPosition(topic, out, positionText(position))
  }

  /** Subscribers of `topic` may have missed something: the handler is told where there are any. */
  tellGap(topic: string, gap: Gap): void {
    if (this.#topics.has(topic)) void this.#owner.callOnGap(topic, gap)
  }

  /** `c` has just been {@link add | added}. A rejection is looked after. */
  catchUp(name: string, c: AnyConnection, since: string | undefined): Promise<Subscription> {
    const subscription = this.#catchUp(name, c, since)
    // Who awaits nothing is not to end the process because of what another machine has published.
    subscription.catch((err: unknown) => this.#logStranded(name, err))
    return subscription
  }

  async #catchUp(name: string, c: AnyConnection, since: string | undefined): Promise<Subscription> {
    if (this.#remote === undefined) {
      return { isNew: true, recovered: since === undefined, position: undefined }
    }
    const topic = this.#topics.get(name)!
    if (!this.#keeps(name)) {
      const { recovered } = await this.#missed(name, since)
      return { isNew: true, recovered: recovered && topic.has(c), position: undefined }
    }
    const resumption = topic.resume(c)
    const caught = await this.#missed(name, since)
    const hasAll = await this.#resume(topic, c, resumption, caught)
    const { position } = caught
    return {
      isNew: true,
      recovered: hasAll && caught.recovered,
      position: position === undefined ? undefined : positionText(position),
    }
  }

  /** One copy for all who have missed the same, or thousands that come back would each need memory for a history. */
  #missed(topic: string, since: string | undefined): Promise<CaughtUp> {
    // No topic has a line feed, so no `since` that a client makes up is taken for a part of one.
    const key = since === undefined ? topic : `${topic}\n${since}`
    if (this.#answers.size >= MAX_ASKED) return Promise.resolve(NOT_CAUGHT_UP)
    return this.#answers.get(key, () => this.#remote!.catchUp(topic, since))
  }

  /** Sends what it has missed, and then what was held back. `false` where it does not get all of that. */
  async #resume(
    topic: Topic,
    c: AnyConnection,
    resumption: Resumption,
    { position, messages }: CaughtUp,
  ): Promise<boolean> {
    try {
      for (const { out, offset } of messages) {
        const positioned = this.#positioned(topic.name, out, { epoch: position!.epoch, offset })
        if (!(await pass(topic, c, resumption, positioned))) return false
      }
      for (let held = resumption.take(position); held.length > 0; held = resumption.take(position)) {
        for (const { out } of held) if (!(await pass(topic, c, resumption, out))) return false
      }
      return !resumption.isBroken && topic.isResuming(c, resumption)
    } finally {
      // Before anything else runs: what would be held back from now on nobody takes any more.
      resumption.end(position)
    }
  }

  #logStranded(topic: string, err: unknown): void {
    const leftOut = this.#failures.admitError(topic, err)
    if (leftOut !== undefined) {
      this.#owner.logger.error({ err, topic, leftOut }, 'a subscriber could not catch up')
    }
  }
}

/** To a subscriber that catches up. `false` where it has gone. */
async function pass(topic: Topic, c: AnyConnection, resumption: Resumption, out: unknown): Promise<boolean> {
  if (!topic.isResuming(c, resumption)) return false
  return c.send(out) || ((await c.drained()) && topic.isResuming(c, resumption))
}

/** A name that was cut from a message is a view of it, and would keep the whole message in memory. */
function copyOf(name: string): string {
  return Buffer.from(name).toString()
}

/** What is neither text nor bytes may be changed by the publisher; what is large is worth a write of its own. */
function canWait({ isPacked }: Delivery, out: unknown): boolean {
  return isPacked && (typeof out === 'string' || out instanceof Uint8Array) && out.length <= SMALL
}

/** A broker that is away is logged once, by whoever has it. */
export function logUnpublished(logger: Logger, err: unknown): void {
  if ((err as Partial<RingloopError>).code !== ErrorCode.BROKER) logger.error({ err }, UNPUBLISHED)
}

async function addLater(
  here: Promise<BroadcastResult>,
  there: Promise<BroadcastResult>,
): Promise<BroadcastResult> {
  const [a, b] = await Promise.all([here, there])
  return addResults(a, b)
}
