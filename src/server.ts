/**
 * The server: one loop in this thread for a handler object, or a loop per thread for a module. Belongs to the thread
 * that made it; with several loops it accepts here and hands each connection over.
 */
import { randomUUID } from 'node:crypto'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { ErrorCode, RingloopError } from './errors.js'
import type { Handler } from './handler.js'
import { createLogger, type Logger } from './log.js'
import { EventLoop, NOTHING_SENT } from './loop/event-loop.js'
import { listenOn, SharedAdmission } from './loop/listen.js'
import { LoopMonitor } from './loop/loop-monitor.js'
import { choosePoller } from './loop/poller/choose-poller.js'
import type { Endpoint, Poller, PollerSink } from './loop/poller/poller.js'
import { type ServerStats, SharedStats } from './loop/stats.js'
import { type Timer, TimingWheel } from './loop/timing-wheel.js'
import { endpointText } from './loop/transport.js'
import type { BroadcastOptions, BroadcastResult } from './loop.js'
import {
  type ConnectionLimits,
  checkBroadcastOptions,
  checkHandler,
  checkNoThreadOptions,
  checkServerOptions,
  createService,
  drainTime,
  type HandlerServerOptions,
  type ListenSettings,
  listenSettings,
  type ModuleServerOptions,
  type StopOptions,
  wholeNumber,
} from './options.js'
import type { Protocol } from './protocol/protocol.js'
import { RawProtocol } from './protocol/raw.js'
import { SideServers } from './side-servers.js'
import { chooseIntake } from './threads/accept-mode.js'
import { assertNotOwnModule } from './threads/loop-module.js'
import { LoopThreads } from './threads/loop-threads.js'
import type { ThreadSetup } from './threads/thread-messages.js'

/** Where a server listens. As a string: `host:port`, or the path of a unix socket. */
export class BoundAddress {
  /** `''` for a unix socket. */
  readonly host: string
  /** 0 for a unix socket. */
  readonly port: number
  readonly path: string | undefined

  constructor(endpoint: Endpoint) {
    this.host = 'path' in endpoint ? '' : endpoint.host
    this.port = 'path' in endpoint ? 0 : endpoint.port
    this.path = 'path' in endpoint ? endpoint.path : undefined
  }

  toString(): string {
    return this.path ?? endpointText({ host: this.host, port: this.port })
  }
}

// biome-ignore lint/suspicious/noExplicitAny: whether both fit was checked where the server was made
type Any = any
type AnyHandler = Handler<Any, Any, Any, Any>
type AnyOptions = HandlerServerOptions<Any, Any> | ModuleServerOptions

/** A handler that wants `loop.data` is given it. */
type DataFor<Data> = undefined extends Data ? unknown : { readonly data: Data }
type OptionsFor<Data, Options> = undefined extends Data
  ? [options?: Options]
  : [options: Options & DataFor<Data>]

/** Where the connections are: a loop here, or threads. */
interface Running {
  readonly endpoint: Endpoint
  stop(drain: number): Promise<void>
  broadcast(out: unknown, options: BroadcastOptions): Promise<BroadcastResult>
}

/**
 * A server. Its type parameters are those of its {@link Handler}: what the protocol cuts and packs, the type of
 * `c.context`, the type of `loop.data`.
 */
export class Server<Ctx = undefined, Out = Uint8Array | string, State = unknown, Data = unknown> {
  readonly #source: AnyHandler | URL | string
  readonly #options: AnyOptions
  #starting: Promise<void> | undefined
  #stopping: Promise<void> | undefined
  #running: Running | undefined
  #address: BoundAddress | undefined
  #stats: SharedStats | undefined
  #wheel: TimingWheel | undefined
  #sides: SideServers | undefined

  /**
   * `module` is the URL (or path) of a module that each of `numLoops` threads imports: its default export is the handler,
   * its export `protocol` the protocol. Throws `ERR_RINGLOOP_OPTION` when `options` has what a server does not know;
   * the values are checked by {@link start}.
   */
  constructor(module: URL | string, options?: ModuleServerOptions<Data>)
  /** A handler of bytes as they come, or of a protocol whose packets are bytes: one loop, in this thread. */
  constructor(
    handler: Handler<undefined, Uint8Array | string, State, Data>,
    ...options: OptionsFor<Data, HandlerServerOptions<undefined, Uint8Array | string, Data>>
  )
  /** Either of both, by what is known when it runs: with the options that both have. */
  constructor(
    source: Handler<undefined, Uint8Array | string, State, Data> | URL | string,
    ...options: OptionsFor<
      Data,
      HandlerServerOptions<undefined, Uint8Array | string, Data> & ModuleServerOptions<Data>
    >
  )
  /** A handler and the protocol that it is for: one loop, in this thread. */
  constructor(
    handler: Handler<Ctx, Out, State, Data>,
    options: HandlerServerOptions<Ctx, Out, Data> & { readonly protocol: Protocol<Ctx, Out> } & DataFor<Data>,
  )
  constructor(source: AnyHandler | URL | string, options: AnyOptions = {}) {
    checkServerOptions(options)
    this.#source = source
    this.#options = options
  }

