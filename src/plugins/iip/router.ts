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
  type Handler,
  type Loop,
  type OptionNames,
  ProtocolError,
} from '../../index.js'
import type { IipBody } from './body.js'
import { badValue, failAnswer, HANDLER_FAIL, HANDLER_FAILED, NO_HANDLER, NO_RESPONSE } from './errors.js'
import { framePath } from './frame.js'
import { decodedPath, SysPath, sysPath } from './path.js'
import { sessionOf } from './protocol.js'
import type { IipConnection, IipOut, IipRequest, ServerRequest } from './request.js'
import { type PathStatistics, RouterStatistics, STATISTICS_PATHS } from './router-statistics.js'
import { isTimeUnit, TIME_UNITS, type TimeUnit } from './statistics.js'

type Answered = IipOut | void

/**
 * Answers a whole request, now or through a promise. An error that it throws is logged, and reaches the caller as error -1
 * without its text; an {@link IipFailure} reaches the caller as it is. Nothing, or no bytes, reaches the caller as error
 * 101.
 */
export type PathHandler = (request: IipRequest) => Answered | Promise<Answered>

/**
 * Answers a request chunk by chunk. It may begin before the request has come in whole, and need not read all of it. Each
 * chunk that it yields is a packet, and goes out when the next one is there, or the end: the last packet says that it is the
 * last, and cannot be empty. It is not asked for the next one while the connection has too much to send. If it
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

export interface IipFailureOptions {
  /** An integer other than 0. Default -1, Go's code for whatever a handler reports. */
  readonly code?: number
}

const FAILURE = { code: true } as const satisfies OptionNames<IipFailureOptions>

/**
 * What a handler throws on purpose: the caller gets `{"code":…,"message":"…"}`, and nothing is logged. With the code -1 the
 * message is `handler fail:` and the text, as Go writes it; with any other it is the text alone.
 */
export class IipFailure extends Error {
  override readonly name = 'IipFailure'
  readonly code: number

  /** Throws `ERR_RINGLOOP_OPTION`. */
  constructor(message: string, options: IipFailureOptions = {}) {
    checkOptions('IipFailure', options, FAILURE)
    const { code = HANDLER_FAILED } = options
    if (!Number.isSafeInteger(code) || code === 0) {
      throw badValue(`the code of an IipFailure is an integer other than 0, not ${String(code)}`)
    }
    super(message)
    this.code = code
  }
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
  /**
   * The text of whatever a handler throws reaches the caller, as in Go: `handler fail:<text>`. Default `false`: it is for
   * the log alone.
   */
  readonly exposeErrors?: boolean
}

const OPTIONS = { statistics: true, exposeErrors: true } as const satisfies OptionNames<IipRouterOptions>
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

export class IipRouter implements Handler<IipRequest, IipOut> {
  readonly #entries = new Map<string, PathEntry>()
  readonly #middleware: Middleware[] = []
  readonly #statistics: RouterStatistics | undefined
  readonly #exposesErrors: boolean
  readonly #streamLimit = (path: string): number | undefined => this.#entries.get(path)?.streamLimit

  /** Throws `ERR_RINGLOOP_OPTION`. */
  constructor(options: IipRouterOptions = {}) {
    checkOptions('IipRouter', options, OPTIONS)
    const { statistics = 'loopback', exposeErrors = false } = options
    if (!['loopback', 'on', 'off'].includes(statistics)) {
      throw badValue(`statistics must be 'loopback', 'on' or 'off', not '${statistics}'`)
    }
    if (typeof exposeErrors !== 'boolean') {
      throw badValue(`exposeErrors must be true or false, not ${String(exposeErrors)}`)
    }
    this.#exposesErrors = exposeErrors
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
    if (typeof path !== 'string' || path === '' || sysPath(path) !== SysPath.NONE) {
      throw badValue(`there can be no handler for the path '${String(path)}'`)
    }
    const asked = decodedPath(path)
    if (asked !== path) {
      throw badValue(
        `a handler's path is decoded and has no query: a request for '${path}' asks for '${asked}'`,
      )
    }
    framePath(path)
    if (typeof handler !== 'function') throw badValue(`the handler for ${path} must be a function`)
    const { timeUnit = 'millisecond' } = options
    if (!isTimeUnit(timeUnit)) {
      throw badValue(`timeUnit must be ${TIME_UNITS}, not '${String(timeUnit)}'`)
    }
    const statistics = this.#statistics?.add(path, timeUnit)
    this.#entries.set(path, { handler, statistics, streamLimit })
    return this
  }

  /** Takes a handler away; requests that it has begun still end. `false`: there was none. */
  remove(path: string): boolean {
    this.#statistics?.remove(path)
    return this.#entries.delete(path)
  }

  /**
   * Runs `middleware` around every handler, those that were added first outermost. Also where there is no handler. Throws
   * `ERR_RINGLOOP_OPTION` for what is no function.
   */
  use(middleware: Middleware): this {
    if (typeof middleware !== 'function')
      throw badValue(`middleware must be a function, not ${String(middleware)}`)
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
      return this.#errorAnswer(request as ServerRequest, error)
    }
  }

  async #settle(request: IipRequest, out: Promise<Answered>): Promise<IipOut> {
    try {
      return checked((await out) ?? NO_RESPONSE)
    } catch (error) {
      return this.#errorAnswer(request as ServerRequest, error)
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

  #errorAnswer(request: ServerRequest, error: unknown): Buffer {
    const { connection, answering } = request
    const isWanted = connection.connected && !request.cancelled
    if (isWanted && answering && !request.gaveUp(error)) throw error
    if (isWanted && !answering) {
      if (error instanceof IipFailure) return failAnswer(error.message, error.code)
      if (error instanceof ProtocolError) return failAnswer(error.message)
    }
    logFailure(request, error, isWanted)
    // The peer must not take what it has got for the whole.
    if (answering && isWanted) connection.close()
    if (!(error instanceof Error)) return NO_RESPONSE
    return this.#exposesErrors ? failAnswer(error.message) : HANDLER_FAIL
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

/** Who is told that nobody waits may give up: that is no fault. */
function logFailure(request: ServerRequest, error: unknown, isWanted: boolean): void {
  const { connection, path } = request
  const level = isWanted && !request.gaveUp(error) ? 'error' : 'debug'
  connection.loop.logger[level]({ err: error, peer: connection.peerAddr, path }, 'an IIP handler failed')
}

function checked(out: IipOut): IipOut {
  if (typeof out === 'string' || out instanceof Uint8Array) return out
  throw new TypeError(`a handler must give bytes or a string, not ${typeof out}`)
}

function isAsyncIterable(value: unknown): value is AsyncIterable<IipOut> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value
}

/** Sends all chunks but the last; that one is the answer, by which the peer sees the end. */
async function stream(
  handler: StreamHandler,
  asked: Parameters<StreamHandler>[0],
): Promise<IipOut | undefined> {
  const out = handler(asked)
  if (!isAsyncIterable(out)) return (await out) ?? undefined
  const request = asked as ServerRequest
  const { connection, session } = request
  const source = out[Symbol.asyncIterator]()
  request.source = source
  let last: Uint8Array | undefined
  for await (const chunk of { [Symbol.asyncIterator]: () => source }) {
    // `false`: nobody gets it any more, and leaving the loop ends the source. It also gives the others their turn.
    if (!(await connection.drained()) || request.cancelled) return undefined
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : (checked(chunk) as Uint8Array)
    if (bytes.length === 0) continue
    if (last !== undefined) session.sendPart(request, last)
    last = bytes
  }
  return last
}
