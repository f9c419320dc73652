/**
 * One poller and the connections on it: turns the poller's reports into calls on connections, gathers what they send
 * in the poller's out slab, and flushes it with one write per connection. One per loop, and a second one when a loop
 * with the native poller makes a TLS connection. The loop's thread only.
 */
import {
  type AnyConnection,
  type AnyService,
  Flag,
  type Opening,
  TcpConnection,
} from '../connection/tcp-connection.js'
import type { CloseReason } from '../errors.js'
import type { BroadcastResult, LocalBroadcastOptions } from '../loop.js'
import { RingBufferPool } from '../ringbuffer/pool.js'
import { RingBuffer } from '../ringbuffer/ring-buffer.js'
import type { EventLoop } from './event-loop.js'
import { endpointText } from './poller/endpoint.js'
import {
  ACCEPT_RETRY_MS,
  COUNTED,
  type Endpoint,
  LINGER_MS,
  OUT_STRIDE,
  type Poller,
  type PollerConnectOptions,
  type PollerSink,
} from './poller/poller.js'
import { CELL, type LoopCounters, SAMPLE_MEAN } from './stats.js'
import { systemError } from './system-error.js'

/** The out ring of a slow peer may be large: keep few of them. */
const OUT_POOL = { maxBuffers: 256, initialCapacity: 16 * 1024, maxCapacity: 256 * 1024 }
const IN_POOL = { maxBuffers: 1024, initialCapacity: 4096, maxCapacity: 128 * 1024 }
/** At a low rate more messages are timed than one in SAMPLE_MEAN: the first after so long. */
const SAMPLE_MS = 10

/** Decides at accept whether a connection may come in, and counts it. */
export interface Admission {
  /** `false`: it is closed at once. */
  admit(fromMailbox: boolean): boolean
  /** One that may have been counted elsewhere never got here. */
  lose(fromMailbox: boolean): void
}

export class Transport implements PollerSink {
  readonly loop: EventLoop
  readonly poller: Poller
  readonly counters: LoopCounters
  /** The poller's out slab and how much of it is filled. */
  readonly slab: Buffer
  slabEnd = 0
  /** The one view through which protocols look at the in slab. */
  readonly view: RingBuffer = new RingBuffer(0)
  readonly pool: RingBufferPool = new RingBufferPool(IN_POOL)
  readonly outPool: RingBufferPool = new RingBufferPool(OUT_POOL)
  /** Counted here, a plain field each, and moved to the shared counters once per turn. */
  messagesIn = 0
  messagesOut = 0
  bytesIn = 0
  bytesOut = 0
  backlogBytes = 0
  /** Counts down to the message whose handler is timed. */
  untilTimed = 1
  /** How many messages the timed one stands for. */
  #timedFor = 1
  #timedAt = 0

  readonly #maxRecords: number
  #service: AnyService | undefined
  #admission: Admission | undefined
  #connections: (AnyConnection | undefined)[] = []
  #size = 0
  readonly #listeners: number[] = []
  #dirty: AnyConnection[] = []
  #spare: AnyConnection[] = []
  #reportedBacklog = 0
  #lingering = false

  constructor(loop: EventLoop, counters: LoopCounters, createPoller: (sink: PollerSink) => Poller) {
    this.loop = loop
    this.counters = counters
    this.poller = createPoller(this)
    this.slab = this.poller.outSlab
    this.#maxRecords = Math.floor(this.poller.outRecords.length / OUT_STRIDE)
    this.poller.setRef(false)
  }

  /** What accepted connections are served with, and who admits them. */
  serve(service: AnyService, admission: Admission): void {
    this.#service = service
    this.#admission = admission
  }

