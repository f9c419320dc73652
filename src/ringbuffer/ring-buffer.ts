/**
 * A growing ring of bytes, and a view: the same reads on someone else's memory, without a copy. The ring owns its
 * storage; memory it is attached to stays its owner's and is never written. One thread only, and no locking.
 */
import assert from 'node:assert'
import { Buffer } from 'node:buffer'
import { allocateBuffer, bufferOn, LARGE_UP_TO, largeSlab, smallSlab } from './slab.js'

/*
 *   in one piece                              across the wrap
 *
 *        start    start + virtual                  write position   start
 *        │        │                                │                │
 *   ┌────┬────────┬────────────────┬──────┐   ┌────┬────────────────┬────────────┐
 *   │free│ read   │ still to       │ free │   │the │ free           │ the first  │
 *   │    │virtual.│ be read        │      │   │rest│                │ bytes      │
 *   └────┴────────┴────────────────┴──────┘   └────┴────────────────┴────────────┘
 *   0    └──────── length ─────────┘      size                      └ contiguous ┘
 *
 * Only counts are kept: `length` bytes are readable, the first `virtual` of them have been read virtually. Empty, full,
 * the write position and the virtual position follow from them, so no two of them can disagree. A view is the first
 * picture with `size` at its end: it never wraps.
 */

// The thresholds are measured, on Node 20: a native call needs a view of the range, which costs about as much as these.
const LOOP_COPY_BELOW = 36
const LOOP_SEARCH_BELOW = 64
const WORD_COPY_UP_TO = 96

const NO_STORAGE: Buffer = Buffer.alloc(0)
const NO_WINDOW: DataView = new DataView(NO_STORAGE.buffer)

/** Thrown by {@link RingBuffer}, before anything was changed. */
export class RingBufferError extends RangeError {
  override readonly name = 'RingBufferError'
  /** `…_LIMIT`: a write does not fit within `maxCapacity`; `…_UNDERFLOW`: fewer bytes are readable than asked for. */
  readonly code: 'ERR_RINGLOOP_BUFFER_LIMIT' | 'ERR_RINGLOOP_BUFFER_UNDERFLOW'

  constructor(code: RingBufferError['code'], message: string) {
    super(message)
    this.code = code
  }
}

/**
 * A first-in-first-out of bytes that grows by doubling. Offsets count from the first readable byte. Whatever consumes
 * (`retrieve`, `read…`, `take`) also ends a virtual read, as in gev.
 */
export class RingBuffer {
  /** `true` while it lies in a `RingBufferPool`, which sets it: nobody may use it then. */
  pooled = false

  readonly #initialCapacity: number
  readonly #maxCapacity: number
  /** Where the readable bytes are: `#own`, or the foreign memory of a view. */
  #storage = NO_STORAGE
  #own = NO_STORAGE
  #size = 0
  #start = 0
  #length = 0
  #virtual = 0
  #isView = false
  /** The memory that what is taken is a view of; `undefined`: it is a copy. */
  #given: ArrayBufferLike | undefined = undefined
  /** For copies by the word; made when first needed on a storage, and kept while that is the same. */
  #window = NO_WINDOW
  #windowed = NO_STORAGE
  #known = NO_STORAGE
  #memory: ArrayBufferLike = NO_STORAGE.buffer

  /**
   * @param capacity bytes of the first storage, which is made by the first write
   * @param maxCapacity bytes it may grow to; a write beyond throws `ERR_RINGLOOP_BUFFER_LIMIT` and changes nothing
   */
  constructor(capacity = 4096, maxCapacity: number = Number.POSITIVE_INFINITY) {
    this.#initialCapacity = Math.min(capacity, maxCapacity)
    this.#maxCapacity = maxCapacity
  }

  /** Readable bytes. */
  get length(): number {
    return this.#length
  }

