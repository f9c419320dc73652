/**
 * The out slab of a poller: small answers of a turn are gathered here and go out with one write per connection. The
 * bytes of one connection lie together as its segment; the bounds of all segments are two tables by slot, so that a
 * connection with nothing to send takes no room for it. Also the list of who has something to do at the next flush.
 * The memory is the poller's. The loop's thread only.
 */
import assert from 'node:assert'
import type { AnyConnection, OutSegments, SegmentOwner } from '../connection/host.js'
import { OUT_STRIDE, type Poller } from './poller/poller.js'

/** What a slot on the list of the next flush is there for. */
const GATHERED = 1
const AFTER_FLUSH = 2
const FIRST_SLOTS = 64

export class OutSlab implements OutSegments {
  readonly bytes: Buffer
  readonly capacity: number
  readonly #poller: Poller
  /** The connections by slot; the table's. */
  readonly #connections: readonly (AnyConnection | undefined)[]
  readonly #onDirty: () => void
  readonly #maxRecords: number
  /** How much of the slab is filled. */
  #end = 0
  #starts = new Int32Array(FIRST_SLOTS)
  #ends = new Int32Array(FIRST_SLOTS)
  #marks = new Uint8Array(FIRST_SLOTS)
  /** The slots that have a mark. */
  #dirty: number[] = []
  #spare: number[] = []

  /** `onDirty` is called whenever there is something to flush that was not there before. */
  constructor(poller: Poller, connections: readonly (AnyConnection | undefined)[], onDirty: () => void) {
    this.bytes = poller.outSlab
    this.capacity = poller.outSlab.length
    this.#poller = poller
    this.#connections = connections
    this.#onDirty = onDirty
    this.#maxRecords = Math.floor(poller.outRecords.length / OUT_STRIDE)
  }

  /** A connection got `slot`. */
  addSlot(slot: number): void {
    if (slot >= this.#marks.length) this.#grow(slot)
    this.drop(slot)
  }

  #grow(slot: number): void {
    const length = Math.max(slot + 1, this.#marks.length * 2)
    const starts = new Int32Array(length)
    const ends = new Int32Array(length)
    const marks = new Uint8Array(length)
    starts.set(this.#starts)
    ends.set(this.#ends)
    marks.set(this.#marks)
    this.#starts = starts
    this.#ends = ends
    this.#marks = marks
  }

  open(c: SegmentOwner, length: number): number {
    if (this.bytes.length - this.#end < length) {
      this.write()
      if (c.hasBacklog || c.isBroken || this.bytes.length < length) return -1
    }
    const { slot } = c
    const start = this.#starts[slot]!
    const end = this.#ends[slot]!
    if (end === start) {
      this.#starts[slot] = this.#end
      this.#ends[slot] = this.#end
      return this.#end
    }
    if (end === this.#end) return end
    this.drop(slot)
    c.spillSegment(this.bytes, start, end)
    return -1
  }

  close(c: SegmentOwner, at: number, end: number): void {
    if (at !== this.#end) assert.fail('a protocol must not send from within packetInto')
    this.#end = end
    this.#ends[c.slot] = end
    this.#mark(c.slot, GATHERED)
  }

  writeBehind(c: SegmentOwner, bytes: Uint8Array): number {
    const { slot } = c
    const start = this.#starts[slot]!
    const end = this.#ends[slot]!
    const taken = this.#poller.writeBehind(slot, start, end - start, bytes)
    this.drop(slot)
    if (taken < end - start) {
      c.handleShortSegment(this.bytes, start, end, taken)
      return 0
    }
    c.tookBytes(end - start)
    return taken - (end - start)
  }

  gathered(slot: number): number {
    return this.#ends[slot]! - this.#starts[slot]!
  }

  drop(slot: number): void {
    this.#starts[slot] = 0
    this.#ends[slot] = 0
  }

  afterFlush(slot: number): void {
    if (slot >= 0) this.#mark(slot, AFTER_FLUSH)
  }

  #mark(slot: number, mark: number): void {
    const marks = this.#marks[slot]!
    if ((marks & mark) !== 0) return
    this.#marks[slot] = marks | mark
    if (marks !== 0) return
    this.#dirty.push(slot)
    this.#onDirty()
  }

  write(): void {
    if (this.#end === 0) return
    let from = 0
    while (from < this.#dirty.length) from = this.#writeSegments(from)
    this.#end = 0
  }

  /** Writes as many segments as there is room for in the poller's table; returns how far it got. */
  #writeSegments(from: number): number {
    const dirty = this.#dirty
    const records = this.#poller.outRecords
    let count = 0
    let to = from
    for (; to < dirty.length && count < this.#maxRecords; to++) {
      const slot = dirty[to]!
      const start = this.#starts[slot]!
      const end = this.#ends[slot]!
      if (end === start) continue
      const at = count * OUT_STRIDE
      records[at] = slot
      records[at + 1] = start
      records[at + 2] = end - start
      count++
    }
    if (count > 0) {
      this.#poller.flush(count)
      this.#settleSegments(from, to)
    }
    return to
  }

  #settleSegments(from: number, to: number): void {
    const dirty = this.#dirty
    const records = this.#poller.outRecords
    let at = OUT_STRIDE - 1
    for (let i = from; i < to; i++) {
      const slot = dirty[i]!
      const start = this.#starts[slot]!
      const end = this.#ends[slot]!
      if (end === start) continue
      const taken = records[at]!
      at += OUT_STRIDE
      this.drop(slot)
      const c = this.#connections[slot]!
      if (taken === end - start) c.tookBytes(taken)
      else c.handleShortSegment(this.bytes, start, end, taken)
    }
  }

  /** There is something to flush. */
  get isDirty(): boolean {
    return this.#dirty.length > 0
  }

  /** The end of a turn: everything gathered goes out, then what waited for that. */
  flush(): void {
    if (this.#dirty.length > 0) {
      this.write()
      const dirty = this.#dirty
      this.#dirty = this.#spare
      this.#callAfterFlush(dirty)
      dirty.length = 0
      this.#spare = dirty
    }
  }

  #callAfterFlush(dirty: number[]): void {
    let count = 0
    for (let i = 0; i < dirty.length; i++) {
      const slot = dirty[i]!
      if ((this.#marks[slot]! & AFTER_FLUSH) !== 0) dirty[count++] = slot
      this.#marks[slot] = 0
    }
    for (let i = 0; i < count; i++) this.#connections[dirty[i]!]?.handleFlushed()
  }
}
