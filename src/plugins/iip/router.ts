/**
 * A handler made of path handlers. Made once per loop; each loop has its own router with its own middleware and counters.
 *
 *     const router = new IipRouter().handle('/echo', ({ data }) => data)
 *     new Server(router, { protocol: new IipProtocol() })
 */
import {
  type CloseReason,
  checkLimit,
  checkOptions,
  ErrorCode,
  type Handler,
  type Loop,
  type OptionNames,
  ProtocolError,
  RingloopError,
} from '../../index.js'
import type { IipBody } from './body.js'
import { failAnswer, NO_HANDLER, NO_RESPONSE } from './errors.js'
import { sessionOf } from './protocol.js'
import type { IipConnection, IipOut, IipRequest, ServerRequest } from './request.js'
import { type PathStatistics, RouterStatistics, STATISTICS_PATHS } from './router-statistics.js'
import type { TimeUnit } from './statistics.js'

type Answered = IipOut | void

/**
 * Answers a whole request, now or through a promise. The message of an error that it throws reaches the caller as error
 * -1, and is logged unless it is an {@link IipFailure}. Nothing, or no bytes, reaches the caller as error 101.
 */
export type PathHandler = (request: IipRequest) => Answered | Promise<Answered>

/**
 * Answers a request chunk by chunk. It may begin before the request has come in whole, and need not read all of it. Each
 * chunk that it yields is a packet; it is not asked for the next one while the connection has too much to send. If it
 * fails after its first chunk the connection is closed: on this wire nothing else says that an answer is not whole.
 */
export type StreamHandler = (
  request: IipRequest & { readonly body: IipBody },
) => AsyncIterable<IipOut> | Answered | Promise<Answered>

/** Runs before a handler: it looks at the request and calls `next`, or answers itself. What it returns is the answer. */
export type Middleware = (
  request: IipRequest,
  next: () => Answered | Promise<Answered>,
) => Answered | Promise<Answered>

/** For failures that are no fault of the handler: the caller gets `{"code":-1,"message":"handler fail:…"}`, no log line. */
export class IipFailure extends Error {
  override readonly name = 'IipFailure'
}

export interface PathOptions {
  /** The unit of the ranges in which durations are counted. Default `millisecond`. */
  readonly timeUnit?: TimeUnit
}

export interface StreamOptions extends PathOptions {
  /** Bytes of a request; a longer one closes the connection. Default no limit. */
  readonly maxBytes?: number
}

export interface IipRouterOptions {
  /**
   * Who may ask for `/sys/server_count` and the like: connections from this machine (default), everybody, or nobody. With
   * `off` nothing is measured either.
   */
  readonly statistics?: 'loopback' | 'on' | 'off'
}

const OPTIONS = { statistics: true } as const satisfies OptionNames<IipRouterOptions>
const PATH = { timeUnit: true } as const satisfies OptionNames<PathOptions>
const STREAM = { ...PATH, maxBytes: true } as const satisfies OptionNames<StreamOptions>

/** What answers a path. */
interface PathEntry {
  readonly handler: PathHandler
  readonly statistics: PathStatistics | undefined
  /** Set: requests are streamed, and this is the limit. */
  readonly streamLimit: number | undefined
}