  /** Bytes it can hold without growing; of a view: its length, since every write to it needs new memory. */
  get capacity(): number {
    if (this.#isView) return this.#length
    return this.#size === 0 ? this.#initialCapacity : this.#size
  }

  get isEmpty(): boolean {
    return this.#length === 0
  }

  /** The next write grows it. */
  get isFull(): boolean {
    return this.#length !== 0 && this.#length === this.capacity
  }

  /** Reads go to memory that was attached. */
  get isView(): boolean {
    return this.#isView
  }

  /** Readable bytes that were not yet read virtually. */
  get virtualLength(): number {
    return this.#length - this.#virtual
  }

  /** The memory behind it, for parsers that read by index; valid until the next write, `attach` or `linearize`. */
  get storage(): Buffer {
    return this.#storage
  }

  /** Index in {@link storage} of the first readable byte. */
  get start(): number {
    return this.#start
  }

  /** Readable bytes from {@link start} on that lie in one piece; the rest, if any, goes on at index 0. */
  get contiguous(): number {
    return Math.min(this.#length, this.#size - this.#start)
  }

  /** Appends a copy of the bytes; returns how many. */
  write(bytes: Uint8Array): number {
    return this.writeRange(bytes, 0, bytes.length)
  }

  /**
   * Appends a copy of `source[start…end)`, cut to what `source` has, without a view being made for it where that is
   * faster; returns how many bytes.
   */
  writeRange(source: Uint8Array, start: number, end: number): number {
    const from = Math.max(0, start)
    const to = Math.min(end, source.length)
    if (to <= from) return 0
    this.#reserve(to - from)
    const at = this.#writePosition()
    const cut = Math.min(to, from + this.#size - at)
    copyRange(source, from, cut, this.#storage, at)
    if (cut < to) copyRange(source, cut, to, this.#storage, 0)
    this.#length += to - from
    return to - from
  }

  /** Appends one byte (the low 8 bits). */
  writeByte(byte: number): void {
    this.#reserve(1)
    this.#storage[this.#writePosition()] = byte
    this.#length++
  }

  /** Appends the encoded text (default UTF-8); returns how many bytes that were. */
  writeString(text: string, encoding: BufferEncoding = 'utf8'): number {
    const count = Buffer.byteLength(text, encoding)
    if (count === 0) return 0
    this.#reserve(count)
    const at = this.#writePosition()
    if (count > this.#size - at) return this.write(Buffer.from(text, encoding))
    const written = this.#storage.write(text, at, count, encoding)
    this.#length += written
    return written
  }

  /** Moves up to `target.length` bytes into `target`; returns how many. */
  read(target: Uint8Array): number {
    const count = this.copyTo(target)
    this.retrieve(count)
    return count
  }

  /**
   * Moves the first `length` bytes into a buffer of the caller's own, cut from a shared slab where it is small; after
   * {@link attachCopy} it is a view of that copy.
   * Throws `ERR_RINGLOOP_BUFFER_UNDERFLOW` where there are fewer.
   */
  take(length: number): Buffer {
    this.#need(0, length)
    let taken: Buffer
    if (this.#given !== undefined) {
      taken = bufferOn(this.#given, this.#start, length)
    } else if (length > WORD_COPY_UP_TO || length > this.#size - this.#start) {
      taken = allocateBuffer(length)
      this.#copyOut(taken, 0, 0, length)
    } else {
      const at = smallSlab.reserve(length)
      copyWords(this.#windowOnStorage(), this.#start, smallSlab.window, at, length)
      taken = smallSlab.cut(at, length)
    }
    this.retrieve(length)
    return taken
  }

  /** Moves the first `count` bytes to the end of another ring. Throws `ERR_RINGLOOP_BUFFER_UNDERFLOW` where there are fewer. */
  moveTo(target: RingBuffer, count: number): void {
    this.#need(0, count)
    const inOnePiece = Math.min(count, this.contiguous)
    target.writeRange(this.#storage, this.#start, this.#start + inOnePiece)
    if (inOnePiece < count) target.writeRange(this.#storage, 0, count - inOnePiece)
    this.retrieve(count)
  }

  /** Copies the readable bytes `from…to` into `target`, as many as fit, and consumes none; returns how many. */
  copyTo(target: Uint8Array, targetStart = 0, from = 0, to: number = this.#length): number {
    const first = Math.max(0, from)
    const count = Math.min(Math.min(to, this.#length) - first, target.length - targetStart)
    if (count <= 0) return 0
    this.#copyOut(target, targetStart, first, count)
    return count
  }

  /** A copy of all readable bytes. */
  bytes(): Buffer {
    const copy = Buffer.allocUnsafe(this.#length)
    this.#copyOut(copy, 0, 0, this.#length)
    return copy
  }

  /** All readable bytes as text; consumes none. */
  toString(encoding: BufferEncoding = 'utf8'): string {
    return this.peekAll().toString(encoding)
  }

  /**
   * At most the first `length` bytes, consuming none: a view of this ring's memory where they lie in one piece, valid
   * until the next write, `attach` or `linearize`; a copy where they wrap.
   */
  peek(length: number): Buffer {
    const count = Math.max(0, Math.min(length, this.#length))
    if (count <= this.contiguous) return this.#storage.subarray(this.#start, this.#start + count)
    const joined = Buffer.allocUnsafe(count)
    this.#copyOut(joined, 0, 0, count)
    return joined
  }

  /** All readable bytes, as by {@link peek}. */
  peekAll(): Buffer {
    return this.peek(this.#length)
  }

  /** The byte at `offset`; throws `ERR_RINGLOOP_BUFFER_UNDERFLOW` beyond the end, as do all reads of numbers. */
  byteAt(offset: number): number {
    this.#need(offset, 1)
    return this.#at(offset)
  }

  /**
   * The offset of the first such byte, or sequence of bytes (a string is taken as UTF-8), at or after `from`; -1 where
   * there is none. Sequences are found across the wrap.
   */
  indexOf(value: number | Uint8Array | string, from = 0): number {
    const first = Math.max(0, from)
    if (typeof value === 'number') return this.#indexOfByte(value & 0xff, first)
    const sequence = typeof value === 'string' ? Buffer.from(value) : value
    if (sequence.length === 0) return Math.min(first, this.#length)
    if (sequence.length === 1) return this.#indexOfByte(sequence[0]!, first)
    if (this.#length !== this.contiguous) return this.#indexOfWrapped(sequence, first)
    const found = this.#storage.subarray(this.#start + first, this.#start + this.#length).indexOf(sequence)
    return found === -1 ? -1 : first + found
  }

  peekUint8(offset = 0): number {
    this.#need(offset, 1)
    return this.#at(offset)
  }

  /** Big-endian, as all without `LE`. */
  peekUint16(offset = 0): number {
    this.#need(offset, 2)
    return (this.#at(offset) << 8) | this.#at(offset + 1)
  }

  peekUint16LE(offset = 0): number {
    this.#need(offset, 2)
    return this.#at(offset) | (this.#at(offset + 1) << 8)
  }

  peekUint32(offset = 0): number {
    this.#need(offset, 4)
    const low = (this.#at(offset + 1) << 16) | (this.#at(offset + 2) << 8) | this.#at(offset + 3)
    return this.#at(offset) * 0x1000000 + low
  }

  peekUint32LE(offset = 0): number {
    this.#need(offset, 4)
    const low = this.#at(offset) | (this.#at(offset + 1) << 8) | (this.#at(offset + 2) << 16)
    return this.#at(offset + 3) * 0x1000000 + low
  }

  peekUint64(offset = 0): bigint {
    this.#need(offset, 8)
    return (BigInt(this.peekUint32(offset)) << 32n) | BigInt(this.peekUint32(offset + 4))
  }

  peekUint64LE(offset = 0): bigint {
    this.#need(offset, 8)
    return (BigInt(this.peekUint32LE(offset + 4)) << 32n) | BigInt(this.peekUint32LE(offset))
  }

  /** Takes one byte out. */
  readByte(): number {
    return this.readUint8()
  }

  readUint8(): number {
    const value = this.peekUint8()
    this.retrieve(1)
    return value
  }

  readUint16(): number {
    const value = this.peekUint16()
    this.retrieve(2)
    return value
  }

  readUint16LE(): number {
    const value = this.peekUint16LE()
    this.retrieve(2)
    return value
  }

  readUint32(): number {
    const value = this.peekUint32()
    this.retrieve(4)
    return value
  }

  readUint32LE(): number {
    const value = this.peekUint32LE()
    this.retrieve(4)
    return value
  }

  readUint64(): bigint {
    const value = this.peekUint64()
    this.retrieve(8)
    return value
  }

  readUint64LE(): bigint {
    const value = this.peekUint64LE()
    this.retrieve(8)
    return value
  }

  /** Drops the first `count` bytes; all of them where there are fewer. */
  retrieve(count: number): void {
    if (count >= this.#length) {
      this.retrieveAll()
    } else if (count > 0) {
      const start = this.#start + count
      this.#start = start < this.#size ? start : start - this.#size
      this.#length -= count
      this.#virtual = 0
    }
  }

  /** Drops all bytes and keeps the storage. What is written next lies in one piece. */
  retrieveAll(): void {
    this.#start = 0
    this.#length = 0
    this.#virtual = 0
  }

  /** Copies the next bytes into `target` and moves the virtual position, but consumes none; returns how many. */
  virtualRead(target: Uint8Array): number {
    const count = this.copyTo(target, 0, this.#virtual)
    this.#virtual += count
    return count
  }

  /** Consumes what was read virtually. */
  virtualFlush(): void {
    this.retrieve(this.#virtual)
  }

  /** Forgets the virtual reads: the next one begins at the first readable byte again. */
  virtualRevert(): void {
    this.#virtual = 0
  }

  /**
   * Takes `bytes` as its storage, all of it readable, and drops what was there. The memory is the ring's from then on:
   * later writes go into it.
   */
  withData(bytes: Uint8Array): void {
    if (bytes.length > this.#maxCapacity) throw limitError(bytes.length, this.#maxCapacity)
    this.#use(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length), bytes.length)
  }

  /**
   * Reads from `storage[start…end)` from now on, without a copy. The memory must stay as it is until {@link detach};
   * a write before that moves the readable bytes into the ring's own storage. The ring must be empty or a view.
   */
  attach(storage: Buffer, start: number, end: number): void {
    if (start < 0 || end < start || end > storage.length) assert.fail('attach needs a range of the storage')
    if (this.#length !== 0 && !this.#isView) assert.fail('attach would lose the bytes in the ring')
    this.#storage = storage
    this.#size = end
    this.#start = start
    this.#length = end - start
    this.#virtual = 0
    this.#isView = true
    this.#given = undefined
  }

  /**
   * As {@link attach}, on a copy that belongs to whoever takes of it: each `take` is a view and copies nothing more. For
   * many small packets that is one copy instead of many. A range above 16 KiB is attached as it is.
   */
  attachCopy(storage: Buffer, start: number, end: number): void {
    const length = end - start
    if (length > LARGE_UP_TO) {
      this.attach(storage, start, end)
      return
    }
    const at = largeSlab.reserve(length)
    const { bytes } = largeSlab
    bytes.set(new Uint8Array(this.#memoryOf(storage), storage.byteOffset + start, length), at)
    this.attach(bytes, at, at + length)
    this.#given = largeSlab.memory
  }

  /** Lets go of attached memory and its bytes; a ring that owns its bytes is emptied. */
  detach(): void {
    this.#storage = this.#own
    this.#size = this.#own.length
    this.#isView = false
    this.#given = undefined
    this.retrieveAll()
  }

  /** Empty, detached, as new; the storage is kept. */
  reset(): void {
    this.detach()
    this.#window = NO_WINDOW
    this.#windowed = NO_STORAGE
    this.#known = NO_STORAGE
    this.#memory = NO_STORAGE.buffer
  }

  /** Moves the bytes, if they wrap, so that all of them lie in one piece. */
  linearize(): void {
    const head = this.contiguous
    const tail = this.#length - head
    if (tail === 0) return
    const storage = this.#storage
    if (tail <= head) {
      const kept = Buffer.from(storage.subarray(0, tail))
      storage.copyWithin(0, this.#start, this.#size)
      storage.set(kept, head)
    } else {
      const kept = Buffer.from(storage.subarray(this.#start, this.#size))
      storage.copyWithin(head, 0, tail)
      storage.set(kept, 0)
    }
    this.#start = 0
  }

  /** Of what is attached again and again: to ask a buffer for its memory costs more than the copy of a small packet. */
  #memoryOf(storage: Buffer): ArrayBufferLike {
    if (this.#known !== storage) {
      this.#known = storage
      this.#memory = storage.buffer
    }
    return this.#memory
  }

  #windowOnStorage(): DataView {
    const storage = this.#storage
    if (this.#windowed !== storage) {
      this.#windowed = storage
      this.#window = new DataView(storage.buffer, storage.byteOffset, storage.length)
    }
    return this.#window
  }

  #at(offset: number): number {
    const index = this.#start + offset
    return this.#storage[index < this.#size ? index : index - this.#size]!
  }

  #writePosition(): number {
    const index = this.#start + this.#length
    return index < this.#size ? index : index - this.#size
  }

  #need(offset: number, count: number): void {
    if (!(offset >= 0 && count >= 0 && offset + count <= this.#length))
      throw underflowError(offset, count, this.#length)
  }

  /** Copies `count` readable bytes; the caller has checked that they are there and fit. */
  #copyOut(target: Uint8Array, targetStart: number, from: number, count: number): void {
    const start = this.#start + from
    const toEnd = this.#size - start
    if (count <= toEnd) {
      copyRange(this.#storage, start, start + count, target, targetStart)
    } else if (toEnd <= 0) {
      copyRange(this.#storage, -toEnd, count - toEnd, target, targetStart)
    } else {
      copyRange(this.#storage, start, this.#size, target, targetStart)
      copyRange(this.#storage, 0, count - toEnd, target, targetStart + toEnd)
    }
  }

  #indexOfByte(byte: number, from: number): number {
    const head = this.contiguous
    if (from < head) {
      const found = findByte(this.#storage, byte, this.#start + from, this.#start + head)
      if (found !== -1) return found - this.#start
    }
    const tail = this.#length - head
    const found = findByte(this.#storage, byte, Math.max(0, from - head), tail)
    return found === -1 ? -1 : head + found
  }

  #indexOfWrapped(sequence: Uint8Array, from: number): number {
    const last = this.#length - sequence.length
    let at = this.#indexOfByte(sequence[0]!, from)
    while (at !== -1 && at <= last) {
      if (this.#matches(sequence, at)) return at
      at = this.#indexOfByte(sequence[0]!, at + 1)
    }
    return -1
  }

  #matches(sequence: Uint8Array, at: number): boolean {
    for (let i = 1; i < sequence.length; i++) {
      if (this.#at(at + i) !== sequence[i]) return false
    }
    return true
  }

  /** Makes room for `count` more bytes in storage of its own. */
  #reserve(count: number): void {
    const needed = this.#length + count
    if (needed <= this.#size && !this.#isView) return
    if (needed > this.#maxCapacity) throw limitError(needed, this.#maxCapacity)
    const virtual = this.#virtual
    const next = this.#own.length >= needed ? this.#own : this.#allocate(needed)
    this.#copyOut(next, 0, 0, this.#length)
    this.#use(next, this.#length)
    this.#virtual = virtual
  }

  #allocate(needed: number): Buffer {
    let size = this.#initialCapacity
    if (size < needed) size = 2 ** Math.ceil(Math.log2(needed))
    return Buffer.allocUnsafeSlow(Math.min(size, this.#maxCapacity))
  }

  #use(own: Buffer, length: number): void {
    this.#own = own
    this.#storage = own
    this.#size = own.length
    this.#start = 0
    this.#length = length
    this.#virtual = 0
    this.#isView = false
    this.#given = undefined
  }
}

function copyWords(source: DataView, start: number, target: DataView, at: number, length: number): void {
  const end = start + length
  const lastWord = end - 4
  let from = start
  let to = at
  for (; from <= lastWord; from += 4, to += 4) target.setUint32(to, source.getUint32(from, true), true)
  for (; from < end; from++, to++) target.setUint8(to, source.getUint8(from))
}

function copyRange(source: Uint8Array, start: number, end: number, target: Uint8Array, at: number): void {
  if (end - start < LOOP_COPY_BELOW) {
    for (let from = start, to = at; from < end; ) target[to++] = source[from++]!
  } else if (end - start === source.length) {
    target.set(source, at)
  } else {
    target.set(new Uint8Array(source.buffer, source.byteOffset + start, end - start), at)
  }
}

function findByte(bytes: Buffer, byte: number, start: number, end: number): number {
  if (end - start < LOOP_SEARCH_BELOW) {
    for (let i = start; i < end; i++) if (bytes[i] === byte) return i
    return -1
  }
  const found = bytes.subarray(start, end).indexOf(byte)
  return found === -1 ? -1 : start + found
}

function limitError(needed: number, limit: number): RingBufferError {
  return new RingBufferError(
    'ERR_RINGLOOP_BUFFER_LIMIT',
    `${needed} bytes do not fit in a buffer limited to ${limit}`,
  )
}

function underflowError(offset: number, count: number, length: number): RingBufferError {
  return new RingBufferError(
    'ERR_RINGLOOP_BUFFER_UNDERFLOW',
    `${count} bytes at offset ${offset} were asked for, ${length} bytes are readable`,
  )
}
