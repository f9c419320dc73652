/** What a loop needs to accept connections by itself: a listener, where its addresses come from. */

import { ErrorCode, RingloopError, toError } from '../errors.js'
import type { EventLoop } from './event-loop.js'
import { endpointText } from './poller/endpoint.js'
import type { Endpoint, ListenOptions } from './poller/poller.js'
import { resolveEndpoint } from './resolve.js'

/** Listens with the loop's poller, which accepts from now on. Rejects as {@link listenFirst}. */
export async function listenOn(
  loop: EventLoop,
  endpoint: Endpoint,
  options: ListenOptions,
): Promise<Endpoint> {
  const { table } = loop
  const listening = await listenFirst(table.poller, endpoint, options)
  if (loop.stopping) {
    table.poller.closeListener(listening.listener)
    throw new RingloopError(ErrorCode.CLOSED, 'the loop was stopped before it served')
  }
  table.addListener(listening.listener)
  return listening.endpoint
}

/**
 * Listens on the first of the endpoint's addresses where it works. Rejects with `ERR_RINGLOOP_ADDRESS_IN_USE` or
 * `ERR_RINGLOOP_LISTEN`.
 */
export async function listenFirst<T>(
  listener: { listen(endpoint: Endpoint, options: ListenOptions): Promise<T> },
  endpoint: Endpoint,
  options: ListenOptions,
): Promise<T> {
  let failure: unknown
  try {
    for (const each of await resolveEndpoint(endpoint, true)) {
      try {
        return await listener.listen(each, options)
      } catch (error) {
        failure = error
        if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') break
      }
    }
  } catch (error) {
    failure = error
  }
  throw listenError(endpoint, failure)
}

function listenError(endpoint: Endpoint, cause: unknown): RingloopError {
  const where = endpointText(endpoint)
  if ((cause as NodeJS.ErrnoException).code === 'EADDRINUSE') {
    const advice =
      'path' in endpoint
        ? 'remove the file if no server uses it'
        : 'stop the other server or choose another port'
    return new RingloopError(ErrorCode.ADDRESS_IN_USE, `${where} is in use: ${advice}`, cause)
  }
  const reason = toError(cause).message
  return new RingloopError(ErrorCode.LISTEN, `cannot listen on ${where}: ${reason}`, cause)
}
