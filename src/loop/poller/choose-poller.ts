/** The poller of one loop, from what was asked for and what there is. Throws `ERR_RINGLOOP_POLLER` as `NativePoller`. */
import type { ConnectionOptions } from 'node:tls'
import { ErrorCode, RingloopError } from '../../errors.js'
import type { Logger } from '../../log.js'
import type { PollerOption } from '../../options.js'
import { nonNativeConnectOption, nonNativeOption, type ServerTlsOptions } from '../../tls-options.js'
import { checkNativeTls, NativePoller, nativeAvailable, nativeTlsAvailable } from './native-poller.js'
import { checkNetTls, NetPoller } from './net-poller.js'
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

/**
 * What is left of `wanted` with these options of TLS: `net` where the native poller cannot do them, with a line at
 * `debug`. Throws `ERR_RINGLOOP_OPTION`, or `ERR_RINGLOOP_POLLER` where there is no OpenSSL, when `native` is insisted on.
 */
export function pollerForTls(
  wanted: PollerOption,
  tls: ServerTlsOptions | undefined,
  logger: Logger,
): PollerOption {
  if (tls === undefined || wanted === 'net' || nativeAvailable() !== true) return wanted
  const other = nonNativeOption(tls)
  const available = nativeTlsAvailable()
  if (other === undefined && available === true) return wanted
  const why = other === undefined ? `${available}` : `the native poller does not know tls.${other}`
  if (wanted === 'native')
    throw new RingloopError(other === undefined ? ErrorCode.POLLER : ErrorCode.OPTION, why)
  logger.debug({}, `${why}; the net poller is used`)
  return 'net'
}

/** Whether a loop with the native poller can `connect` with these. */
export function connectsNatively(tls: ConnectionOptions): boolean {
  return nonNativeConnectOption(tls) === undefined && nativeTlsAvailable() === true
}

/** Throws `ERR_RINGLOOP_OPTION` where a poller of this kind cannot serve with these. */
export function checkTls(kind: 'native' | 'net', tls: ServerTlsOptions): void {
  if (kind === 'native') checkNativeTls(tls)
  else checkNetTls(tls)
}
