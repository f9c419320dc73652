/**
 * Every error that ringloop makes. Three kinds, never mixed: a programmer's mistake throws at once with one of the
 * codes below; what a peer or the network does ends in `onClose` with a {@link CloseReason}; a broken invariant asserts.
 */
import { inspect, types } from 'node:util'

/** The stable codes; the sentence beside each says when it is used. */
export const ErrorCode = {
  /** An option has the wrong type or value; the message names it and says what is allowed. */
  OPTION: 'ERR_RINGLOOP_OPTION',
  /** A `Handler` object cannot cross into a thread: several loops need a module URL. */
  HANDLER_NEEDS_MODULE: 'ERR_RINGLOOP_HANDLER_NEEDS_MODULE',
  /** The loop module could not be imported. */
  MODULE_LOAD: 'ERR_RINGLOOP_MODULE_LOAD',
  /** The loop module exports no usable handler or protocol. */
  MODULE_EXPORT: 'ERR_RINGLOOP_MODULE_EXPORT',
  /** The address is taken by another listener. */
  ADDRESS_IN_USE: 'ERR_RINGLOOP_ADDRESS_IN_USE',
  /** Listening failed for another reason; `cause` is the system's error. */
  LISTEN: 'ERR_RINGLOOP_LISTEN',
  /** `connect` failed, or a broker's `start`; `cause` is the error underneath. */
  CONNECT: 'ERR_RINGLOOP_CONNECT',
  /** The connection, loop or server was closed before the operation could be done. */
  CLOSED: 'ERR_RINGLOOP_CLOSED',
  /** The poller that was asked for is not available here; the message says why. */
  POLLER: 'ERR_RINGLOOP_POLLER',
  /** A call that is not allowed in this state, such as `start()` twice. */
  STATE: 'ERR_RINGLOOP_STATE',
  /** A loop did not start: `onStart` threw or its thread ended; `cause` is the error. */
  LOOP_START: 'ERR_RINGLOOP_LOOP_START',
  /** The protocol cannot pack what is to be sent; the message says why. */
  PACKET: 'ERR_RINGLOOP_PACKET',
  /** A topic cannot have this name: it is empty, longer than 255 bytes, or has control characters. */
  TOPIC: 'ERR_RINGLOOP_TOPIC',
  /** The broker did not start, is away, or has not taken a publication; `cause` is its error. */
  BROKER: 'ERR_RINGLOOP_BROKER',
} as const

export type ErrorCode = (typeof ErrorCode)[keyof typeof ErrorCode]

/** An error with a stable `code`; `cause`, where there is one, is the error underneath. */
export class RingloopError extends Error {
  override readonly name = 'RingloopError'
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
  }
}

/**
 * Thrown by a `Protocol` when the peer broke its rules: the connection is closed with the message as its reason and
 * the error reaches `onClose`. It is logged as what a peer did; any other throw is logged as a bug.
 */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError'
}

/** Why a connection ended, as given to `onClose`. */
export interface CloseReason {
  readonly code: CloseCode
  /** One sentence for a log. */
  readonly message: string
  /** The error behind it, where there is one. */
  readonly error?: Error
}

/**
 * `peer-closed` the peer ended its side · `closed` this side called `close` · `idle` no traffic for `idleTime` ·
 * `read-buffer-full` a packet did not complete within `maxReadBuffer` · `protocol-error` the peer broke the protocol ·
 * `handler-error` the handler threw or rejected · `network-error` reset, timed out, unreachable ·
 * `slow-consumer` closed by the policy of a broadcast or a publication · `server-stopped` the server or loop was stopped ·
 * `handshake-timeout` the handshake, or a promise of `onConnect`, took longer than `handshakeTimeout` ·
 * `tls-error` the peer broke TLS · `tls-truncated` the peer's side ended without the `close_notify` that TLS ends with.
 */
export type CloseCode =
  | 'peer-closed'
  | 'closed'
  | 'idle'
  | 'read-buffer-full'
  | 'protocol-error'
  | 'handler-error'
  | 'network-error'
  | 'slow-consumer'
  | 'server-stopped'
  | 'handshake-timeout'
  | 'tls-error'
  | 'tls-truncated'

/** An Error, also one of another realm (`node:vm`). */
export function isError(value: unknown): value is Error {
  return types.isNativeError(value) || value instanceof Error
}

/** What was thrown or rejected, as an Error that can be logged: anything can be thrown, even what cannot be printed. */
export function toError(thrown: unknown): Error {
  try {
    if (isError(thrown) && typeof thrown.message === 'string') return thrown
    return new Error(typeof thrown === 'string' ? thrown : inspect(thrown))
  } catch {
    return new Error('a value that cannot be printed')
  }
}

/** The codes in the order of the shared counters of closes by reason. */
export const CLOSE_CODES: readonly CloseCode[] = [
  'peer-closed',
  'closed',
  'idle',
  'read-buffer-full',
  'protocol-error',
  'handler-error',
  'network-error',
  'slow-consumer',
  'server-stopped',
  'handshake-timeout',
  'tls-error',
  'tls-truncated',
]

export function isCloseCode(value: unknown): value is CloseCode {
  return CLOSE_CODES.includes(value as CloseCode)
}
