/** What runs around the requests of a client, outermost first. On the client's thread. */
import { ErrorCode, RingloopError } from '../../index.js'
import type { RequestData, RequestOptions } from './client-call.js'

/** A request as middleware sees it, and may change it before it calls `next`. */
export interface ClientRequest {
  path: string
  data: RequestData | undefined
  options: RequestOptions
  /** It was made by `stream`. */
  readonly streamed: boolean
}

/**
 * Looks at the request and calls `next`, or answers itself; what it returns is the answer. For `request` each call of
 * `next` sends it (anew). For `stream`, once: it resolves without bytes when the last byte has come, and what is returned
 * counts only where `next` was not called.
 */
export type ClientMiddleware = (
  request: ClientRequest,
  next: () => Promise<Buffer>,
) => Promise<Buffer> | Buffer

/** Runs the middleware from `index` on around `send`. Rejects with what they throw. */
export async function runMiddleware(
  all: readonly ClientMiddleware[],
  request: ClientRequest,
  send: () => Promise<Buffer>,
  index = 0,
): Promise<Buffer> {
  const middleware = all[index]
  if (middleware === undefined) return send()
  const answer: unknown = await middleware(request, () => runMiddleware(all, request, send, index + 1))
  if (Buffer.isBuffer(answer)) return answer
  throw new RingloopError(ErrorCode.OPTION, `middleware must return a Buffer, not ${typeof answer}`)
}
