/** The loop that a client or a balancer runs on: the one that it was given, or one of its own, which it has to stop. */
import { EventLoop, type Loop } from '../../index.js'
import type { IipClientOptions } from './client.js'
import { badValue } from './errors.js'

/** Throws `ERR_RINGLOOP_OPTION`. */
export function loopOf({ loop, poller, logger }: Pick<IipClientOptions, 'loop' | 'poller' | 'logger'>): Loop {
  if (loop !== undefined) return checkLoop(loop)
  return new EventLoop({ ...(poller !== undefined && { poller }), ...(logger !== undefined && { logger }) })
}

function checkLoop(loop: Loop): Loop {
  if (typeof loop?.connect === 'function') return loop
  throw badValue('loop must be a loop, such as connection.loop')
}