  /**
   * Resolves when every loop serves. Rejects with an {@link ErrorCode} and a sentence that says what to change: bad
   * options, the address in use, a module that does not load, a poller that is not there.
   */
  start(): Promise<void> {
    if (this.#starting !== undefined || this.#stopping !== undefined) {
      return Promise.reject(
        new RingloopError(ErrorCode.STATE, 'a server can be started once; make a new one'),
      )
    }
    this.#starting = this.#start()
    return this.#starting
  }

  async #start(): Promise<void> {
    const options = this.#options
    const settings = listenSettings(options)
    const sides = new SideServers(options)
    const logger = createLogger(options.logger)
    const running = isModule(this.#source)
      ? await this.#startThreads(moduleUrl(this.#source), settings, logger, sides.wanted)
      : await this.#startHere(this.#source, settings, logger, sides.wanted)
    const address = new BoundAddress(running.endpoint)
    try {
      await sides.start({ address, logger, stats: () => this.stats() })
    } catch (error) {
      await running.stop(0)
      throw error
    }
    this.#running = running
    this.#address = address
    this.#sides = sides
    logger.debug({ address: String(address) }, 'listening')
  }

  async #startHere(
    handler: AnyHandler,
    settings: ListenSettings,
    logger: Logger,
    monitor: boolean,
  ): Promise<Running> {
    const options = this.#options
    if (wholeNumber('numLoops', options.numLoops, 1, 1) > 1) {
      throw new RingloopError(
        ErrorCode.HANDLER_NEEDS_MODULE,
        'a handler object cannot cross into threads: with numLoops above 1 pass the URL of a module that exports it',
      )
    }
    checkNoThreadOptions(options)
    const protocol = options.protocol ?? new RawProtocol()
    const service = createService(checkHandler(handler), protocol, options)
    const stats = new SharedStats(1)
    const createPoller = (sink: PollerSink): Poller =>
      choosePoller(settings.poller, sink, logger, settings.tls)
    const { tick, wheelSize, data } = options
    const loop = new EventLoop(
      { tick, wheelSize, data, logger },
      { id: 0, serverId: randomUUID(), stats, createPoller },
    )
    try {
      await loop.serve(service, new SharedAdmission(stats, 0, settings.maxConnections))
      const endpoint = await listenOn(loop, settings.endpoint, { ...settings, park: false })
      this.#stats = stats
      return new LoopHere(loop, endpoint, monitor)
    } catch (error) {
      await loop.stop()
      throw error
    }
  }

  async #startThreads(
    url: string,
    settings: ListenSettings,
    logger: Logger,
    monitor: boolean,
  ): Promise<Running> {
    const options = this.#options
    assertNotOwnModule(url)
    if (options.protocol !== undefined) {
      throw new RingloopError(
        ErrorCode.OPTION,
        'with a module the protocol is its export `protocol`, not an option',
      )
    }
    checkCloneable('data', options.data)
    checkCloneable('tls', options.tls)
    const wanted = wholeNumber('numLoops', options.numLoops, availableParallelism(), 1)
    const choice = chooseIntake(settings, wanted, logger)
    const stats = new SharedStats(choice.numLoops)
    const limits = connectionLimits(options)
    createService({ onMessage() {} }, new RawProtocol() as never, limits)
    const serverId = randomUUID()
    const setup = (id: number, endpoint: Endpoint): ThreadSetup => ({
      id,
      serverId,
      moduleUrl: url,
      intake: choice.intake,
      poller: choice.poller,
      endpoint,
      reusePort: choice.reusePort,
      backlog: settings.backlog,
      maxConnections: settings.maxConnections,
      limits,
      tick: options.tick,
      wheelSize: options.wheelSize,
      tls: settings.tls,
      data: options.data,
      stats: stats.buffer,
      monitor,
    })
    const threads = new LoopThreads(setup, stats, settings, choice, logger)
    await threads.start()
    this.#stats = stats
    return threads
  }

  /**
   * Stops accepting and ends every connection. Those with an answer pending or bytes unsent get `drain` milliseconds
   * (default 0) for them. Resolves when every loop has ended; harmless before `start` and when called again.
   */
  stop(options: StopOptions = {}): Promise<void> {
    const drain = drainTime(options)
    this.#stopping ??= this.#stop(drain)
    return this.#stopping
  }

  async #stop(drain: number): Promise<void> {
    await this.#starting?.catch(() => {})
    await this.#running?.stop(drain)
    await this.#sides?.stop()
    this.#wheel?.close()
  }

  /** Where it listens, with the port that the system chose. Throws `ERR_RINGLOOP_STATE` before it is started. */
  get address(): BoundAddress {
    if (this.#address === undefined)
      throw new RingloopError(ErrorCode.STATE, 'the server has not been started')
    return this.#address
  }

  /** Where the option `metrics` serves; `undefined` without it, and before `start` has resolved. */
  get metricsAddress(): BoundAddress | undefined {
    const side = this.#sides?.metrics
    return side === undefined ? undefined : new BoundAddress(side.endpoint)
  }

  /** Where the option `console` serves its page; `undefined` without it, and before `start` has resolved. */
  get consoleAddress(): BoundAddress | undefined {
    const side = this.#sides?.console
    return side === undefined ? undefined : new BoundAddress(side.endpoint)
  }

  /** Calls `fn` once in `ms` milliseconds, in this thread. */
  runAfter(ms: number, fn: () => void): Timer {
    return this.#timers().runAfter(ms, fn)
  }

  /** Calls `fn` every `ms` milliseconds in this thread, until the handle or the server is stopped. */
  runEvery(ms: number, fn: () => void): Timer {
    return this.#timers().runEvery(ms, fn)
  }

  #timers(): TimingWheel {
    if (this.#wheel === undefined) {
      const { tick, wheelSize, logger } = this.#options
      const log = createLogger(logger)
      const onError = (error: unknown): void => log.error({ err: error }, 'a timer of the server failed')
      this.#wheel = new TimingWheel({ tick, wheelSize, onError })
      if (this.#stopping !== undefined) this.#wheel.close()
    }
    return this.#wheel
  }

  /**
   * Sends `out` to every connection of every loop; see `EventLoop.broadcast`. With several loops it must be a value that
   * can be cloned. Sends to nobody before `start` and after `stop`.
   */
  async broadcast(out: Out, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    checkBroadcastOptions(options)
    if (this.#running === undefined || this.#stopping !== undefined) return NOTHING_SENT
    return this.#running.broadcast(out, options)
  }

  /** Stops at the end of an `await using` block, without `drain`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  /** What the loops have counted, each and summed. Zeros before `start`; still there after `stop`. */
  stats(): ServerStats {
    return (this.#stats ?? new SharedStats(1)).snapshot()
  }
}

/** One loop in the server's own thread. */
class LoopHere implements Running {
  readonly endpoint: Endpoint
  readonly #loop: EventLoop
  readonly #monitor: LoopMonitor | undefined

  constructor(loop: EventLoop, endpoint: Endpoint, monitor: boolean) {
    this.#loop = loop
    this.endpoint = endpoint
    this.#monitor = monitor ? new LoopMonitor(loop) : undefined
  }

  async stop(drain: number): Promise<void> {
    await this.#loop.stop({ drain })
    this.#monitor?.stop()
  }

  async broadcast(out: unknown, options: BroadcastOptions): Promise<BroadcastResult> {
    return this.#loop.broadcast(out as never, options)
  }
}

function isModule(source: unknown): source is URL | string {
  return source instanceof URL || typeof source === 'string'
}

function moduleUrl(source: URL | string): string {
  if (source instanceof URL) return source.href
  return source.startsWith('file:') ? source : pathToFileURL(path.resolve(source)).href
}

/** What a thread is started with is copied into it. */
function checkCloneable(name: string, value: unknown): void {
  try {
    structuredClone(value)
  } catch (error) {
    throw new RingloopError(
      ErrorCode.OPTION,
      `${name} must be a value that can be cloned into a thread: ${(error as Error).message}`,
      error,
    )
  }
}

/** The part of the options that each connection is held to: plain values that can be cloned. */
function connectionLimits(options: ConnectionLimits): ThreadSetup['limits'] {
  const { highWaterMark, lowWaterMark, maxReadBuffer, idleTime, closeTimeout, noDelay, keepAlive } = options
  const given = { highWaterMark, lowWaterMark, maxReadBuffer, idleTime, closeTimeout, noDelay, keepAlive }
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
}
