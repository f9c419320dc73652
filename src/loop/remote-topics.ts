/**
 * What a loop asks of the broker of its server: what it has to know, and an interface. *`broker/broker-link.ts`* answers, in the server's
 * thread; with several loops the questions cross threads.
 */
import type { BrokerPosition } from '../broker.js'

/** Whether `topic` has history, where topics have that begin with `prefix`. */
export function hasHistory(prefix: string | undefined, topic: string): boolean {
  return prefix !== undefined && topic.startsWith(prefix)
}

export interface RemoteTopics {
  /** Topics that begin with it have history. */
  readonly historyPrefix: string | undefined
  /** The first subscriber of this loop has come, or its last one has gone. */
  want(topic: string, isWanted: boolean): void
  /** For a new subscriber: resolves when messages come, with what is kept after `since`. Never rejects. */
  catchUp(topic: string, since: string | undefined): Promise<CaughtUp>
}

export interface CaughtUp {
  /** Where the topic stands; `undefined` where it has no history, or that is not known. */
  readonly position: BrokerPosition | undefined
  /** Kept after `since`, oldest first. */
  readonly messages: readonly { readonly out: unknown; readonly offset: number }[]
  /** Nothing that was published since then is missing. */
  readonly recovered: boolean
}

export const NOT_CAUGHT_UP: CaughtUp = { position: undefined, messages: [], recovered: false }
