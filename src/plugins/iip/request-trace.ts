/**
 * Tells `node:diagnostics_channel` of the requests of all clients of a thread. Where nobody has subscribed nothing is made.
 *
 *     ringloop:iip:request:start ─▶ ringloop:iip:request:end, or ringloop:iip:request:error
 */
import { channel } from 'node:diagnostics_channel'
import type { Call } from './client-call.js'

const start = channel('ringloop:iip:request:start')
const end = channel('ringloop:iip:request:end')
const error = channel('ringloop:iip:request:error')

/** What subscribers get: the same object for the start and the end of a request. */
export interface IipRequestTrace {
  /** Of the server, as the client's options have it. */
  readonly address: unknown
  /** With its query. */
  readonly path: string
  /** It was made by `stream`. */
  readonly streamed: boolean
  /** What it failed with; `undefined` but for `error`. */
  error: unknown
}

/** Tells of a call that begins, and lets its end be told. Called before the call can settle. */
export function traceCall(call: Call, address: unknown, path: string): void {
  if (!start.hasSubscribers && !end.hasSubscribers && !error.hasSubscribers) return
  const trace: IipRequestTrace = { address, path, streamed: call.body !== undefined, error: undefined }
  const before = call.onSettled
  call.onSettled = (failure) => {
    before?.(failure)
    trace.error = failure
    ;(failure === undefined ? end : error).publish(trace)
  }
  start.publish(trace)
}