const LOOPBACK = /^(?:127\.|\[::1\]|\[::ffff:127\.)/
const SYSTEM_PATHS = ['/sys/new_channel', '/sys/delete_channel']

export class IipRouter implements Handler<IipRequest, IipOut> {
  readonly #entries = new Map<string, PathEntry>()
  readonly #middleware: Middleware[] = []
  readonly #statistics: RouterStatistics | undefined
  readonly #streamLimit = (path: string): number | undefined => this.#entries.get(path)?.streamLimit

  /** Throws `ERR_RINGLOOP_OPTION`. */
  constructor(options: IipRouterOptions = {}) {
    checkOptions('IipRouter', options, OPTIONS)
    const { statistics = 'loopback' } = options
    if (!['loopback', 'on', 'off'].includes(statistics)) {
      throw new RingloopError(
        ErrorCode.OPTION,
        `statistics must be 'loopback', 'on' or 'off', not '${statistics}'`,
      )
    }
    if (statistics === 'off') return
    this.#statistics = new RouterStatistics()
    for (const path of STATISTICS_PATHS) {
      this.handle(path, (request) => this.#tell(request, statistics === 'on'), { timeUnit: 'microsecond' })
    }
  }

  /**
   * Requests for exactly this decoded path go to `handler`; a later handler for a path replaces the earlier one. May be
   * called at any time. Throws `ERR_RINGLOOP_OPTION`, also for the paths of the protocol itself.
   */
  handle(path: string, handler: PathHandler, options: PathOptions = {}): this {
    checkOptions('a path', options, PATH)
    return this.#add(path, handler, undefined, options)
  }

  /** Like {@link handle}, with bodies that go chunk by chunk in both directions. */
  stream(path: string, handler: StreamHandler, options: StreamOptions = {}): this {
    checkOptions('a path', options, STREAM)
    const limit = checkLimit('maxBytes', options.maxBytes, Number.POSITIVE_INFINITY, 1)
    const run: PathHandler = (request) => stream(handler, request as Parameters<StreamHandler>[0])
    return this.#add(path, run, limit, options)
  }

  #add(path: string, handler: PathHandler, streamLimit: number | undefined, options: PathOptions): this {
    if (path === '' || SYSTEM_PATHS.includes(path)) {
      throw new RingloopError(ErrorCode.OPTION, `there can be no handler for the path '${path}'`)
    }
    if (typeof handler !== 'function') {
      throw new RingloopError(ErrorCode.OPTION, `the handler for ${path} must be a function`)
    }
    const statistics = this.#statistics?.add(path, options.timeUnit ?? 'millisecond')
    this.#entries.set(path, { handler, statistics, streamLimit })
    return this
  }

  /** Takes a handler away; requests that it has begun still end. `false`: there was none. */
  remove(path: string): boolean {
    this.#statistics?.remove(path)
    return this.#entries.delete(path)
  }

  /** Runs `middleware` around every handler, those that were added first outermost. Also where there is no handler. */
  use(middleware: Middleware): this {
    this.#middleware.push(middleware)
    return this
  }

  onStart(loop: Loop): void {
    this.#statistics?.start(loop)
  }

  onStop(): void {
    this.#statistics?.stop()
  }

  onConnect(c: IipConnection): void {
    sessionOf(c).streams = this.#streamLimit
    this.#statistics?.addConnection(c)
  }

  onClose(c: IipConnection, _reason: CloseReason): void {
    this.#statistics?.removeConnection(c)
  }

  onMessage(_c: IipConnection, request: IipRequest): IipOut | Promise<IipOut> {
    const entry = this.#entries.get(request.path)
    entry?.statistics?.begin(request as ServerRequest)
    try {
      const out =
        this.#middleware.length === 0 ? runEntry(entry, request) : this.#runMiddleware(0, entry, request)
      if (out === undefined) return NO_RESPONSE
      if (typeof out === 'string' || out instanceof Uint8Array) return out
      return this.#settle(request, out)
    } catch (error) {
      return errorAnswer(request, error)
    }
  }

  async #settle(request: IipRequest, out: Promise<Answered>): Promise<IipOut> {
    try {
      const answer = (await out) ?? NO_RESPONSE
      if (typeof answer === 'string' || answer instanceof Uint8Array) return answer
      throw new TypeError(`a handler must return bytes or a string, not ${typeof answer}`)
    } catch (error) {
      return errorAnswer(request, error)
    }
  }

  #runMiddleware(
    index: number,
    entry: PathEntry | undefined,
    request: IipRequest,
  ): Answered | Promise<Answered> {
    const middleware = this.#middleware[index]
    if (middleware === undefined) return runEntry(entry, request)
    return middleware(request, () => this.#runMiddleware(index + 1, entry, request))
  }

  async #tell(request: IipRequest, toEverybody: boolean): Promise<Answered> {
    const { peerAddr } = request.connection
    const isLocal = peerAddr === '' || LOOPBACK.test(peerAddr)
    const answer =
      toEverybody || isLocal ? await this.#statistics!.answer(request.path, request.data) : undefined
    if (answer === undefined) throw new IipFailure(`path [${request.path}] not support`)
    return answer
  }
}

function runEntry(entry: PathEntry | undefined, request: IipRequest): Answered | Promise<Answered> {
  return entry === undefined ? NO_HANDLER : entry.handler(request)
}

function errorAnswer(request: IipRequest, error: unknown): Buffer {
  const { connection, path } = request
  const about = { err: error, peer: connection.peerAddr, path }
  if (!connection.connected) {
    connection.loop.logger.debug(about, 'an IIP handler failed after its connection had ended')
    return NO_RESPONSE
  }
  if ((request as ServerRequest).answering) throw error
  if (error instanceof IipFailure || error instanceof ProtocolError) return failAnswer(error.message)
  connection.loop.logger.error(about, 'an IIP handler failed')
  return error instanceof Error ? failAnswer(error.message) : NO_RESPONSE
}

function isAsyncIterable(value: unknown): value is AsyncIterable<IipOut> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value
}

/** Sends all chunks but the last; that one is the answer, by which the peer sees the end. */
async function stream(
  handler: StreamHandler,
  request: Parameters<StreamHandler>[0],
): Promise<IipOut | undefined> {
  const out = handler(request)
  if (!isAsyncIterable(out)) return (await out) ?? undefined
  const { connection, session } = request as ServerRequest
  let last: Uint8Array | undefined
  for await (const chunk of out) {
    // `false`: nobody gets it any more, and leaving the loop ends the source. It also gives the others their turn.
    if (!(await connection.drained())) return undefined
    if (chunk.length === 0) continue
    if (last !== undefined) session.sendPart(request as ServerRequest, last)
    last = typeof chunk === 'string' ? Buffer.from(chunk) : chunk
  }
  return last
}
