/**
 * The event loop: one per thread that serves. It owns the tables of its connections, their timers and the tasks queued on
 * it, and runs on Node's own loop, so timers, promises and other sockets go on working inside handlers. Everything here
 * is to be called on the loop's thread.
 *
 * A turn begins in `beginTurn`, when a poller has a batch, or in `#runTurn`, when something was sent or queued without
 * one; it ends in `#finishTurn`: queued tasks, then one flush of everything gathered.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ConnectionOptions } from 'node:tls'
import type { AnyConfig } from '../connection/config.js'
import type { AnyConnection } from '../connection/host.js'
import type { Connection } from '../connection.js'
import { type CloseReason, ErrorCode, RingloopError, toError } from '../errors.js'
import type { Gap } from '../handler.js'
import { createLogger, type Logger } from '../log.js'
import type { BroadcastOptions, BroadcastResult, LocalBroadcastOptions, Loop } from '../loop.js'
import {
  type Address,
  type ConnectOptions,
  checkLocalBroadcastOptions,
  checkLoopOptions,
  checkPoller,
  drainTime,
  type LoopOptions,
  type StopOptions,
} from '../options.js'
import type { Timer } from '../timers/timer.js'
import { TimingWheel } from '../timers/timing-wheel.js'
import type { Admission } from './admission.js'
import { ConnectionTable, type TableOwner } from './connection-table.js'
import { Connector, type ConnectorOwner } from './connector.js'
import { choosePoller, connectsNatively } from './poller/choose-poller.js'
import { NetPoller } from './poller/net-poller.js'
import { LINGER_CHECK_MS, type Poller, type PollerSink } from './poller/poller.js'
import type { RemoteTopics } from './remote-topics.js'
import { CELL, LoopCounters, type LoopStats, SharedStats } from './stats.js'
import { TaskQueue } from './task-queue.js'
import { type Relay, Topics } from './topics.js'
import { TurnQueue } from './turn-queue.js'

/** What a server gives a loop that it makes. */
export interface LoopSetup {
  readonly id: number
  readonly serverId: string
  readonly stats: SharedStats
  readonly createPoller: (sink: PollerSink) => Poller
  /** To the other loops, where there are any. */
  readonly relay?: Relay
  /** To other machines, where there is a broker. */
  readonly remoteTopics?: RemoteTopics
}

const LOOP_STOPPED: CloseReason = { code: 'server-stopped', message: 'the server was stopped' }
/** A mailbox gives 64 connections a round: enough for as many as a backlog holds. */
const MAX_ARRIVAL_ROUNDS = 1000
/** An `onSent` that sends again makes turn after turn: after so many the sockets are polled first. */
const MAX_TURNS_IN_A_ROW = 16

export class EventLoop<Data = unknown> implements Loop<Data>, TableOwner, ConnectorOwner {
  readonly id: number
  readonly numLoops: number
  readonly serverId: string
  readonly data: Data
  readonly logger: Logger
  /** Milliseconds since the loop was made, as of this turn; see `ConnectionHost.now`. */
  now = 0
  readonly turns: TurnQueue
  readonly topics: Topics
  readonly table: ConnectionTable
  readonly sharedStats: SharedStats

