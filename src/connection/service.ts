/** What a connection is served with; shared by all connections of one server or one `connect`. */
import type { Handler } from '../handler.js'
import type { Protocol } from '../protocol/protocol.js'

export interface Service<Ctx, Out> {
  readonly handler: Handler<Ctx, Out>
  readonly protocol: Protocol<Ctx, Out>
  readonly highWaterMark: number
  readonly lowWaterMark: number
  readonly maxReadBuffer: number
  readonly idleTime: number
  readonly closeTimeout: number
}
