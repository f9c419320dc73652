/** Why a connection ends: the reasons that connections have of their own, and what `close` makes of what it is given. Keeps nothing. */
import {
  CLOSE_CODES,
  type CloseCode,
  type CloseReason,
  ErrorCode,
  isCloseCode,
  isError,
  ProtocolError,
  RingloopError,
  toError,
} from '../errors.js'
import { type Poller, TLS_FAILED, TLS_TRUNCATED } from '../loop/poller/poller.js'
import { systemError } from '../system-error.js'

export const PEER_CLOSED: CloseReason = { code: 'peer-closed', message: 'the peer closed the connection' }
export const CLOSED_HERE: CloseReason = { code: 'closed', message: 'closed by this side' }

/** What `close` was given, as a reason. Throws `ERR_RINGLOOP_OPTION` for what is none. */
export function closeReason(given: CloseReason | CloseCode | Error): CloseReason {
  if (typeof given === 'string' && isCloseCode(given)) return { code: given, message: given }
  if (isError(given)) {
    const error = toError(given)
    const code = given instanceof ProtocolError ? 'protocol-error' : 'handler-error'
    return { code, message: error.message, error }
  }
  if (typeof given === 'object' && given !== null && isCloseCode(given.code)) return given
  throw new RingloopError(
    ErrorCode.OPTION,
    `close takes a reason ({ code, message }), an Error, or one of the codes ${CLOSE_CODES.join(', ')}`,
  )
}

/** Of a socket that broke with what the poller has reported. */
export function brokenReason(errno: number, poller: Poller, slot: number): CloseReason {
  if (errno === TLS_TRUNCATED) {
    return { code: 'tls-truncated', message: 'the peer’s side ended without a close_notify' }
  }
  const error = (errno === TLS_FAILED ? poller.tlsError(slot) : undefined) ?? systemError(errno)
  return { code: errno === TLS_FAILED ? 'tls-error' : 'network-error', message: error.message, error }
}

/** What `connect` rejects with when the connection ended before it was ready. */
export function neverReady(reason: CloseReason): RingloopError {
  const message = `the connection ended before it was ready: ${reason.message}`
  return new RingloopError(ErrorCode.CONNECT, message, reason.error)
}
