/** What is published, on its way from where that was done to the subscribers. Plain values, which can be cloned. */
import type { BrokerPosition } from '../broker.js'
import type { BroadcastOptions } from '../loop.js'

export interface Publication {
  readonly topic: string
  readonly out: unknown
  readonly options: BroadcastOptions
  /** Who does not get it. Of a topic with history; elsewhere its loop has left it out already. */
  readonly publisher?: PublisherConnection | undefined
  /** Where it stands in the history of its topic. */
  readonly position?: BrokerPosition | undefined
  /** It has come over the broker. */
  readonly isRemote?: boolean
  /** The subscribers of this process have it: it is for the broker alone. */
  readonly isSpread?: boolean
}

/** A connection of one of the loops of this server. */
export interface PublisherConnection {
  readonly loop: number
  readonly connection: number
}
