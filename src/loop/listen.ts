/** What a loop needs to accept connections by itself: a listener, and the count that all loops share. */

import { ErrorCode, RingloopError, toError } from '../errors.js'
import type { EventLoop } from './event-loop.js'
import { endpointText } from './poller/endpoint.js'
import type { Endpoint, ListenOptions } from './poller/poller.js'
import { resolveEndpoint } from './resolve.js'
import type { SharedStats } from './stats.js'
import type { Admission } from './transport.js'

/** `maxConnections` over all loops. What was counted before it came stays so. */
export class SharedAdmission implements Admission {
  readonly #stats: SharedStats
  readonly #loop: number
  readonly #maxConnections: number

  constructor(stats: SharedStats, loop: number, maxConnections: number) {
    this.#stats = stats
    this.#loop = loop
    this.#maxConnections = maxConnections
  }

  admit(counted: boolean): boolean {
    return counted || this.#stats.admit(this.#loop, this.#maxConnections)
  }

  lose(counted: boolean): void {
    if (counted) this.#stats.release(this.#loop)
  }
}

/** Listens with the loop's poller, which accepts from now on. Rejects as {@link listenFirst}. */
export async function listenOn(
  loop: EventLoop,
  endpoint: Endpoint,
  options: ListenOptions,
): Promise<Endpoint> {
  const listening = await listenFirst(loop.transport.poller, endpoint, options)
  loop.transport.addListener(listening.listener)
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
