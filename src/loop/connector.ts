/**
 * Connecting: a name becomes addresses, which are tried one after another until one is ready, all within one time,
 * unless a signal ends it. Belongs to one loop and runs on its thread.
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
  tableFor(tls: ConnectionOptions | undefined): ConnectionTable
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
    this.#checkOpen()
    const attempt = new Attempt(wanted.signal)
    const timer = this.#owner.runAfter(wanted.timeout, () => attempt.end(late(wanted.timeout)))
    try {
      return await this.#connectToOne(endpoint, wanted, attempt)
    } catch (error) {
      throw error instanceof RingloopError && error.code === ErrorCode.CLOSED
        ? error
        : connectError(endpoint, error)
    } finally {
      timer.stop()
      attempt.close()
    }
  }

  #checkOpen(): void {
    if (this.#owner.stopping) throw new RingloopError(ErrorCode.CLOSED, 'the loop is stopped')
  }

  /** The addresses of the name are tried in order, until one is reached or the attempt is over. */
  async #connectToOne(endpoint: Endpoint, wanted: Wanted, attempt: Attempt): Promise<AnyConnection> {
    const all = await Promise.race([resolveEndpoint(endpoint, false), attempt.over])
    let failure: unknown
    for (const each of all) {
      this.#checkOpen()
      if (attempt.isOver) return attempt.over
      const result = await this.#connectTo(each, wanted, attempt)
      if (!('failure' in result)) return result
      failure = result.failure
      if (result.isFinal) break
    }
    throw failure
  }

  /** Never rejects. What fails after the handler has seen the connection is not tried again. */
  #connectTo(
    endpoint: Endpoint,
    { config, socket }: Wanted,
    attempt: Attempt,
  ): Promise<AnyConnection | Failure> {
    const table = this.#owner.tableFor(socket.tls)
    const slot = table.poller.connect(endpoint, socket)
    if (slot < 0) {
      return Promise.resolve({
        failure: systemError(slot, 'connect', endpointText(endpoint)),
        isFinal: false,
      })
    }
    return new Promise((resolve) => {
      const c = table.addConnecting(slot, config, {
        resolve: () => {
          attempt.onEnd = undefined
          resolve(c)
        },
        reject: (failure) => {
          attempt.onEnd = undefined
          resolve({ failure, isFinal: c.isGreeted })
        },
      })
      attempt.onEnd = (error) => {
        attempt.onEnd = undefined
        resolve({ failure: error, isFinal: true })
        c.abort({ code: 'closed', message: error.message, error })
      }
    })
  }
}

interface Failure {
  readonly failure: unknown
  readonly isFinal: boolean
}

/** One call of `connect` while it is under way: its time and its signal may end it. */
class Attempt {
  /** Rejects when it is ended. */
  readonly over: Promise<never>
  isOver = false
  /** Called when it is ended while a connection is on its way. */
  onEnd: ((error: Error) => void) | undefined = undefined
  #reject!: (error: Error) => void
  readonly #signal: AbortSignal | undefined
  readonly #onAbort = (): void => this.end(toError(this.#signal?.reason))

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal
    this.over = new Promise((_resolve, reject) => {
      this.#reject = reject
    })
    this.over.catch(() => {})
    signal?.addEventListener('abort', this.#onAbort)
    if (signal?.aborted === true) this.#onAbort()
  }

  end(error: Error): void {
    if (this.isOver) return
    this.isOver = true
    this.#reject(error)
    this.onEnd?.(error)
  }

  close(): void {
    this.#signal?.removeEventListener('abort', this.#onAbort)
  }
}

function late(timeout: number): Error {
  return new Error(`not ready within ${timeout} ms`)
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
