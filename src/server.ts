/**
 * The server: one loop in this thread for a handler object, or a loop per thread for a module. Belongs to the thread
 * that made it; with several loops it accepts here and hands each connection over.
 */
import { randomUUID } from 'node:crypto'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { BoundAddress } from './bound-address.js'
import { BrokerLink } from './broker/broker-link.js'
import { checkFunction } from './check-function.js'
import { checkInteger } from './check-integer.js'
import { connectionConfig } from './connection/config.js'
import { ErrorCode, RingloopError } from './errors.js'
import { type Extension, Extensions } from './extension.js'
import type { Handler } from './handler.js'
import { createLogger, type Logger } from './log.js'
import { SharedAdmission } from './loop/admission.js'
import { NOTHING_SENT } from './loop/broadcast-result.js'
import { EventLoop } from './loop/event-loop.js'
import { checkTls, choosePoller, pollerForTls } from './loop/poller/choose-poller.js'
import type { Endpoint, Poller, PollerSink } from './loop/poller/poller.js'
import { type ServerStats, SharedStats } from './loop/stats.js'
import { logUnpublished } from './loop/topics.js'
import type { BroadcastOptions, BroadcastResult } from './loop.js'
import {
  checkBroadcastOptions,
  checkBroker,
  checkNoThreadOptions,
  checkPublishOptions,
  checkServerOptions,
  connectionLimits,
  drainTime,
  fail,
  type HandlerServerOptions,
  type ListenSettings,
  listenSettings,
  type ModuleServerOptions,
  type StopOptions,
} from './options.js'
import type { Protocol } from './protocol/protocol.js'
import { RawProtocol } from './protocol/raw.js'
import { chooseAcceptMode } from './threads/accept-mode.js'
import { resolvesWithin, STOP_GRACE_MS } from './threads/deadline.js'
import { LocalLoop } from './threads/local-loop.js'
import { assertNotOwnModule } from './threads/loop-module.js'
import { openGroup } from './threads/loop-post.js'
import { LoopThreads } from './threads/loop-threads.js'
import type { ServerLoops } from './threads/server-loops.js'
import type { ThreadSetup } from './threads/thread-messages.js'
import { type WorkerOptions, workerOptions } from './threads/worker-options.js'
import { MAX_NODE_DELAY } from './timers/max-delay.js'
import type { Timer } from './timers/timer.js'
import { TimingWheel } from './timers/timing-wheel.js'
import { replaceTlsOptions, type ServerTlsOptions } from './tls-options.js'
import { checkTopicName } from './topic-name.js'

// biome-ignore lint/suspicious/noExplicitAny: whether both fit was checked where the server was made
type Any = any
type AnyHandler = Handler<Any, Any, Any, Any>
type AnyOptions = HandlerServerOptions<Any, Any> | ModuleServerOptions

/** An engine that is well answers in a few ms. */
const BROKER_TIMEOUT_MS = 5_000

/** A handler that wants `loop.data` is given it. */
type DataFor<Data> = undefined extends Data ? unknown : { readonly data: Data }
type OptionsFor<Data, Options> = undefined extends Data
  ? [options?: Options]
  : [options: Options & DataFor<Data>]

/**
 * A server. Its type parameters are those of its {@link Handler}: what the protocol cuts and packs, the type of
 * `c.context`, the type of `loop.data`.
 */
export class Server<Ctx = undefined, Out = Uint8Array | string, State = unknown, Data = unknown> {
  readonly #source: AnyHandler | URL | string
  readonly #options: AnyOptions
  #starting: Promise<void> | undefined
  #stopping: Promise<void> | undefined
  /** Rejects what `start` waits for. */
  #rejectStart: ((reason: RingloopError) => void) | undefined
  #loops: ServerLoops | undefined
  #address: BoundAddress | undefined
  #stats: SharedStats | undefined
  #wheel: TimingWheel | undefined
  #logger: Logger | undefined
  /** What it speaks TLS with, and the kind of poller that does it. */
  #tls: { readonly options: ServerTlsOptions; readonly poller: 'native' | 'net' } | undefined
  readonly #extensions = new Extensions()
  #link: BrokerLink | undefined
  #brokerStarting: Promise<void> | undefined

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
   * Adds what is to be started and stopped with the server; returns the server. Throws `ERR_RINGLOOP_STATE` once `start`
   * or `stop` was called, and `ERR_RINGLOOP_OPTION` for what is no extension.
   */
  use(extension: Extension): this {
    if (this.#starting !== undefined || this.#stopping !== undefined) {
      throw new RingloopError(ErrorCode.STATE, 'extensions must be added before the server is started')
    }
    this.#extensions.add(extension)
    return this
  }

