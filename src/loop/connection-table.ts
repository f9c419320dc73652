/**
 * The connections of one poller by slot: who is admitted, who gets the poller's reports, who is told by a broadcast. One
 * per loop, and a second one when a loop with the native poller makes a TLS connection. The loop's thread only.
 *
 *     poller ── report of a slot ──▶ table ──▶ connection ──▶ out slab ── one write each ──▶ poller
 */
import type { AnyConfig } from '../connection/config.js'
import type { PendingConnect } from '../connection/connection-base.js'
import type { AnyConnection, ConnectionHost, Subscriptions, Turns } from '../connection/host.js'
import { MessageSampler } from '../connection/message-sampler.js'
import { TcpConnection } from '../connection/tcp-connection.js'
import { Traffic } from '../connection/traffic.js'
import type { CloseReason } from '../errors.js'
import { LogLimit } from '../log-limit.js'
import type { BroadcastResult, LocalBroadcastOptions, Loop } from '../loop.js'
import { RingBufferPool } from '../ringbuffer/pool.js'
import { RingBuffer } from '../ringbuffer/ring-buffer.js'
import { systemError } from '../system-error.js'
import type { Timer } from '../timers/index.js'
import type { TlsFailure } from '../tls-failure.js'
import type { Admission } from './admission.js'
import { Delivery } from './delivery.js'
import { OutSlab } from './out-slab.js'
import {
  ACCEPT_RETRY_MS,
  COUNTED,
  LINGER_CHECK_MS,
  LINGER_MS,
  type Poller,
  type PollerSink,
} from './poller/poller.js'
import { CELL, type LoopCounters } from './stats.js'

/** The out ring of a slow peer may be large: keep few of them. */
const OUT_POOL = { maxBuffers: 256, initialCapacity: 16 * 1024, maxCapacity: 256 * 1024 }
const IN_POOL = { maxBuffers: 1024, initialCapacity: 4096, maxCapacity: 128 * 1024 }
const FIRST_SLOTS = 64
/** Sockets that a poller reads at least in one round, when they are all ready. */
const READS_PER_ROUND = 512

/** The loop, as its tables see it. */
export interface TableOwner extends Loop {
  readonly now: number
  readonly turns: Turns
  readonly topics: Subscriptions
  readClock(): number
  nextConnectionId(): number
  /** The poller has a batch for the connections. */
  beginTurn(): void
  /** It was a batch of `records`. */
  endTurn(records: number): void
  /** There is something to flush. */
  scheduleTurn(): void
  /** It came although the loop is stopping. */
  drainLate(c: AnyConnection): void
}

export class ConnectionTable implements PollerSink, ConnectionHost {
  readonly poller: Poller
  readonly out: OutSlab
  readonly traffic: Traffic = new Traffic()
  readonly sampler: MessageSampler
  readonly view: RingBuffer = new RingBuffer(0)
  readonly pool: RingBufferPool = new RingBufferPool(IN_POOL)
  readonly outPool: RingBufferPool = new RingBufferPool(OUT_POOL)
  readonly faultLog: LogLimit = new LogLimit()
  readonly errorLog: LogLimit = new LogLimit()
  lastActive: Int32Array = new Int32Array(FIRST_SLOTS)

  readonly topics: Subscriptions
  readonly #loop: TableOwner
  readonly #counters: LoopCounters
  readonly #connections: (AnyConnection | undefined)[] = []
  #size = 0
  /** What accepted connections are served with, and who admits them; `undefined` while nobody may come. */
  #config: AnyConfig | undefined
  #admission: Admission | undefined
  readonly #listeners: number[] = []
  #reportedBacklog = 0
  #lingerTimer: Timer | undefined = undefined