  readonly #origin = performance.now()
  readonly #wheel: TimingWheel
  readonly #counters: LoopCounters
  readonly #connector: Connector = new Connector(this)
  /** For connections that a loop with the native poller makes with options of TLS that this poller does not know. */
  #tlsTable: ConnectionTable | undefined
  /** The server's, once it has started. */
  #handler: AnyConfig['handler'] | undefined
  readonly #tasks: TaskQueue
  readonly #turn = (): void => this.#runTurn()
  readonly #round = (): void => this.#runRound()
  #isInTurn = false
  /** A turn without a batch is to come: in this tick, or in the next round. */
  #isTurnScheduled = false
  #isRoundScheduled = false
  /** Turns at the end of a tick since the sockets were last polled. */
  #turnsInARow = 0
  #turnStart = 0
  #lastConnectionId = 0
  #stopping: Promise<void> | undefined
  /** `stop` has got as far as `onStop`: a handler whose `onStart` is still running ends after it. */
  #pastOnStop = false
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
      this.logger.error({ err: toError(error) }, 'a timer or a task of the loop failed')
    }
    this.#wheel = new TimingWheel({ tick: options.tick, wheelSize: options.wheelSize, onError })
    this.#tasks = new TaskQueue(onError)
    this.#counters = new LoopCounters(this.sharedStats, this.id)
    this.turns = new TurnQueue(() => this.#scheduleRound())
    this.topics = new Topics(this, this.#counters, setup?.relay, setup?.remoteTopics)
    const createPoller =
      setup?.createPoller ?? ((sink) => choosePoller(checkPoller(options.poller), sink, this.logger))
    this.table = new ConnectionTable(this, this.#counters, createPoller)
  }

  get poller(): 'native' | 'net' {
    return this.table.poller.kind
  }

  get stopping(): boolean {
    return this.#stopping !== undefined
  }

  get connections(): Iterable<Connection<never>> {
    return this.#connections()
  }

  *#connections(): IterableIterator<AnyConnection> {
    for (const table of this.#tables()) yield* table.connections()
  }

  #tables(): readonly ConnectionTable[] {
    return this.#tlsTable === undefined ? [this.table] : [this.table, this.#tlsTable]
  }

  // ---- what a handler asks -------------------------------------------------------------------------------------------

  runAfter(ms: number, fn: () => void): Timer {
    return this.#wheel.runAfter(ms, fn)
  }

  runEvery(ms: number, fn: () => void): Timer {
    return this.#wheel.runEvery(ms, fn)
  }

  addTimer(timer: Timer, ms: number): void {
    this.#wheel.add(timer, ms)
  }

  queueInLoop(fn: () => void): void {
    this.#tasks.push(fn)
    this.scheduleTurn()
  }

  yield(): Promise<void> {
    return this.turns.yield()
  }

  stats(): LoopStats {
    return this.sharedStats.snapshot().loops[this.id]!
  }

  async connect<Ctx = undefined, Out = Uint8Array | string, State = unknown>(
    address: Address,
    options: ConnectOptions<Ctx, Out, State>,
  ): Promise<Connection<Out, State>> {
    return (await this.#connector.connect(address, options)) as Connection<Out, State>
  }

  broadcast<Out = Uint8Array | string>(out: Out, options: LocalBroadcastOptions<Out> = {}): BroadcastResult {
    checkLocalBroadcastOptions(options)
    return this.table.broadcast(out, options)
  }

  publish<Out = Uint8Array | string>(
    topic: string,
    out: Out,
    options: BroadcastOptions = {},
  ): Promise<BroadcastResult> {
    return this.topics.publish(topic, out, options, undefined)
  }

  subscribers(topic: string): number {
    return this.topics.count(topic)
  }

  // ---- a turn --------------------------------------------------------------------------------------------------------

  /** A poller has a batch for its connections. */
  beginTurn(): void {
    this.#turnsInARow = 0
    this.#startTurn()
    this.turns.begin(this.#turnStart)
  }

  /** The batch, of so many records, has been handled. */
  endTurn(records: number): void {
    this.#finishTurn()
    this.#counters.addBatch(records, performance.now() - this.#turnStart)
  }

  /** There is output or a task: a turn is made to come, unless one is under way, which looks again when it ends. */
  scheduleTurn(): void {
    if (this.#isInTurn || this.#isTurnScheduled || this.#isRoundScheduled) return
    if (this.#turnsInARow >= MAX_TURNS_IN_A_ROW) {
      this.#scheduleRound()
      return
    }
    this.#isTurnScheduled = true
    process.nextTick(this.#turn)
  }

  #runTurn(): void {
    this.#isTurnScheduled = false
    this.#turnsInARow++
    this.#startTurn()
    this.turns.look(this.#turnStart)
    this.#finishTurn()
  }

  /** Whoever waits for a turn gets it, between two polls. */
  #runRound(): void {
    this.#isRoundScheduled = false
    this.#turnsInARow = 0
    this.#startTurn()
    this.turns.run()
    this.#finishTurn()
  }

  #startTurn(): void {
    this.#isInTurn = true
    this.#turnStart = performance.now()
    this.now = (this.#turnStart - this.#origin) | 0
  }

  #finishTurn(): void {
    this.#tasks.run()
    this.topics.turn.deliver()
    let packets = 0
    for (const table of this.#tables()) {
      packets += table.traffic.messagesIn
      table.flush()
    }
    // The flush of one table may have caused something on another.
    const hasMore = this.#tables().some(({ out }) => out.isDirty)
    if (packets > 0) this.turns.learn(packets, performance.now() - this.#turnStart)
    if (hasMore || this.#tasks.length > 0 || this.topics.turn.hasPending || !this.turns.isEmpty)
      this.#scheduleRound()
    if (this.#whenEmpty !== undefined && this.#size === 0) this.#whenEmpty()
    this.#isInTurn = false
  }

  /** What a turn has left over waits for the next round of Node's loop, so that sockets get their turn in between. */
  #scheduleRound(): void {
    if (this.#isRoundScheduled) return
    this.#isRoundScheduled = true
    setImmediate(this.#round)
  }

  // ---- for the connections and the server ----------------------------------------------------------------------------

  readClock(): number {
    this.now = (performance.now() - this.#origin) | 0
    return this.now
  }

  nextConnectionId(): number {
    this.#lastConnectionId++
    return this.#lastConnectionId
  }

  tableFor(tls: ConnectionOptions | undefined): ConnectionTable {
    if (tls === undefined || this.poller === 'net' || connectsNatively(tls)) return this.table
    this.#tlsTable ??= new ConnectionTable(this, this.#counters, (sink) => new NetPoller(sink))
    return this.#tlsTable
  }

  get #size(): number {
    return this.table.size + (this.#tlsTable?.size ?? 0)
  }

  /** What accepted connections are served with. Awaits the handler's onStart. */
  async serve(config: AnyConfig, admission: Admission): Promise<void> {
    this.table.serve(config, admission)
    try {
      await config.handler.onStart?.(this)
    } catch (error) {
      const reason = toError(error).message
      throw new RingloopError(ErrorCode.LOOP_START, `onStart of loop ${this.id} failed: ${reason}`, error)
    }
    this.#handler = config.handler
    if (this.#pastOnStop) await this.#callOnStop()
  }

  // ---- what topics ask of the handler --------------------------------------------------------------------------------

  withPosition(topic: string, out: unknown, position: string): unknown {
    const handler = this.#handler
    return handler?.withPosition === undefined ? out : handler.withPosition(topic, out as never, position)
  }

  async callOnGap(topic: string, gap: Gap): Promise<void> {
    try {
      await this.#handler?.onGap?.(topic, gap, this)
    } catch (error) {
      this.#counters.add(CELL.handlerErrors, 1)
      this.logger.error({ err: toError(error), topic }, 'onGap failed')
    }
  }

  // ---- the end -------------------------------------------------------------------------------------------------------

  stop(options: StopOptions = {}): Promise<void> {
    const drain = drainTime(options)
    this.#stopping ??= this.#stop(drain)
    return this.#stopping
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  async #stop(drain: number): Promise<void> {
    this.#attempt(() => this.table.stopListening())
    // A handler that stops its loop is not to find its connection closed under it.
    await nextRound()
    if (drain > 0) await this.#drain(drain)
    for (const c of this.#connections()) c.beginClose(LOOP_STOPPED)
    this.#runTurn()
    for (const c of this.#connections()) c.abort(LOOP_STOPPED)
    this.table.refuse()
    this.#runTurn()
    this.#pastOnStop = true
    await this.#callOnStop()
    if (drain > 0) await this.#linger()
    for (const table of this.#tables()) this.#attempt(() => table.destroy())
    this.#wheel.close()
    this.#tasks.clear()
    this.turns.close()
  }

  /** What cannot be closed does not keep the rest from being closed. */
  #attempt(close: () => void): void {
    try {
      close()
    } catch (error) {
      this.logger.error({ err: toError(error) }, 'stopping: something could not be closed')
    }
  }

  /** It was on its way through the mailbox when the loop was told to stop: it is served what it has sent. */
  drainLate(c: AnyConnection): void {
    void nextRound()
      .then(nextRound)
      .then(() => c.drain(LOOP_STOPPED))
  }

  /** Peers that are still sending get the time to read their last bytes; see `Poller.close`. */
  async #linger(): Promise<void> {
    for (const { poller } of this.#tables()) {
      while (poller.expireLingering()) await sleep(LINGER_CHECK_MS)
    }
  }

  async #callOnStop(): Promise<void> {
    try {
      await this.#handler?.onStop?.(this)
    } catch (error) {
      this.logger.error({ err: toError(error) }, 'onStop failed')
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
    for (const c of this.#connections()) c.drain(LOOP_STOPPED)
    if (this.#size === 0) return
    await new Promise<void>((resolve) => {
      this.#whenEmpty = resolve
      this.#wheel.runAfter(Math.max(0, deadline - performance.now()), resolve)
    })
    this.#whenEmpty = undefined
  }
}

function nextRound(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
