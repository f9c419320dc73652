/**
 * The event loop: one per thread that serves. It owns its connections, their timers and the tasks queued on it, and runs
 * on Node's own loop, so timers, promises and other sockets go on working inside handlers. Everything here is to be
 * called on the loop's thread.
 *
 *     beginTurn   the poller has a batch
 *       …         its records go to the connections (transport.ts)
 *     endTurn     queued tasks, then one flush of everything gathered
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { AnyConnection, AnyService } from '../connection/tcp-connection.js'
import type { Connection } from '../connection.js'
import { type CloseReason, ErrorCode, RingloopError, toError } from '../errors.js'
import { createLogger, type Logger } from '../log.js'
import type { BroadcastResult, LocalBroadcastOptions, Loop } from '../loop.js'
import {
  type Address,
  type ConnectOptions,
  checkConnectOptions,
  checkLocalBroadcastOptions,
  checkLoopOptions,
  checkPoller,
  createService,
  drainTime,
  type LoopOptions,
  parseAddress,
  type StopOptions,
  socketSettings,
  wholeNumber,
} from '../options.js'
import type { Protocol } from '../protocol/protocol.js'
import { RawProtocol } from '../protocol/raw.js'
import { choosePoller } from './poller/choose-poller.js'
import { NetPoller } from './poller/net-poller.js'
import type { Endpoint, Poller, PollerSink } from './poller/poller.js'
import { resolveEndpoint } from './resolve.js'
import { CELL, LoopCounters, type LoopStats, SharedStats } from './stats.js'
import { TaskQueue } from './task-queue.js'
import { type Timer, TimingWheel } from './timing-wheel.js'
import { type Admission, endpointText, Transport } from './transport.js'

/** Nobody was there. @internal */
export const NOTHING_SENT: BroadcastResult = { sent: 0, dropped: 0, closed: 0 }

/** What a server gives a loop that it makes. @internal */
export interface LoopSetup {
  readonly id: number
  readonly serverId: string
  readonly stats: SharedStats
  readonly createPoller: (sink: PollerSink) => Poller
}

const STOPPED: CloseReason = { code: 'server-stopped', message: 'the server was stopped' }
const SLOW: CloseReason = { code: 'slow-consumer', message: 'above the high-water mark at a broadcast' }
const DEFAULT_CONNECT_TIMEOUT = 10_000
/** How often a stopping loop looks whether its last peers have gone. */
const LINGER_CHECK_MS = 10
/** A mailbox gives 64 connections a round: enough for as many as a backlog holds. */
const MAX_ARRIVAL_ROUNDS = 1000

export class EventLoop<Data = unknown> implements Loop<Data> {
  /** 0 … numLoops - 1. */
  readonly id: number
  /** How many loops the server has; 1 for a loop made by `new EventLoop`. */
  readonly numLoops: number
  /** The same on every loop of a server and on no other: names a `BroadcastChannel` on which they can talk. */
  readonly serverId: string
  /** The `data` of the options: a copy in each thread. */
  readonly data: Data
  readonly logger: Logger
  /**
   * Milliseconds since the loop was made, as of this turn. An int32, which costs no allocation and wraps after 24.8 days:
   * what is compared is a difference, made an int32 again.
   * @internal
   */
  now = 0
  /** @internal */
  readonly wheel: TimingWheel
  /** @internal */
  readonly sharedStats: SharedStats

  readonly #origin = performance.now()
  readonly #counters: LoopCounters
  readonly #transport: Transport
  #tlsTransport: Transport | undefined
  /** The server's, once it has started. */
  #handler: AnyService['handler'] | undefined
  readonly #tasks: TaskQueue
  readonly #turn = (): void => this.#runTurn()
  #inTurn = false
  #turnScheduled = false
  #turnStart = 0
  #lastConnectionId = 0
  #stopping: Promise<void> | undefined
  #whenEmpty: (() => void) | undefined

  /**
   * A loop for clients, in this thread: use `connect`. A server makes its own. Throws `ERR_RINGLOOP_OPTION`, and
   * `ERR_RINGLOOP_POLLER` when `poller` is `native` and there is no addon.
   */
  constructor(options: LoopOptions = {}, setup?: LoopSetup) {
    checkLoopOptions(options)
    this.id = setup?.id ?? 0
    this.data = options.data as Data
    this.logger = createLogger(options.logger)
    this.sharedStats = setup?.stats ?? new SharedStats(1)
    this.numLoops = this.sharedStats.numLoops
    this.serverId = setup?.serverId ?? randomUUID()
    const onError = (error: unknown): void => {
      this.#counters.add(CELL.handlerErrors, 1)
      this.logger.error({ err: error }, 'a timer or a task of the loop failed')
    }
    this.wheel = new TimingWheel({ tick: options.tick, wheelSize: options.wheelSize, onError })
    this.#tasks = new TaskQueue(onError)
    this.#counters = new LoopCounters(this.sharedStats, this.id)
    const createPoller =
      setup?.createPoller ?? ((sink) => choosePoller(checkPoller(options.poller), sink, this.logger))
    this.#transport = new Transport(this, this.#counters, createPoller)
  }