  constructor(loop: TableOwner, counters: LoopCounters, createPoller: (sink: PollerSink) => Poller) {
    this.#loop = loop
    this.topics = loop.topics
    this.#counters = counters
    this.poller = createPoller(this)
    this.out = new OutSlab(this.poller, this.#connections, () => loop.scheduleTurn())
    this.sampler = new MessageSampler((ms, messages) => counters.addHandlerTime(ms, messages))
    this.poller.setRef(false)
  }

  // ---- what a connection asks ----------------------------------------------------------------------------------------

  get loop(): Loop {
    return this.#loop
  }

  get now(): number {
    return this.#loop.now
  }

  readClock(): number {
    return this.#loop.readClock()
  }

  get turns(): Turns {
    return this.#loop.turns
  }

  get roundsToReadAll(): number {
    return 1 + Math.ceil(this.#size / READS_PER_ROUND)
  }

  countHandlerError(): void {
    this.#counters.add(CELL.handlerErrors, 1)
  }

  countProtocolError(): void {
    this.#counters.add(CELL.protocolErrors, 1)
  }

  remove(c: AnyConnection, linger: boolean, reason: CloseReason): void {
    const { slot } = c
    if (c.endsWithReset) this.poller.reset(slot)
    else this.poller.close(slot, linger)
    this.out.drop(slot)
    this.#connections[slot] = undefined
    this.#size--
    if (this.#size === 0) this.#updateRef()
    if (!c.isConnecting) this.#counters.closed(reason.code, c.isAccepted)
    if (linger || this.#lingerTimer !== undefined) this.#watchLingering()
  }

  // ---- slots ---------------------------------------------------------------------------------------------------------

  /** How many connections there are, in any state. */
  get size(): number {
    return this.#size
  }

  *connections(): IterableIterator<AnyConnection> {
    for (const c of this.#connections) {
      if (c !== undefined) yield c
    }
  }

  /** A connection that `connect` makes: `pending` hears how that went. */
  addConnecting(slot: number, config: AnyConfig, pending: PendingConnect): AnyConnection {
    const c = this.#add(slot, config, false)
    c.setPendingConnect(pending)
    return c
  }

  #add(slot: number, config: AnyConfig, isAccepted: boolean): AnyConnection {
    const c = new TcpConnection(this, config, slot, this.#loop.nextConnectionId(), isAccepted)
    while (this.#connections.length <= slot) this.#connections.push(undefined)
    if (slot >= this.lastActive.length) this.#growClock(slot)
    this.#connections[slot] = c
    this.lastActive[slot] = this.now
    this.out.addSlot(slot)
    this.#size++
    if (this.#size === 1) this.#updateRef()
    return c
  }

  #growClock(slot: number): void {
    const lastActive = new Int32Array(Math.max(slot + 1, this.lastActive.length * 2))
    lastActive.set(this.lastActive)
    this.lastActive = lastActive
  }

  // ---- accepting -----------------------------------------------------------------------------------------------------

  /** What accepted connections are served with, and who admits them. */
  serve(config: AnyConfig, admission: Admission): void {
    this.#config = config
    this.#admission = admission
  }

  /** Who comes from now on is turned away: the last connections have ended. */
  refuse(): void {
    this.#config = undefined
  }

  /** It accepts, and keeps the process alive, until `stopListening`. */
  addListener(listener: number): void {
    this.#listeners.push(listener)
    this.#updateRef()
  }

  stopListening(): void {
    for (const listener of this.#listeners) this.poller.closeListener(listener)
    this.#listeners.length = 0
    this.#updateRef()
  }

  #updateRef(): void {
    this.poller.setRef(this.#size > 0 || this.#listeners.length > 0)
  }

  admit(): boolean {
    return this.#config !== undefined && this.#admission?.admit(false) === true
  }

  handleAccept(slot: number, listener: number): void {
    const config = this.#config
    if (config === undefined) this.handleLost(listener)
    if (config === undefined || this.#admission?.admit(listener === COUNTED) !== true) {
      this.poller.close(slot, false)
      return
    }
    this.#counters.accepted()
    const c = this.#add(slot, config, true)
    c.handleOpen()
    if (this.#loop.stopping) this.#loop.drainLate(c)
  }

  handleSecured(ms: number, isResumed: boolean): void {
    this.#counters.addHandshake(ms, isResumed)
  }

  /** What `connect` makes hears of it by itself. */
  handleTlsFailure(slot: number, failure: TlsFailure, text: string | undefined): void {
    if (this.#connections[slot]?.isConnecting === true) return
    this.#counters.addTlsFailure(failure)
    // A failed handshake may have sent an alert, for which the socket lingers.
    this.#watchLingering()
    const leftOut = this.faultLog.admit(`tls: ${failure}`)
    if (leftOut === undefined) return
    const peer = slot < 0 ? undefined : this.poller.peerAddr(slot) || 'unix'
    this.#loop.logger.info({ reason: failure, text, peer, leftOut }, 'TLS failed with a peer')
  }

  handleLost(listener: number): void {
    this.#admission?.lose(listener === COUNTED)
  }

  handleAcceptError(listener: number, errno: number): void {
    const err = systemError(errno, 'accept')
    this.#loop.logger.warn({ err }, `accepting pauses for ${ACCEPT_RETRY_MS} ms: ${err.message}`)
    this.#loop.runAfter(ACCEPT_RETRY_MS, () => this.poller.setAccepting(listener, true))
  }

  handleFileLeft(err: NodeJS.ErrnoException): void {
    this.#loop.logger.warn({ err }, `the file of the unix socket is left behind: ${err.message}`)
  }

  // ---- the poller's reports ------------------------------------------------------------------------------------------

  handleBatchStart(): void {
    this.#loop.beginTurn()
    this.sampler.beginTurn(this.now)
  }

  handleBatchEnd(count: number): void {
    this.#loop.endTurn(count)
  }

  handleConnect(slot: number): void {
    const c = this.#connections[slot]
    if (c === undefined) return
    this.#counters.connected()
    c.handleOpen()
  }

  handleRead(slot: number, storage: Buffer, start: number, end: number): void {
    this.#connections[slot]?.handleRead(storage, start, end)
  }

  handleEnd(slot: number): void {
    this.#connections[slot]?.handleEnd()
  }

  handleError(slot: number, errno: number): void {
    this.#connections[slot]?.handleError(errno)
  }

  handleLeft(slot: number): void {
    this.#connections[slot]?.handleLeft()
  }

  handleHangup(slot: number): void {
    this.#connections[slot]?.handleHangup()
  }

  handleWritable(slot: number): void {
    this.#connections[slot]?.handleWritable()
  }

  // ---- all at once ---------------------------------------------------------------------------------------------------

  /** To every accepted connection whose handshake is over. */
  broadcast<Out>(out: Out, options: LocalBroadcastOptions<Out>): BroadcastResult {
    const delivery = new Delivery(out, options.slow, this.#counters)
    // What cannot be packed is a mistake, also where nobody is there.
    if (this.#config !== undefined) delivery.packFor(this.#config.protocol)
    for (const c of this.#connections) {
      // The filter is the user's, and may have closed it.
      if (c === undefined || !c.isReceiver || options.filter?.(c) === false || !c.isReceiver) continue
      delivery.offer(c)
    }
    return delivery.result
  }

  /** The end of a turn: what was gathered goes out, what was counted is published. */
  flush(): void {
    this.out.flush()
    this.#publishTraffic()
  }

  #publishTraffic(): void {
    const { traffic } = this
    const counters = this.#counters
    counters.add(CELL.messagesIn, traffic.messagesIn)
    counters.add(CELL.messagesOut, traffic.messagesOut)
    counters.add(CELL.bytesIn, traffic.bytesIn)
    counters.add(CELL.bytesOut, traffic.bytesOut)
    traffic.reset()
    if (traffic.backlogBytes === this.#reportedBacklog) return
    counters.add(CELL.writeBufferBytes, traffic.backlogBytes - this.#reportedBacklog)
    this.#reportedBacklog = traffic.backlogBytes
  }

  // ---- the end -------------------------------------------------------------------------------------------------------

  /** A process that has nothing else to do waits for them, as their peers have not read everything yet. */
  #watchLingering(): void {
    const isAlone = this.#size === 0 && this.#listeners.length === 0
    if (this.#lingerTimer !== undefined && !isAlone) return
    this.#lingerTimer?.stop()
    this.#lingerTimer = this.#loop.runAfter(isAlone ? LINGER_CHECK_MS : LINGER_MS, () => {
      this.#lingerTimer = undefined
      if (this.poller.expireLingering()) this.#watchLingering()
    })
    if (!isAlone) this.#lingerTimer.unref()
  }

  destroy(): void {
    this.poller.destroy()
  }
}
