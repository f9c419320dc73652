/**
 * The counters of all loops in one SharedArrayBuffer, so that any thread can read them at any time. Each loop
 * has a block of cache lines of its own: plain float64 cells that only the loop writes, and int32 cells that
 * the acceptor and the loop both change with Atomics.
 */
import assert from 'node:assert'
import type { BrokerStats } from '../broker/stats.js'
import { CLOSE_CODES, type CloseCode } from '../errors.js'
import { TLS_FAILURES, type TlsFailure } from '../tls-failure.js'

/** What one loop has counted since the server was started, or all loops together. */
export interface LoopStats {
  /**
   * Open now, both sides: accepted ones from the moment a loop was chosen for them, and those made by
   * `connect`.
   */
  readonly connections: number
  /** Accepted from a listener. */
  readonly accepted: number
  /** Closed at accept because of `maxConnections`. */
  readonly rejected: number
  /** Made by `connect`. */
  readonly connected: number
  /** Ended, by reason. */
  readonly closed: Readonly<Record<CloseCode, number>>
  /** Packets handed to `onMessage`. */
  readonly messagesIn: number
  /** Packets packed for sending. */
  readonly messagesOut: number
  readonly bytesIn: number
  readonly bytesOut: number
  /** Bytes that wait now because the peers are slower than we. */
  readonly writeBufferBytes: number
  /** Messages that a broadcast or a publication left out; one that left out the whole loop counts once. */
  readonly slowConsumerDrops: number
  readonly handlerErrors: number
  readonly protocolErrors: number
  /** TLS handshakes of accepted connections that went through, and those of them that resumed a session. */
  readonly tlsHandshakes: number
  readonly tlsResumed: number
  /** TLS that failed, in the handshake of an accepted connection or later, by reason. */
  readonly tlsFailures: Readonly<Record<TlsFailure, number>>
  /** Calls of the poller into the loop, and the records in them. */
  readonly batches: number
  readonly batchRecords: number
  /** Time spent in the poller's batches, in ms. */
  readonly busyMs: number
  /** Time that the thread ran and that it waited for events, in ms. Only with an extension that has `watchLoops`. */
  readonly activeMs: number
  readonly idleMs: number
  /** Threads that the loop has lost, tries to replace one that failed included. */
  readonly restarts: number
  /** Connections that ended without an `onClose`, because the thread died. */
  readonly lost: number
  /**
   * Milliseconds in `onMessage` until it returned; of a promise that is the part before it. Estimated from a sample: about
   * one message in 128 is timed and stands for those since the one before it.
   */
  readonly handlerTime: Histogram
  /** Milliseconds from the begin of a batch to the end of its flush: every batch. */
  readonly batchTime: Histogram
  /** Records per batch. */
  readonly batchSize: Histogram
  /** Milliseconds from the accept of a connection, or its hand-off to the loop, to the end of its TLS handshake. */
  readonly tlsHandshakeTime: Histogram
  /** Milliseconds by which a timer of the thread was late. Only with an extension that has `watchLoops`. */
  readonly loopDelay: Histogram
}

/** How often values fell between bounds. */
export interface Histogram {
  /** The upper bounds, inclusive, ascending. */
  readonly bounds: readonly number[]
  /** How many values fell at or below each bound and above the one before; one more at the end for those above all. */
  readonly counts: readonly number[]
  /** Of all values. */
  readonly count: number
  readonly sum: number
}

export interface ServerStats {
  readonly loops: readonly LoopStats[]
  /** The sum over the loops. */
  readonly total: LoopStats
  /** Of a server with a broker. */
  readonly broker?: BrokerStats
}

/** The float64 cells of a loop, by what they count. Closes and failures of TLS, by reason, follow. */
export const CELL = {
  accepted: 0,
  connected: 1,
  messagesIn: 2,
  messagesOut: 3,
  bytesIn: 4,
  bytesOut: 5,
  writeBufferBytes: 6,
  slowConsumerDrops: 7,
  handlerErrors: 8,
  protocolErrors: 9,
  batches: 10,
  batchRecords: 11,
  busyMs: 12,
  activeMs: 13,
  idleMs: 14,
  tlsHandshakes: 15,
  tlsResumed: 16,
} as const

type CellName = keyof typeof CELL
export type Cell = (typeof CELL)[CellName]