  /** Who comes from now on is turned away: the last connections have ended. */
  refuse(): void {
    this.#service = undefined
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

  connect(
    endpoint: Endpoint,
    options: PollerConnectOptions,
    service: AnyService,
    opening: Opening,
  ): AnyConnection {
    const slot = this.poller.connect(endpoint, options)
    if (slot < 0) throw systemError(slot, 'connect', endpointText(endpoint))
    const c = this.#add(slot, service, Flag.CONNECTING)
    c.setOpening(opening)
    return c
  }

  get size(): number {
    return this.#size
  }

  *connections(): IterableIterator<AnyConnection> {
    for (const c of this.#connections) {
      if (c !== undefined) yield c
    }
  }

  /** To every accepted connection whose handshake is over. */
  broadcast<Out>(out: Out, options: LocalBroadcastOptions<Out>, slow: CloseReason): BroadcastResult {
    const pack = this.#service?.protocol.broadcast?.(out)
    let sent = 0
    let dropped = 0
    let closed = 0
    for (const c of this.#connections) {
      if (c === undefined || !isReceiver(c) || options.filter?.(c) === false) continue
      if ((c.flags & Flag.THROTTLED) !== 0) {
        dropped++
        if (options.slow !== 'close') continue
        c.beginClose(slow)
        closed++
      } else if (pack === undefined) {
        c.send(out)
        sent++
      } else {
        const bytes = pack(c)
        if (bytes === undefined) continue
        this.messagesOut++
        c.sendRaw(bytes)
        sent++
      }
    }
    if (dropped > 0) this.counters.add(CELL.slowConsumerDrops, dropped)
    return { sent, dropped, closed }
  }

  // ---- the poller's reports ----------------------------------------------------------------------------------------

  handleBatchStart(): void {
    this.loop.beginTurn()
    if (((this.loop.now - this.#timedAt) | 0) >= SAMPLE_MS) this.#timeNext()
  }

  admit(): boolean {
    return this.#service !== undefined && this.#admission?.admit(false) === true
  }

  handleAccept(slot: number, listener: number): void {
    const service = this.#service
    if (service === undefined) this.handleLost(listener)
    if (service === undefined || this.#admission?.admit(listener === COUNTED) !== true) {
      this.poller.close(slot, false)
      return
    }
    this.counters.accepted()
    const c = this.#add(slot, service, Flag.INBOUND)
    c.handleOpen()
    if (this.loop.stopping) this.loop.drainLate(c)
  }

  handleLost(listener: number): void {
    this.#admission?.lose(listener === COUNTED)
  }

  handleConnect(slot: number): void {
    const c = this.#connections[slot]
    if (c === undefined) return
    this.counters.connected()
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

  handleHangup(slot: number): void {
    this.#connections[slot]?.handleHangup()
  }

  handleWritable(slot: number): void {
    this.#connections[slot]?.handleWritable()
  }

  handleAcceptError(listener: number, errno: number): void {
    const err = systemError(errno, 'accept')
    this.loop.logger.warn({ err }, `accepting pauses for ${ACCEPT_RETRY_MS} ms: ${err.message}`)
    this.loop.wheel.runAfter(ACCEPT_RETRY_MS, () => this.poller.setAccepting(listener, true))
  }

  handleFileLeft(err: NodeJS.ErrnoException): void {
    this.loop.logger.warn({ err }, `the file of the unix socket is left behind: ${err.message}`)
  }

  handleBatchEnd(count: number): void {
    this.loop.endTurn(count)
  }

  // ---- gathering and flushing --------------------------------------------------------------------------------------

  markDirty(c: AnyConnection): void {
    if ((c.flags & Flag.DIRTY) !== 0) return
    c.flags |= Flag.DIRTY
    this.#dirty.push(c)
    this.loop.scheduleTurn()
  }

  /**
   * Makes the end of the slab the place where `c` may put `length` more bytes. `false` when it may not: its bytes have
   * to go behind its backlog.
   */
  openSegment(c: AnyConnection, length: number): boolean {
    if (this.slab.length - this.slabEnd < length) {
      this.writeSlab()
      if (c.hasBacklog || (c.flags & Flag.BROKEN) !== 0) return false
    }
    if (c.outEnd === c.outStart) {
      c.outStart = this.slabEnd
      c.outEnd = this.slabEnd
      return true
    }
    if (c.outEnd === this.slabEnd) return true
    c.spillSegment(this.slab)
    return false
  }

  /** Writes every gathered segment. Calls no callback of the user's. */
  writeSlab(): void {
    if (this.slabEnd === 0) return
    const dirty = this.#dirty
    let from = 0
    while (from < dirty.length) from = this.#writeSegments(dirty, from)
    this.slabEnd = 0
  }

  #writeSegments(dirty: readonly AnyConnection[], from: number): number {
    const records = this.poller.outRecords
    let count = 0
    let to = from
    for (; to < dirty.length && count < this.#maxRecords; to++) {
      const c = dirty[to]!
      if (c.outEnd === c.outStart) continue
      const at = count * OUT_STRIDE
      records[at] = c.slot
      records[at + 1] = c.outStart
      records[at + 2] = c.outEnd - c.outStart
      count++
    }
    if (count > 0) {
      this.poller.flush(count)
      this.#settleSegments(dirty, from, to)
    }
    return to
  }

  #settleSegments(dirty: readonly AnyConnection[], from: number, to: number): void {
    const records = this.poller.outRecords
    const { now } = this.loop
    let at = 2
    for (let i = from; i < to; i++) {
      const c = dirty[i]!
      const length = c.outEnd - c.outStart
      if (length === 0) continue
      const taken = records[at]!
      at += OUT_STRIDE
      if (taken === length) {
        this.bytesOut += length
        c.lastActive = now
        c.outStart = 0
        c.outEnd = 0
        if ((c.flags & Flag.COUNTS) !== 0) c.countTaken(length)
      } else {
        c.handleSegment(this.slab, taken)
      }
    }
  }

  /** The end of a turn: everything gathered goes out, then what waited for that. `true`: there is more to do soon. */
  flush(): boolean {
    if (this.#dirty.length > 0) {
      this.writeSlab()
      const dirty = this.#dirty
      this.#dirty = this.#spare
      this.#afterFlush(dirty)
      dirty.length = 0
      this.#spare = dirty
    }
    this.#publishCounters()
    return this.#dirty.length > 0
  }

  #afterFlush(dirty: AnyConnection[]): void {
    let count = 0
    for (let i = 0; i < dirty.length; i++) {
      const c = dirty[i]!
      c.flags &= ~Flag.DIRTY
      if ((c.flags & Flag.AFTER_FLUSH) !== 0) dirty[count++] = c
    }
    for (let i = 0; i < count; i++) dirty[i]!.handleFlushed()
  }

  #publishCounters(): void {
    const { counters } = this
    counters.add(CELL.messagesIn, this.messagesIn)
    counters.add(CELL.messagesOut, this.messagesOut)
    counters.add(CELL.bytesIn, this.bytesIn)
    counters.add(CELL.bytesOut, this.bytesOut)
    this.messagesIn = 0
    this.messagesOut = 0
    this.bytesIn = 0
    this.bytesOut = 0
    if (this.backlogBytes === this.#reportedBacklog) return
    counters.add(CELL.writeBufferBytes, this.backlogBytes - this.#reportedBacklog)
    this.#reportedBacklog = this.backlogBytes
  }

  // ---- timing handlers ---------------------------------------------------------------------------------------------

  /** The next message is timed; with it, it stands for those since the last one. */
  #timeNext(): void {
    this.#timedFor += 1 - this.untilTimed
    this.untilTimed = 1
  }

  /** Calls `onMessage` and times it. Which message is next is drawn by lot: traffic may have a period of its own. */
  timeMessage(c: AnyConnection, ctx: unknown, data: Buffer): unknown {
    const messages = this.#timedFor
    this.#timedFor = 1 + Math.floor(Math.random() * (2 * SAMPLE_MEAN - 1))
    this.untilTimed = this.#timedFor
    this.#timedAt = this.loop.now
    const start = performance.now()
    try {
      return c.service.handler.onMessage(c, ctx, data)
    } finally {
      this.counters.addHandlerTime(performance.now() - start, messages)
    }
  }

  // ---- life --------------------------------------------------------------------------------------------------------

  #add(slot: number, service: AnyService, flags: number): AnyConnection {
    const c = new TcpConnection(this, service, slot, this.loop.nextConnectionId(), flags)
    while (this.#connections.length <= slot) this.#connections.push(undefined)
    this.#connections[slot] = c
    this.#size++
    if (this.#size === 1) this.#updateRef()
    return c
  }

  /** A connection gives its slot back. */
  release(c: AnyConnection, linger: boolean, reason: CloseReason): void {
    this.poller.close(c.slot, linger)
    this.#connections[c.slot] = undefined
    this.#size--
    if (this.#size === 0) this.#updateRef()
    if ((c.flags & Flag.CONNECTING) === 0) this.counters.closed(reason.code, (c.flags & Flag.INBOUND) !== 0)
    if (linger) this.#watchLingering()
  }

  #watchLingering(): void {
    if (this.#lingering) return
    this.#lingering = true
    const timer = this.loop.wheel.runAfter(LINGER_MS, () => {
      this.#lingering = false
      if (this.poller.expireLingering()) this.#watchLingering()
    })
    timer.unref()
  }

  #updateRef(): void {
    this.poller.setRef(this.#size > 0 || this.#listeners.length > 0)
  }

  destroy(): void {
    this.poller.destroy()
  }
}

function isReceiver(c: AnyConnection): boolean {
  return (c.flags & Flag.INBOUND) !== 0 && (c.flags & Flag.ESTABLISHED) !== 0 && c.connected
}