  /** Which poller this loop uses. */
  get poller(): 'native' | 'net' {
    return this.#transport.poller.kind
  }

  /** `true` once `stop` was called: a protocol may tell its peers. */
  get stopping(): boolean {
    return this.#stopping !== undefined
  }

  /**
   * Every connection of this loop, accepted or made by `connect`; also one that is still connecting or closing, where
   * `connected` is `false`.
   */
  get connections(): Iterable<Connection<never>> {
    return this.#connections()
  }

  *#connections(): IterableIterator<AnyConnection> {
    yield* this.#transport.connections()
    if (this.#tlsTransport !== undefined) yield* this.#tlsTransport.connections()
  }

  /** Calls `fn` once, in `ms` milliseconds, on this loop. What it throws is logged. */
  runAfter(ms: number, fn: () => void): Timer {
    return this.wheel.runAfter(ms, fn)
  }

  /** Calls `fn` every `ms` milliseconds on this loop until the handle is stopped. What it throws is logged. */
  runEvery(ms: number, fn: () => void): Timer {
    return this.wheel.runEvery(ms, fn)
  }

  addTimer(timer: Timer, ms: number): void {
    this.wheel.add(timer, ms)
  }

  yield(): Promise<void> {
    return nextRound()
  }

  /** Calls `fn` at the end of this turn, before its output is flushed; outside a turn, soon. What it throws is logged. */
  queueInLoop(fn: () => void): void {
    this.#tasks.push(fn)
    this.scheduleTurn()
  }

  /** What this loop has counted. */
  stats(): LoopStats {
    return this.sharedStats.snapshot().loops[this.id]!
  }

  /**
   * Connects on this loop. Resolves after the handler's `onConnect`; rejects with `ERR_RINGLOOP_CONNECT` when the peer
   * cannot be reached, the handshake fails, or `timeout` is over, and with `ERR_RINGLOOP_CLOSED` on a stopped loop.
   * The addresses of a host name are tried one after another.
   */
  async connect<Ctx = undefined, Out = Uint8Array | string, State = unknown>(
    address: Address,
    options: ConnectOptions<Ctx, Out, State>,
  ): Promise<Connection<Out, State>> {
    checkConnectOptions(options)
    const protocol = options.protocol ?? (new RawProtocol() as unknown as Protocol<Ctx, Out>)
    const service = createService(options.handler, protocol, options)
    const timeout = wholeNumber('timeout', options.timeout, DEFAULT_CONNECT_TIMEOUT, 1)
    const settings = socketSettings(options)
    const wanted = parseAddress(address)
    if (this.#stopping !== undefined) throw new RingloopError(ErrorCode.CLOSED, 'the loop is stopped')
    const tls = tlsOptions(options.tls, wanted)
    const transport = tls === undefined ? this.#transport : this.#transportForTls()
    let failure: unknown
    try {
      for (const endpoint of await resolveEndpoint(wanted, false)) {
        if (this.stopping) throw new RingloopError(ErrorCode.CLOSED, 'the loop is stopped')
        try {
          return (await this.#connectTo(
            transport,
            endpoint,
            { ...settings, tls },
            service,
            timeout,
          )) as Connection<Out, State>
        } catch (error) {
          failure = error
        }
      }
    } catch (error) {
      failure = error
    }
    if (failure instanceof RingloopError) throw failure
    throw connectError(wanted, failure)
  }

