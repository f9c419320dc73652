/** Why a connection ends: the reasons that connections have of their own, and what `close` makes of what it is given. Pure. */
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

/** What `connect` rejects with when the connection ended before it was ready. */
export function neverReady(reason: CloseReason): RingloopError {
  const message = `the connection ended before it was ready: ${reason.message}`
  return new RingloopError(ErrorCode.CONNECT, message, reason.error)
}
