/**
 * What brings topics to the servers of other processes and machines: an engine that exists, such as Redis or NATS, behind
 * a small interface. One broker serves one server; everything here runs on the thread of that server. What is framed,
 * counted, ordered and told to the loops is the server's (*`broker/broker-link.ts`*); a broker only carries bytes.
 *
 * A broker connects again by itself, for ever, and brings the engine in line with what is wanted whenever it is connected.
 */
import type { Logger } from './log.js'

/** Carries messages between servers: given as the option `broker`. For one server only, and started once. */
export interface Broker {
  /** For messages: `redis`. */
  readonly name: string

  /** Which topics are kept for those who come back: those that begin with `prefix`. Default none; `read` is needed then. */
  readonly history?: { readonly prefix: string } | undefined

  /**
   * Connects; resolves when `publish` would be accepted. Rejects with a sentence that says what to change when the engine does
   * not answer in good time, and leaves nothing running. Called before the server listens.
   */
  start(host: BrokerHost): Promise<void>

  /** Ends the connection; nothing is told to the host any more. Called once, after `start` has settled. Must not hang. */
  stop(): Promise<void>

  /** From now on these are wanted too; the host is told by `joined`. Must not throw, connected or not. */
  subscribe(topics: readonly string[]): void

  /** These are not wanted any more, and the host is told nothing more of them. Must not throw, connected or not. */
  unsubscribe(topics: readonly string[]): void

  /**
   * Brings `bytes` to every server that has `topic` joined; whether the own one gets them back does not matter, unless the topic
   * has history. Calls for one topic keep their order. `bytes` stay unchanged until it settles.
   *
   * Resolves when the engine has said that it has them; of a topic with history, to the place that they got. Rejects at once
   * while there is no connection, and when the connection ends meanwhile: it never keeps them for later.
   */
  publish(topic: string, bytes: Uint8Array): Promise<BrokerPosition | undefined>

  /**
   * What is kept of a topic after `since`, oldest first; nothing where `since` is not given: then it says where the topic
   * stands. Only for topics with history. Rejects at once while there is no connection, and when the connection ends meanwhile.
   */
  read?(topic: string, since: BrokerPosition | undefined): Promise<KeptMessages>
}

/** Whom a broker tells: the server. */
export interface BrokerHost {
  readonly logger: Logger

  /**
   * Somebody has published. For one publisher and topic in the order in which it did, and at most once each; of a topic with
   * history in the order of their positions. `bytes` are the host's. One for a topic that is not joined is ignored.
   */
  message(topic: string, bytes: Uint8Array, position?: BrokerPosition): void

  /**
   * What is published to these from now on arrives: the engine has said so. Again after each `parted`, then also where none is
   * wanted: it says that the connection is back.
   */
  joined(topics: readonly string[]): void

  /**
   * The connection is gone, since `reason`: what is published to these does not arrive any more. They are those that were
   * joined; it is called for each loss, also where there are none.
   */
  parted(topics: readonly string[], reason: string): void
}

/** A place in the history of a topic. */
export interface BrokerPosition {
  /** Another one when the engine has lost the history and begins anew. 1 to 64 of the characters `A-Z a-z 0-9 _`. */
  readonly epoch: string
  /** 1 for the first message, and one more for each; 0 before the first. A safe integer. */
  readonly offset: number
}

/** What is kept of a topic. */
export interface KeptMessages {
  /** Where the topic stands now: the place of its newest message, kept or not. */
  readonly position: BrokerPosition
  /** Oldest first, without holes, up to `position`. */
  readonly messages: readonly KeptMessage[]
  /** `true`: between `since` and these nothing is missing. */
  readonly recovered: boolean
}

export interface KeptMessage {
  readonly offset: number
  readonly bytes: Uint8Array
}