  #connectTo<Ctx, Out>(
    transport: Transport,
    endpoint: Endpoint,
    settings: Parameters<Poller['connect']>[1],
    service: ReturnType<typeof createService<Ctx, Out>>,
    timeout: number,
  ): Promise<Connection<Out>> {
    return new Promise((resolve, reject) => {
      const timer = this.wheel.runAfter(timeout, () => {
        c.abort({ code: 'network-error', message: `not ready within ${timeout} ms` })
      })
      timer.stop()
      const c: AnyConnection = transport.connect(endpoint, settings, service, {
        resolve: () => {
          timer.stop()
          resolve(c)
        },
        reject: (error) => {
          timer.stop()
          reject(connectError(endpoint, error))
        },
      })
      timer.restart()
    })
  }

  #transportForTls(): Transport {
    if (this.poller === 'net') return this.#transport
    this.#tlsTransport ??= new Transport(this, this.#counters, (sink) => new NetPoller(sink))
    return this.#tlsTransport
  }

  /**
   * Sends `out` to every connection that this loop has accepted and whose handshake is over. It is packed once where
   * the protocol can. Not for connections made by `connect`.
   */
  broadcast<Out = Uint8Array | string>(out: Out, options: LocalBroadcastOptions<Out> = {}): BroadcastResult {
    checkLocalBroadcastOptions(options)
    return this.#transport.broadcast(out, options, SLOW)
  }

  /** What accepted connections are served with. Awaits the handler's onStart. @internal */
  async serve(service: AnyService, admission: Admission): Promise<void> {
    this.#transport.serve(service, admission)
    try {
      await service.handler.onStart?.(this)
    } catch (error) {
      const reason = toError(error).message
      throw new RingloopError(ErrorCode.LOOP_START, `onStart of loop ${this.id} failed: ${reason}`, error)
    }
    this.#handler = service.handler
  }

  // ---- for the server and the transports ---------------------------------------------------------------------------

  /** @internal */
  get transport(): Transport {
    return this.#transport
  }

  /** @internal */
  nextConnectionId(): number {
    this.#lastConnectionId++
    return this.#lastConnectionId
  }

  /** @internal */
  readClock(): number {
    this.now = (performance.now() - this.#origin) | 0
    return this.now
  }

  /** @internal */
  beginTurn(): void {
    this.#inTurn = true
    this.#turnStart = performance.now()
    this.now = (this.#turnStart - this.#origin) | 0
  }

  /** @internal */
  endTurn(records: number): void {
    this.#finishTurn()
    this.#counters.addBatch(records, performance.now() - this.#turnStart)
    this.#inTurn = false
  }

  /** There is output or a task: a turn is coming, or is made to come. @internal */
  scheduleTurn(): void {
    if (this.#inTurn || this.#turnScheduled) return
    this.#turnScheduled = true
    process.nextTick(this.#turn)
  }

  #runTurn(): void {
    this.#turnScheduled = false
    this.readClock()
    this.#inTurn = true
    this.#finishTurn()
    this.#inTurn = false
  }

  #finishTurn(): void {
    this.#tasks.run()
    let more = this.#transport.flush()
    if (this.#tlsTransport?.flush() === true) more = true
    if (more || this.#tasks.length > 0) this.#scheduleLater()
    if (this.#whenEmpty !== undefined && this.#size === 0) this.#whenEmpty()
  }

  /** What a flush has caused waits for the next round of Node's loop, so that sockets get their turn in between. */
  #scheduleLater(): void {
    if (this.#turnScheduled) return
    this.#turnScheduled = true
    setImmediate(this.#turn)
  }

  get #size(): number {
    return this.#transport.size + (this.#tlsTransport?.size ?? 0)
  }

  /**
   * Ends every connection: those with an answer pending or bytes unsent get `drain` ms (default 0) for them. Then
   * everything of this loop is closed; timers and tasks are dropped. Later calls give the same promise.
   */
  stop(options: StopOptions = {}): Promise<void> {
    const drain = drainTime(options)
    this.#stopping ??= this.#stop(drain)
    return this.#stopping
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  async #stop(drain: number): Promise<void> {
    this.#transport.stopListening()
    // A handler that stops its loop is not to find its connection closed under it.
    await nextRound()
    if (drain > 0) await this.#drain(drain)
    for (const c of this.#connections()) c.beginClose(STOPPED)
    this.#runTurn()
    for (const c of this.#connections()) c.abort(STOPPED)
    this.#transport.refuse()
    this.#runTurn()
    await this.#callOnStop()
    if (drain > 0) await this.#linger()
    this.#transport.destroy()
    this.#tlsTransport?.destroy()
    this.wheel.close()
    this.#tasks.clear()
  }

  /** It was on its way through the mailbox when the loop was told to stop: it is served what it has sent. @internal */
  drainLate(c: AnyConnection): void {
    void nextRound()
      .then(nextRound)
      .then(() => c.drain(STOPPED))
  }

  /** Peers that are still sending get the time to read their last bytes; see `Poller.close`. */
  async #linger(): Promise<void> {
    for (const transport of [this.#transport, this.#tlsTransport]) {
      while (transport?.poller.expireLingering() === true) await sleep(LINGER_CHECK_MS)
    }
  }

  async #callOnStop(): Promise<void> {
    try {
      await this.#handler?.onStop?.(this)
    } catch (error) {
      this.logger.error({ err: error }, 'onStop failed')
    }
  }

  /** More are counted as this loop's than have come out of the mailbox, or their TLS handshake is not over. */
  get #expectsMore(): boolean {
    return this.sharedStats.connectionsOf(this.id) > this.#size
  }

  /** What has already arrived is read first: once the mailbox is empty two rounds of Node's loop bring it in. */
  async #drain(ms: number): Promise<void> {
    const deadline = performance.now() + ms
    for (let round = 0; this.#expectsMore && round < MAX_ARRIVAL_ROUNDS; round++) {
      if (performance.now() > deadline) break
      await nextRound()
    }
    for (let round = 0; round < 2; round++) await nextRound()
    for (const c of this.#connections()) c.drain(STOPPED)
    if (this.#size === 0) return
    await new Promise<void>((resolve) => {
      this.#whenEmpty = resolve
      this.wheel.runAfter(Math.max(0, deadline - performance.now()), resolve)
    })
    this.#whenEmpty = undefined
  }
}

function nextRound(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

function tlsOptions(tls: ConnectOptions['tls'], endpoint: Endpoint): Exclude<ConnectOptions['tls'], true> {
  if (tls === undefined) return undefined
  const given = tls === true ? {} : tls
  if ('path' in endpoint || given.servername !== undefined) return given
  return { servername: /^[\d.]+$|:/.test(endpoint.host) ? '' : endpoint.host, ...given }
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
