/**
 * The counters of all loops in one SharedArrayBuffer, so that any thread can read them at any time. Each loop
 * has a block of cache lines of its own: plain float64 cells that only the loop writes, and int32 cells that
 * the acceptor and the loop both change with Atomics.
 */
import assert from 'node:assert'
import { CLOSE_CODES, type CloseCode } from '../errors.js'

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
  /** Messages that a broadcast left out. */
  readonly slowConsumerDrops: number
  readonly handlerErrors: number
  readonly protocolErrors: number
  /** Calls of the poller into the loop, and the records in them. */
  readonly batches: number
  readonly batchRecords: number
  /** Time spent in the loop's callbacks, in ms. */
  readonly busyMs: number
}

export interface ServerStats {
  readonly loops: readonly LoopStats[]
  /** The sum over the loops. */
  readonly total: LoopStats
}

/** The float64 cells of a loop, by what they count. Closes by reason follow. */
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
} as const

type CellName = keyof typeof CELL
export type Cell = (typeof CELL)[CellName]

const CELL_NAMES = Object.keys(CELL) as CellName[]
const CLOSED_CELL = CELL_NAMES.length
const CELLS = CLOSED_CELL + CLOSE_CODES.length

const LINE_BYTES = 64
const LINE_INTS = LINE_BYTES / 4
/** The header is one line of int32 cells. */
const NUM_LOOPS = 0
const TOTAL_INBOUND = 1
/** A loop's block: one line of int32 cells, then the float64 cells. */
const INBOUND = 0
const OUTBOUND = 1
const REJECTED = 2
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
  release(loop: number): void {
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
    Atomics.store(this.#ints, line + OUTBOUND, 0)
    this.cellsOf(loop)[CELL.writeBufferBytes] = 0
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
    return {
      connections: this.connectionsOf(loop),
      rejected: Atomics.load(this.#ints, this.#line(loop) + REJECTED) >>> 0,
      ...byName((name) => cells[CELL[name]]!),
      closed: byReason((_, i) => cells[CLOSED_CELL + i]!),
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
    if (inbound) this.#shared.release(this.#loop)
    else this.#shared.addOutbound(this.#loop, -1)
  }
}

function byName(value: (name: CellName) => number): Record<CellName, number> {
  return Object.fromEntries(CELL_NAMES.map((name) => [name, value(name)])) as Record<CellName, number>
}

function byReason(value: (reason: CloseCode, i: number) => number): Record<CloseCode, number> {
  return Object.fromEntries(CLOSE_CODES.map((reason, i) => [reason, value(reason, i)])) as Record<
    CloseCode,
    number
  >
}

function sum(loops: readonly LoopStats[]): LoopStats {
  const add = (value: (loop: LoopStats) => number): number =>
    loops.reduce((all, loop) => all + value(loop), 0)
  return {
    connections: add((loop) => loop.connections),
    rejected: add((loop) => loop.rejected),
    ...byName((name) => add((loop) => loop[name])),
    closed: byReason((reason) => add((loop) => loop.closed[reason])),
  }
}