  /**
   * Resolves when every loop and every extension serves. Rejects with an {@link ErrorCode} and a sentence that says what
   * to change: bad options, the address in use, a module that does not load, a poller that is not there; with `ERR_RINGLOOP_CLOSED`
   * when `stop` is called meanwhile; and with what an extension's `start` rejects with. Nothing is left running then.
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
    const { logger } = this
    const settings = withTlsPoller(listenSettings(options), logger)
    checkFunction('onLoopDied', options.onLoopDied)
    const worker = workerOptions(options)
    const { watchLoops } = this.#extensions
    const link = this.#brokerLink()
    const loops = isModule(this.#source)
      ? this.#loopThreads(moduleUrl(this.#source), settings, worker, link, watchLoops)
      : this.#localLoop(this.#source, settings, link, watchLoops)
    this.#loops = loops
    link?.connectTo(loops)
    const stopped = new Promise<never>((_resolve, reject) => {
      this.#rejectStart = reject
    })
    stopped.catch(() => {})
    try {
      await Promise.race([this.#startBroker(), stopped])
      this.#address = new BoundAddress(await Promise.race([loops.start(), stopped]))
      await this.#extensions.start(this, () => this.#stopping === undefined)
      // Rejects where `stop` was called meanwhile.
      await Promise.race([stopped, undefined])
      logger.debug({ address: String(this.#address) }, 'listening')
    } catch (error) {
      this.#address = undefined
      await loops.stop(0)
      await resolvesWithin(this.#stopBroker(), STOP_GRACE_MS)
      await resolvesWithin(this.#extensions.stop(logger), STOP_GRACE_MS)
      this.#wheel?.close()
      this.#stopping ??= Promise.resolve()
      throw error
    }
  }

  #brokerLink(): BrokerLink | undefined {
    const broker = checkBroker(this.#options.broker)
    const { brokerTimeout } = this.#options
    const timeout = checkInteger('brokerTimeout', brokerTimeout, BROKER_TIMEOUT_MS, 1, MAX_NODE_DELAY)
    this.#link = broker && new BrokerLink(broker, this.logger, timeout)
    return this.#link
  }

  #startBroker(): Promise<void> | undefined {
    this.#brokerStarting = this.#link?.start()
    return this.#brokerStarting
  }

  /** A `start` that is still running is waited for: `stop` comes after it. */
  async #stopBroker(): Promise<void> {
    const started = await this.#brokerStarting?.then(
      () => true,
      () => false,
    )
    if (started === true) await this.#link?.stop()
  }

  #localLoop(
    handler: AnyHandler,
    settings: ListenSettings,
    link: BrokerLink | undefined,
    monitored: boolean,
  ): LocalLoop {
    const { logger } = this
    const options = this.#options
    if (checkInteger('numLoops', options.numLoops, 1, 1) > 1) {
      throw new RingloopError(
        ErrorCode.HANDLER_NEEDS_MODULE,
        'a handler object cannot cross into threads: with numLoops above 1 pass the URL of a module that exports it',
      )
    }
    checkNoThreadOptions(options)
    const protocol = options.protocol ?? new RawProtocol()
    const config = connectionConfig(handler, protocol, options)
    const stats = new SharedStats(1)
    const createPoller = (sink: PollerSink): Poller =>
      choosePoller(settings.poller, sink, logger, settings.pollerOptions)
    const { tick, wheelSize, data } = options
    const loop = new EventLoop(
      { tick, wheelSize, data, logger },
      { id: 0, serverId: randomUUID(), stats, createPoller, ...link?.forLoop(0) },
    )
    this.#stats = stats
    this.#noteTls(settings, loop.poller)
    const admission = new SharedAdmission(stats, 0, settings.maxConnections)
    return new LocalLoop(loop, config, admission, settings, monitored, link)
  }

  #noteTls({ pollerOptions }: ListenSettings, poller: 'native' | 'net'): void {
    if (pollerOptions.tls !== undefined) this.#tls = { options: pollerOptions.tls, poller }
  }

  #loopThreads(
    url: string,
    settings: ListenSettings,
    worker: WorkerOptions,
    link: BrokerLink | undefined,
    monitor: boolean,
  ): LoopThreads {
    const { logger } = this
    const options = this.#options
    assertNotOwnModule(url)
    if (options.protocol !== undefined) {
      fail('with a module the protocol is its export `protocol`, not an option')
    }
    checkCloneable('data', options.data)
    checkCloneable('tls', options.tls)
    const wanted = checkInteger('numLoops', options.numLoops, availableParallelism(), 1)
    const choice = chooseAcceptMode(settings, wanted, logger)
    const stats = new SharedStats(choice.numLoops)
    const limits = connectionLimits(options)
    connectionConfig({ onMessage() {} }, new RawProtocol() as never, limits)
    const serverId = randomUUID()
    const group = openGroup()
    const setup = (id: number, endpoint: Endpoint): ThreadSetup => ({
      id,
      serverId,
      moduleUrl: url,
      acceptMode: choice.acceptMode,
      poller: choice.poller,
      endpoint,
      reusePort: choice.reusePort,
      backlog: settings.backlog,
      receiveBuffer: settings.receiveBuffer,
      maxConnections: settings.maxConnections,
      limits,
      tick: options.tick,
      wheelSize: options.wheelSize,
      pollerOptions: settings.pollerOptions,
      data: options.data,
      stats: stats.buffer,
      group,
      monitor,
      broker: link && { historyPrefix: link.historyPrefix },
    })
    this.#stats = stats
    this.#noteTls(settings, choice.poller)
    const { onLoopDied } = options
    return new LoopThreads({ setup, worker, settings, choice, stats, logger, onLoopDied, link })
  }

  /**
   * Stops accepting and ends every connection. Those with an answer pending or bytes unsent get `drain` milliseconds
   * (default 0) for them. Resolves when every loop has ended, 5 s after `drain` at the latest: then a thread that does not
   * answer, or whose `onStart` or `onStop` is pending, is terminated. Extensions have 5 s more. Never rejects; harmless
   * before `start` and when called again. A `start` that is under way rejects with `ERR_RINGLOOP_CLOSED`.
   */
  stop(options: StopOptions = {}): Promise<void> {
    const drain = drainTime(options)
    this.#stopping ??= this.#stop(drain)
    return this.#stopping
  }

  async #stop(drain: number): Promise<void> {
    this.#rejectStart?.(new RingloopError(ErrorCode.CLOSED, 'the server was stopped before it had started'))
    await this.#loops?.stop(drain)
    await resolvesWithin(this.#stopBroker(), STOP_GRACE_MS)
    await resolvesWithin(this.#stopExtensions(), STOP_GRACE_MS)
    this.#wheel?.close()
  }

  /** One whose `start` is still running is waited for: its `stop` comes after it. */
  async #stopExtensions(): Promise<void> {
    await this.#starting?.catch(() => {})
    if (this.#logger !== undefined) await this.#extensions.stop(this.#logger)
  }

  /**
   * Replaces certificates and other options of TLS, on all loops and for connections that are accepted from now on; what is
   * not given stays as it was. Tickets of before are not resumed any more, unless `ticketKeys` is given.
   *
   * Resolves when every loop has them. Rejects with `ERR_RINGLOOP_OPTION` and OpenSSL's words where they cannot be used, and
   * the old ones stay; with `ERR_RINGLOOP_STATE` where the server does not speak TLS, or not yet, or is stopped.
   */
  async setTls(options: ServerTlsOptions): Promise<void> {
    const loops = this.#servingLoops
    const before = this.#tls
    if (loops === undefined || before === undefined) {
      throw new RingloopError(ErrorCode.STATE, 'setTls is for a server that was started with tls and serves')
    }
    const tls = replaceTlsOptions(before.options, options)
    if (isModule(this.#source)) checkCloneable('tls', tls)
    checkTls(before.poller, tls)
    this.#tls = { ...before, options: tls }
    await loops.setTls(tls)
  }

  /** Where it listens, with the port that the system chose. Throws `ERR_RINGLOOP_STATE` before it is started. */
  get address(): BoundAddress {
    if (this.#address === undefined)
      throw new RingloopError(ErrorCode.STATE, 'the server has not been started')
    return this.#address
  }

  /** Where its own lines go: the option `logger`, made. Throws `ERR_RINGLOOP_OPTION` where that is none. */
  get logger(): Logger {
    this.#logger ??= createLogger(this.#options.logger)
    return this.#logger
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
      const { tick, wheelSize } = this.#options
      const { logger } = this
      const onError = (error: unknown): void => logger.error({ err: error }, 'a timer of the server failed')
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
    return this.#servingLoops?.broadcast(out, options) ?? NOTHING_SENT
  }

  /**
   * Sends `out` to every connection that is subscribed to `topic`, on every loop; see {@link Loop.publish}. What is
   * published here to one topic keeps its order. With several loops `out` must be a value that can be cloned.
   *
   * Resolves with what the loops did; sends to nobody before `start` and after `stop`. Rejects with `ERR_RINGLOOP_PACKET`
   * where `out` cannot be cloned or packed, which is logged too and may be left unawaited. Throws `ERR_RINGLOOP_TOPIC` and
   * `ERR_RINGLOOP_OPTION`.
   */
  publish(topic: string, out: Out, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    checkTopicName(topic)
    checkPublishOptions(options)
    const loops = this.#servingLoops
    if (loops === undefined) return Promise.resolve(NOTHING_SENT)
    const all = loops.publish({ topic, out, options })
    all.catch((err: unknown) => logUnpublished(this.logger, err))
    return all
  }

  /** Resolves with how many connections of all loops are subscribed to `topic`. Throws `ERR_RINGLOOP_TOPIC`. */
  subscribers(topic: string): Promise<number> {
    checkTopicName(topic)
    return this.#servingLoops?.subscribers(topic) ?? Promise.resolve(0)
  }

  /** While it serves. */
  get #servingLoops(): ServerLoops | undefined {
    return this.#address === undefined || this.#stopping !== undefined ? undefined : this.#loops
  }

  /** Stops at the end of an `await using` block, without `drain`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  /** What the loops have counted, each and summed. Zeros before `start`; still there after `stop`. */
  stats(): ServerStats {
    const stats = (this.#stats ?? new SharedStats(1)).snapshot()
    return this.#link === undefined ? stats : { ...stats, broker: this.#link.stats }
  }
}

/** An option of TLS may leave only the `net` poller. */
function withTlsPoller(settings: ListenSettings, logger: Logger): ListenSettings {
  return { ...settings, poller: pollerForTls(settings.poller, settings.pollerOptions.tls, logger) }
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
