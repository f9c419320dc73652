/**
 * The accept mode: how connections get into the threads of the loops. Chosen once, at start: the best one that this
 * machine and this Node allow. Pure but for a look at the platform and the log.
 */
import { ErrorCode, RingloopError } from '../errors.js'
import type { Logger } from '../log.js'
import { nativeAvailable } from '../loop/poller/native-poller.js'
import { checkReceiveBuffer, type ListenSettings } from '../options.js'

export type AcceptMode =
  /** The server's thread accepts, the native poller reads; descriptors come through its mailbox. */
  | 'mailbox'
  /** The server's thread accepts, the net poller reads; descriptors come through the addon's mailbox. */
  | 'descriptors'
  /** The server's thread accepts, the net poller reads; Node transfers the sockets (`postMessage`). */
  | 'transfer'
  /** The loop listens by itself. */
  | 'listen'

export interface AcceptModeChoice {
  readonly acceptMode: AcceptMode
  readonly poller: 'native' | 'net'
  readonly reusePort: boolean
  readonly numLoops: number
}

/** Node versions in which a `net.Socket` can be transferred to a thread, as [major, minor]. */
const TRANSFER_SINCE = [
  [24, 20],
  [26, 6],
] as const
const REUSE_PORT_SINCE = [22, 12] as const

/** Throws `ERR_RINGLOOP_POLLER` and `ERR_RINGLOOP_OPTION`; what is less than was asked for is logged. */
export function chooseAcceptMode(
  settings: ListenSettings,
  numLoops: number,
  logger: Logger,
): AcceptModeChoice {
  const choice = chooseMode(settings, numLoops, logger)
  checkReceiveBuffer(settings, listener(choice))
  return choice
}

function listener({ acceptMode, poller }: AcceptModeChoice): 'native' | 'net' {
  if (acceptMode === 'listen') return poller
  return acceptMode === 'transfer' ? 'net' : 'native'
}

function chooseMode(settings: ListenSettings, numLoops: number, logger: Logger): AcceptModeChoice {
  const native = nativeAvailable()
  if (settings.poller === 'native' && native !== true) throw new RingloopError(ErrorCode.POLLER, native)
  const useNative = native === true && settings.poller !== 'net'
  if (native !== true && settings.poller === 'auto') logger.warn({}, `${native}; the net poller is used`)
  const poller = useNative ? 'native' : 'net'
  if (settings.reusePort) {
    if (!useNative && !nodeReusesPorts()) {
      throw new RingloopError(ErrorCode.OPTION, 'reusePort with the net poller needs Node 22.12 on Linux')
    }
    return { acceptMode: 'listen', poller, reusePort: true, numLoops }
  }
  if (useNative) return { acceptMode: 'mailbox', poller, reusePort: false, numLoops }
  return chooseNetMode(native === true, 'path' in settings.endpoint, numLoops, logger)
}

function chooseNetMode(
  hasAddon: boolean,
  isUnix: boolean,
  numLoops: number,
  logger: Logger,
): AcceptModeChoice {
  const choice = { poller: 'net', reusePort: false, numLoops } as const
  if (numLoops === 1) return { ...choice, acceptMode: 'listen' }
  if (hasAddon) return { ...choice, acceptMode: 'descriptors' }
  if (isUnix) {
    logger.warn({}, `without the native addon a unix socket is served by one loop, not by ${numLoops}`)
    return { ...choice, acceptMode: 'listen', numLoops: 1 }
  }
  if (nodeTransfersSockets()) return { ...choice, acceptMode: 'transfer' }
  if (nodeReusesPorts()) return { ...choice, acceptMode: 'listen', reusePort: true }
  logger.warn({}, `without the native addon ${numLoops} loops need Node 22.12 or later: one loop is used`)
  return { ...choice, acceptMode: 'listen', numLoops: 1 }
}

function nodeVersion(): readonly [number, number] {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  return [major, minor]
}

function nodeTransfersSockets(): boolean {
  const [major, minor] = nodeVersion()
  return major > 26 || TRANSFER_SINCE.some(([since, from]) => major === since && minor >= from)
}

function nodeReusesPorts(): boolean {
  const [major, minor] = nodeVersion()
  const [since, from] = REUSE_PORT_SINCE
  return process.platform === 'linux' && (major > since || (major === since && minor >= from))
}
