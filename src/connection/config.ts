/**
 * What connections are served with: their handler and protocol, and the limits that each is held to. Checked once, then
 * shared by all connections of one server or one `connect`.
 */
import { checkInteger, checkLimit } from '../check-integer.js'
import type { Handler } from '../handler.js'
import {
  type ConnectionLimits,
  checkBoolean,
  checkHandler,
  checkProtocol,
  fail,
  handshakeTimeout,
} from '../options.js'
import type { Protocol } from '../protocol/protocol.js'

/** See `ConnectionLimits` for what each means. */
export interface ConnectionConfig<Ctx, Out> {
  readonly handler: Handler<Ctx, Out>
  readonly protocol: Protocol<Ctx, Out>
  readonly highWaterMark: number
  readonly lowWaterMark: number
  readonly maxReadBuffer: number
  readonly idleTime: number
  readonly closeTimeout: number
  readonly handshakeTimeout: number
  readonly allowHalfOpen: boolean
}

// biome-ignore lint/suspicious/noExplicitAny: what passes through is known to the protocol alone
type Any = any
export type AnyConfig = ConnectionConfig<Any, Any>

const MIB = 1024 * 1024

/** Throws `ERR_RINGLOOP_OPTION`. */
export function connectionConfig<Ctx, Out>(
  handler: Handler<Ctx, Out, never>,
  protocol: Protocol<Ctx, Out>,
  limits: ConnectionLimits,
): ConnectionConfig<Ctx, Out> {
  const highWaterMark = checkLimit('highWaterMark', limits.highWaterMark, MIB, 1)
  const lowWaterMark = checkLimit('lowWaterMark', limits.lowWaterMark, Math.floor(highWaterMark / 4))
  if (lowWaterMark > highWaterMark) {
    fail(`lowWaterMark (${lowWaterMark}) must not be above highWaterMark (${highWaterMark})`)
  }
  return {
    // What is in `c.context` is the handler's own affair.
    handler: checkHandler(handler as Handler<Ctx, Out>),
    protocol: checkProtocol(protocol),
    highWaterMark,
    lowWaterMark,
    maxReadBuffer: checkLimit('maxReadBuffer', limits.maxReadBuffer, 16 * MIB, 1),
    idleTime: checkInteger('idleTime', limits.idleTime, 0),
    closeTimeout: checkInteger('closeTimeout', limits.closeTimeout, 30_000, 1),
    handshakeTimeout: handshakeTimeout(limits),
    allowHalfOpen: checkBoolean('allowHalfOpen', limits.allowHalfOpen, false),
  }
}
