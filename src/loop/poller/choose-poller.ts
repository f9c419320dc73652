/** The poller of one loop, from what was asked for and what there is. Throws `ERR_RINGLOOP_POLLER` as `NativePoller`. */
import type { Logger } from '../../log.js'
import type { PollerOption } from '../../options.js'
import { NativePoller, nativeAvailable } from './native-poller.js'
import { NetPoller } from './net-poller.js'
import type { Poller, PollerOptions, PollerSink } from './poller.js'

export function choosePoller(
  wanted: PollerOption,
  sink: PollerSink,
  logger: Logger,
  options: PollerOptions = {},
): Poller {
  if (wanted === 'net') return new NetPoller(sink, options)
  const available = nativeAvailable()
  if (wanted === 'native' || available === true) return new NativePoller(sink, options)
  logger.warn({}, `${available}; the net poller is used`)
  return new NetPoller(sink, options)
}
