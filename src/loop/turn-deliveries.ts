/**
 * What was published in this turn and is not with its subscribers yet. It waits so that each of them gets all of it in one
 * piece: in the out slab there is room for one piece of each connection, and message by message they would tear each
 * other's apart. The loop delivers at the end of the turn; a connection that has topics sees to it before anything else
 * of its own goes out, so that everything keeps its order. What waits is bounded. The loop's thread only.
 */
import type { BrokerPosition } from '../broker.js'
import type { AnyConnection } from '../connection/host.js'
import type { BroadcastResult } from '../loop.js'
import type { Delivery } from './delivery.js'
import type { Topic } from './topic.js'

/** So many wait at most, then they go before the turn ends: delivering them all takes little longer than one alone. */
const MAX_PENDING = 32

/** One publication on its way to those on `list`, the subscribers of its moment. */
export interface TopicDelivery {
  readonly delivery: Delivery
  readonly topic: Topic
  readonly list: readonly AnyConnection[]
  /** The `id` of who does not get it; 0 where all do. */
  readonly publisherId: number
  /** Of a topic with history. */
  readonly position: BrokerPosition | undefined
  resolve(result: BroadcastResult): void
  /** A `resolve` that follows has no effect. */
  reject(error: unknown): void
}

export class TurnDeliveries {
  readonly #onPending: () => void
  #pending: TopicDelivery[] = []
  #isDelivering = false
  /** A plain field: every `send` looks at it. */
  hasPending = false

  /** `onPending` is called when there is something to deliver that was not there before. */
  constructor(onPending: () => void) {
    this.#onPending = onPending
  }

  add(one: TopicDelivery): void {
    this.#pending.push(one)
    if (!this.hasPending) {
      this.hasPending = true
      this.#onPending()
    }
    if (this.#pending.length >= MAX_PENDING) this.deliver()
  }

  /** What is published meanwhile, by a protocol that packs or is told of a close, waits for the next time. */
  deliver(): void {
    if (this.#isDelivering || !this.hasPending) return
    const all = this.#pending
    this.#pending = []
    this.hasPending = false
    this.#isDelivering = true
    for (let from = 0; from < all.length; ) from = deliverAlike(all, from)
    this.#isDelivering = false
  }
}

/** Those from `from` on that have the same subscribers, subscriber by subscriber. Returns where they end. */
function deliverAlike(all: readonly TopicDelivery[], from: number): number {
  const { list } = all[from]!
  let to = from + 1
  while (to < all.length && all[to]!.list === list) to++
  const alike = all.slice(from, to)
  for (const c of list) for (const one of alike) offer(c, one)
  for (const { delivery, resolve } of alike) resolve(delivery.result)
  return to
}

/** What cannot be packed for one subscriber is told to the publisher, and the others get theirs. */
function offer(
  c: AnyConnection,
  { delivery, topic, list, publisherId, position, reject }: TopicDelivery,
): void {
  if (c.id === publisherId || !c.isReachable || !topic.stillHas(c, list)) return
  if (position !== undefined && !topic.admits(c, delivery.out, position)) return
  try {
    delivery.offer(c)
  } catch (error) {
    reject(error)
  }
}
