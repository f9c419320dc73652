/**
 * Connecting: a name becomes addresses, which are tried one after another until one is ready, within a time, unless a
 * signal ends it. Belongs to one loop and runs on its thread.
 */
import { isIP } from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import { checkInteger } from '../check-integer.js'
import { type AnyConfig, connectionConfig } from '../connection/config.js'
import type { AnyConnection } from '../connection/host.js'
import { ErrorCode, RingloopError, toError } from '../errors.js'
import {
  type ConnectOptions,
  checkConnectOptions,
  checkSignal,
  parseAddress,
  socketSettings,
} from '../options.js'
import { RawProtocol } from '../protocol/raw.js'
import { systemError } from '../system-error.js'
import type { Timer } from '../timers/timer.js'
import type { ConnectionTable } from './connection-table.js'
import { endpointText } from './poller/endpoint.js'
import type { Endpoint, PollerConnectOptions } from './poller/poller.js'
import { resolveEndpoint } from './resolve.js'

const DEFAULT_TIMEOUT = 10_000

/** The loop, as its connector sees it. */
export interface ConnectorOwner {
  readonly stopping: boolean
  runAfter(ms: number, fn: () => void): Timer
  /** Where the connection is to live. */
  tableFor(usesTls: boolean): ConnectionTable
}

/** What one call of `connect` wants, checked. */
interface Wanted {
  readonly config: AnyConfig
  readonly socket: PollerConnectOptions
  readonly timeout: number
  readonly signal: AbortSignal | undefined
}

export class Connector {
  readonly #owner: ConnectorOwner

  constructor(owner: ConnectorOwner) {
    this.#owner = owner
  }

  /** As `Loop.connect`. */
  async connect<Ctx, Out, State>(
    address: Parameters<typeof parseAddress>[0],
    options: ConnectOptions<Ctx, Out, State>,
  ): Promise<AnyConnection> {
    const endpoint = parseAddress(address)
    const wanted = checkConnect(endpoint, options)
    let failure: unknown
    try {
      for (const each of await resolveEndpoint(endpoint, false)) {
        this.#checkOpen()
        if (isAborted(wanted)) throw wanted.signal?.reason
        try {
          return await this.#connectTo(each, wanted)
        } catch (error) {
          failure = error
          if (isAborted(wanted)) break
        }
      }
    } catch (error) {
      failure = error
    }
    if (failure instanceof RingloopError) throw failure
    throw connectError(endpoint, failure)
  }

  #checkOpen(): void {
    if (this.#owner.stopping) throw new RingloopError(ErrorCode.CLOSED, 'the loop is stopped')
  }

  #connectTo(endpoint: Endpoint, { config, socket, timeout, signal }: Wanted): Promise<AnyConnection> {
    const table = this.#owner.tableFor(socket.tls !== undefined)
    const slot = table.poller.connect(endpoint, socket)
    if (slot < 0) return Promise.reject(systemError(slot, 'connect', endpointText(endpoint)))
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        timer.stop()
        signal?.removeEventListener('abort', onAbort)
      }
      const c = table.addConnecting(slot, config, {
        resolve: () => {
          settle()
          resolve(c)
        },
        reject: (error) => {
          settle()
          reject(connectError(endpoint, error))
        },
      })
      const onAbort = (): void => {
        const error = toError(signal?.reason)
        c.abort({ code: 'closed', message: `aborted: ${error.message}`, error })
      }
      const timer = this.#owner.runAfter(timeout, () =>
        c.abort({ code: 'network-error', message: `not ready within ${timeout} ms` }),
      )
      signal?.addEventListener('abort', onAbort)
    })
  }
}

function checkConnect<Ctx, Out, State>(endpoint: Endpoint, options: ConnectOptions<Ctx, Out, State>): Wanted {
  checkConnectOptions(options)
  const protocol = options.protocol ?? (new RawProtocol() as never)
  return {
    // `timeout` bounds the handshake, unless it has a bound of its own.
    config: connectionConfig(options.handler, protocol, { handshakeTimeout: 0, ...options }) as AnyConfig,
    socket: { ...socketSettings(options), tls: tlsOptions(options.tls, endpoint) },
    timeout: checkInteger('timeout', options.timeout, DEFAULT_TIMEOUT, 1),
    signal: checkSignal(options.signal),
  }
}

function isAborted({ signal }: Wanted): boolean {
  return signal?.aborted ?? false
}

function tlsOptions(tls: ConnectOptions['tls'], endpoint: Endpoint): ConnectionOptions | undefined {
  if (tls === undefined) return undefined
  const given = tls === true ? {} : tls
  if ('path' in endpoint || given.servername !== undefined) return given
  return { servername: isIP(endpoint.host) === 0 ? endpoint.host : '', ...given }
}

function connectError(endpoint: Endpoint, cause: unknown): RingloopError {
  const underneath = cause instanceof RingloopError ? (cause.cause ?? cause) : cause
  const reason = toError(underneath).message
  return new RingloopError(
    ErrorCode.CONNECT,
    `cannot connect to ${endpointText(endpoint)}: ${reason}`,
    underneath,
  )
}