const CELL_NAMES = Object.keys(CELL) as CellName[]
const CLOSED_CELL = CELL_NAMES.length
const TLS_FAILED_CELL = CLOSED_CELL + CLOSE_CODES.length

/** The buckets of a histogram: their bounds are `first`, and each next one 2 ** `step` times the one before. */
class Scale {
  readonly bounds: readonly number[]
  /** The histogram's first cell holds the sum; a cell per bound and one for what is above them follow. */
  readonly cell: number
  readonly #first: number
  readonly #step: number

  constructor(cell: number, first: number, step: number, bounds: number) {
    this.cell = cell
    this.#first = first
    this.#step = step
    this.bounds = Array.from({ length: bounds }, (_, i) => first * 2 ** (step * i))
  }

  /** The cell that counts `value`. */
  cellOf(value: number): number {
    const units = Math.ceil(Math.min(value / this.#first, 2 ** 31)) - 1
    const bits = units > 0 ? 32 - Math.clz32(units) : 0
    const bucket = ((bits + this.#step - 1) / this.#step) | 0
    return this.cell + 1 + Math.min(bucket, this.bounds.length)
  }

  /** The first cell behind this histogram. */
  get end(): number {
    return this.cell + 2 + this.bounds.length
  }
}

/** 0.125 µs, about what reading the clock takes, to 1 s. */
const HANDLER_TIME = new Scale(TLS_FAILED_CELL + TLS_FAILURES.length, 0.000125, 1, 24)
/** 4 µs to 1 s. */
const BATCH_TIME = new Scale(HANDLER_TIME.end, 0.004, 2, 10)
/** 1 to 1024 records. */
const BATCH_SIZE = new Scale(BATCH_TIME.end, 1, 1, 11)
/** 1 ms to 2 s. */
const LOOP_DELAY = new Scale(BATCH_SIZE.end, 1, 1, 12)
/** 0.25 ms to 16 s. */
const TLS_TIME = new Scale(LOOP_DELAY.end, 0.25, 2, 9)
const CELLS = TLS_TIME.end

const LINE_BYTES = 64
const LINE_INTS = LINE_BYTES / 4
/** The header is one line of int32 cells. */
const NUM_LOOPS = 0
const TOTAL_INBOUND = 1
/** A loop's block: one line of int32 cells, then the float64 cells. */
const INBOUND = 0
const OUTBOUND = 1
const REJECTED = 2
const RESTARTS = 3
const LOST = 4
const LEFT_OUT = 5
const BLOCK_BYTES = LINE_BYTES + Math.ceil((CELLS * 8) / LINE_BYTES) * LINE_BYTES

/** The whole of the counters. Every thread makes its own view of the one `buffer`. */
export class SharedStats {
  readonly buffer: SharedArrayBuffer
  readonly numLoops: number
  readonly #ints: Int32Array

  /** Allocates zeroed counters, or views those in `buffer`. */
  constructor(numLoops: number, buffer?: SharedArrayBuffer) {
    const bytes = LINE_BYTES + numLoops * BLOCK_BYTES
    this.buffer = buffer ?? new SharedArrayBuffer(bytes)
    assert.equal(this.buffer.byteLength, bytes)
    this.numLoops = numLoops
    this.#ints = new Int32Array(this.buffer)
    this.#ints[NUM_LOOPS] = numLoops
  }

  /** A view of the counters that another thread has allocated. */
  static from(buffer: SharedArrayBuffer): SharedStats {
    return new SharedStats(new Int32Array(buffer)[NUM_LOOPS]!, buffer)
  }

  /** Accepted connections that are open now, over all loops: what `maxConnections` limits. */
  get inbound(): number {
    return Atomics.load(this.#ints, TOTAL_INBOUND)
  }

  /** Open connections of a loop, for the balancer. */
  connectionsOf(loop: number): number {
    const line = this.#line(loop)
    return Atomics.load(this.#ints, line + INBOUND) + Atomics.load(this.#ints, line + OUTBOUND)
  }

  /**
   * Counts an accepted connection as open on `loop`, from the moment it is assigned. Where that would be more
   * than `maxConnections` over all loops it is counted as rejected instead: `false`. Any thread.
   */
  admit(loop: number, maxConnections: number): boolean {
    const line = this.#line(loop)
    if (Atomics.add(this.#ints, TOTAL_INBOUND, 1) >= maxConnections) {
      Atomics.sub(this.#ints, TOTAL_INBOUND, 1)
      Atomics.add(this.#ints, line + REJECTED, 1)
      return false
    }
    Atomics.add(this.#ints, line + INBOUND, 1)
    return true
  }

  /** Takes back an `admit`, or ends it: the connection is open no more. Any thread. */
  leave(loop: number): void {
    Atomics.sub(this.#ints, this.#line(loop) + INBOUND, 1)
    Atomics.sub(this.#ints, TOTAL_INBOUND, 1)
  }

  /** Counts a connection made by `connect` as open (1) or ended (-1). */
  addOutbound(loop: number, change: 1 | -1): void {
    Atomics.add(this.#ints, this.#line(loop) + OUTBOUND, change)
  }

  /**
   * The thread of `loop` is gone and its connections with it. What was counted before stays. Not while it
   * runs.
   */
  resetLoop(loop: number): void {
    const line = this.#line(loop)
    const lost = Atomics.exchange(this.#ints, line + INBOUND, 0)
    Atomics.sub(this.#ints, TOTAL_INBOUND, lost)
    Atomics.add(this.#ints, line + LOST, lost + Atomics.exchange(this.#ints, line + OUTBOUND, 0))
    this.cellsOf(loop)[CELL.writeBufferBytes] = 0
  }

  /** The thread of `loop` has died by itself. */
  countRestart(loop: number): void {
    Atomics.add(this.#ints, this.#line(loop) + RESTARTS, 1)
  }

  /** So many loops did not get a publication that is counted with `loop`: one is too far behind. Any thread. */
  countLeftOut(loop: number, loops: number): void {
    Atomics.add(this.#ints, this.#line(loop) + LEFT_OUT, loops)
  }

  /** The float64 cells of a loop. Only that loop may write them. */
  cellsOf(loop: number): Float64Array {
    return new Float64Array(this.buffer, this.#line(loop) * 4 + LINE_BYTES, CELLS)
  }

  /**
   * Copies the counters. Each is exact; loops go on counting meanwhile, so they need not be of the same
   * instant.
   */
  snapshot(): ServerStats {
    const loops = Array.from({ length: this.numLoops }, (_, loop) => this.#snapshotOf(loop))
    return { loops, total: sum(loops) }
  }

  #snapshotOf(loop: number): LoopStats {
    const cells = this.cellsOf(loop)
    const line = this.#line(loop)
    const counted = byName((name) => cells[CELL[name]]!)
    const leftOut = Atomics.load(this.#ints, line + LEFT_OUT) >>> 0
    return {
      connections: this.connectionsOf(loop),
      rejected: Atomics.load(this.#ints, line + REJECTED) >>> 0,
      restarts: Atomics.load(this.#ints, line + RESTARTS) >>> 0,
      lost: Atomics.load(this.#ints, line + LOST) >>> 0,
      ...counted,
      slowConsumerDrops: counted.slowConsumerDrops + leftOut,
      closed: byReason(CLOSE_CODES, (_, i) => cells[CLOSED_CELL + i]!),
      tlsFailures: byReason(TLS_FAILURES, (_, i) => cells[TLS_FAILED_CELL + i]!),
      tlsHandshakeTime: histogramOf(TLS_TIME, cells),
      handlerTime: histogramOf(HANDLER_TIME, cells),
      batchTime: histogramOf(BATCH_TIME, cells),
      batchSize: histogramOf(BATCH_SIZE, cells),
      loopDelay: histogramOf(LOOP_DELAY, cells),
    }
  }

  /** Where a loop's int32 cells begin. */
  #line(loop: number): number {
    return LINE_INTS + (loop * BLOCK_BYTES) / 4
  }
}

/**
 * One loop's own view: `counters.add(CELL.bytesIn, n)` is a plain addition. Its loop's thread only.
 */
export class LoopCounters {
  readonly #shared: SharedStats
  readonly #loop: number
  readonly #cells: Float64Array

  constructor(shared: SharedStats, loop: number) {
    this.#shared = shared
    this.#loop = loop
    this.#cells = shared.cellsOf(loop)
  }

  add(cell: Cell, n: number): void {
    this.#cells[cell]! += n
  }

  /** A batch of the poller was handled. */
  addBatch(records: number, busyMs: number): void {
    const cells = this.#cells
    cells[CELL.batches]! += 1
    cells[CELL.batchRecords]! += records
    cells[CELL.busyMs]! += busyMs
    this.#observe(BATCH_SIZE, records, 1)
    this.#observe(BATCH_TIME, busyMs, 1)
  }

  /** `onMessage` took `ms`, and `messages - 1` that were not timed are taken to have done so too. */
  addHandlerTime(ms: number, messages: number): void {
    this.#observe(HANDLER_TIME, ms, messages)
  }

  /** A timer of the thread was `ms` late. */
  addDelay(ms: number): void {
    this.#observe(LOOP_DELAY, ms, 1)
  }

  /** The TLS handshake of an accepted connection is through. */
  addHandshake(ms: number, isResumed: boolean): void {
    this.add(CELL.tlsHandshakes, 1)
    if (isResumed) this.add(CELL.tlsResumed, 1)
    this.#observe(TLS_TIME, ms, 1)
  }

  addTlsFailure(failure: TlsFailure): void {
    this.#cells[TLS_FAILED_CELL + TLS_FAILURES.indexOf(failure)]! += 1
  }

  #observe(scale: Scale, value: number, times: number): void {
    const cells = this.#cells
    cells[scale.cell]! += value * times
    cells[scale.cellOf(value)]! += times
  }

  /** An admitted connection has arrived at its loop. */
  accepted(): void {
    this.add(CELL.accepted, 1)
  }

  /** `connect` has made a connection. */
  connected(): void {
    this.add(CELL.connected, 1)
    this.#shared.addOutbound(this.#loop, 1)
  }

  /** A connection has ended; `inbound`: it was accepted, not made by `connect`. */
  closed(reason: CloseCode, inbound: boolean): void {
    this.#cells[CLOSED_CELL + CLOSE_CODES.indexOf(reason)]! += 1
    if (inbound) this.#shared.leave(this.#loop)
    else this.#shared.addOutbound(this.#loop, -1)
  }
}

function byName(value: (name: CellName) => number): Record<CellName, number> {
  return Object.fromEntries(CELL_NAMES.map((name) => [name, value(name)])) as Record<CellName, number>
}

function byReason<Reason extends string>(
  reasons: readonly Reason[],
  value: (reason: Reason, i: number) => number,
): Record<Reason, number> {
  return Object.fromEntries(reasons.map((reason, i) => [reason, value(reason, i)])) as Record<Reason, number>
}

function histogramOf({ bounds, cell, end }: Scale, cells: Float64Array): Histogram {
  const counts = Array.from(cells.subarray(cell + 1, end))
  return { bounds, counts, count: counts.reduce((all, n) => all + n), sum: cells[cell]! }
}

function sumHistograms(each: readonly Histogram[]): Histogram {
  const { bounds } = each[0]!
  const counts = each[0]!.counts.map((_, i) => each.reduce((all, { counts }) => all + counts[i]!, 0))
  const add = (value: (histogram: Histogram) => number): number =>
    each.reduce((all, histogram) => all + value(histogram), 0)
  return { bounds, counts, count: add(({ count }) => count), sum: add(({ sum }) => sum) }
}

function sum(loops: readonly LoopStats[]): LoopStats {
  const add = (value: (loop: LoopStats) => number): number =>
    loops.reduce((all, loop) => all + value(loop), 0)
  return {
    connections: add((loop) => loop.connections),
    rejected: add((loop) => loop.rejected),
    restarts: add((loop) => loop.restarts),
    lost: add((loop) => loop.lost),
    ...byName((name) => add((loop) => loop[name])),
    closed: byReason(CLOSE_CODES, (reason) => add((loop) => loop.closed[reason])),
    tlsFailures: byReason(TLS_FAILURES, (reason) => add((loop) => loop.tlsFailures[reason])),
    tlsHandshakeTime: sumHistograms(loops.map((loop) => loop.tlsHandshakeTime)),
    handlerTime: sumHistograms(loops.map((loop) => loop.handlerTime)),
    batchTime: sumHistograms(loops.map((loop) => loop.batchTime)),
    batchSize: sumHistograms(loops.map((loop) => loop.batchSize)),
    loopDelay: sumHistograms(loops.map((loop) => loop.loopDelay)),
  }
}
