/**
 * A poller without a system: the test says what each socket does and sees what was asked of it. It holds its user to the
 * contract of src/loop/poller/poller.ts: what breaks it is noted in `violations`.
 */
import {
  type Endpoint,
  type Listening,
  OUT_STRIDE,
  type Poller,
  type PollerConnectOptions,
  type PollerSink,
} from '../src/loop/poller/poller.js'
import { errno } from '../src/system-error.js'

/** One socket as the test sees it. */
export class FakeSocket {
  readonly slot: number
  readonly #poller: FakePoller
  /** What the kernel has taken. */
  get out(): Buffer {
    if (this.#taken.length > 1) this.#taken = [Buffer.concat(this.#taken)]
    return this.#taken[0] ?? Buffer.alloc(0)
  }
  #taken: Buffer[] = []
  /** Asked at each write: how many of the offered bytes are taken, or a negative errno. */
  room: (offered: number) => number = (offered: number) => offered
  /** The sizes offered, one write after another. */
  readonly offers: number[] = []
  reading: boolean
  /** A write was short and there is no room yet. */
  awaitsRoom = false
  shut = false
  ended = false
  broken = false
  closed: 'at once' | 'lingering' | 'reset' | undefined = undefined

  constructor(poller: FakePoller, slot: number, reading: boolean) {
    this.#poller = poller
    this.slot = slot
    this.reading = reading
  }

  take(bytes: Uint8Array): void {
    this.#taken.push(Buffer.from(bytes))
  }

  /** The peer sends: `false` when nobody reads it now. */
  read(bytes: Uint8Array | string): boolean {
    if (!this.reading || this.closed !== undefined || this.ended || this.broken) return false
    const data = Buffer.from(bytes as string)
    this.#poller.batch((sink) => {
      sink.handleRead(this.slot, data, 0, data.length)
      data.fill(0xdd)
    })
    return true
  }

  end(): boolean {
    if (!this.reading || this.closed !== undefined || this.ended || this.broken) return false
    this.ended = true
    this.#poller.batch((sink) => sink.handleEnd(this.slot))
    return true
  }

  /** The peer ends its side behind bytes that are not read. */
  leave(): void {
    this.#poller.batch((sink) => sink.handleLeft(this.slot))
  }

  /** A reset: an error where it is read, a hangup where not. */
  reset(reason: number = errno.ECONNRESET): void {
    if (this.closed !== undefined || this.broken) return
    this.room = () => reason
    if (this.reading && !this.ended) {
      this.broken = true
      this.#poller.batch((sink) => sink.handleError(this.slot, reason))
    } else {
      this.pendingError = reason
      this.#poller.batch((sink) => sink.handleHangup(this.slot))
    }
  }

  /** After a hangup: what the next read finds. */
  pendingError = 0

  /** Reports the error that a hangup left behind, once reading is on. */
  readError(): boolean {
    if (this.pendingError === 0 || !this.reading || this.closed !== undefined || this.broken) return false
    this.broken = true
    this.#poller.batch((sink) => sink.handleError(this.slot, this.pendingError))
    return true
  }

  /** Room again. */
  drain(): boolean {
    if (!this.awaitsRoom || this.closed !== undefined || this.broken) return false
    this.awaitsRoom = false
    this.#poller.batch((sink) => sink.handleWritable(this.slot))
    return true
  }
}

export class FakePoller implements Poller {
  readonly kind = 'net'
  readonly outSlab: Buffer
  readonly outRecords: Int32Array
  readonly #sink: PollerSink
  readonly violations: string[] = []
  /** By slot; a slot is used again as soon as it was given back. */
  readonly sockets: (FakeSocket | undefined)[] = []
  /** All that there ever were. */
  readonly all: FakeSocket[] = []
  destroyed = false
  referenced = true

  constructor(sink: PollerSink, slabBytes: number = 256 * 1024, records: number = 64) {
    this.#sink = sink
    this.outSlab = Buffer.alloc(slabBytes)
    this.outRecords = new Int32Array(records * OUT_STRIDE)
  }

  batch(report: (sink: PollerSink) => void): void {
    this.#sink.handleBatchStart()
    report(this.#sink)
    this.#sink.handleBatchEnd(1)
  }

  #add(reading: boolean): FakeSocket {
    let slot = this.sockets.indexOf(undefined)
    if (slot < 0) slot = this.sockets.length
    const socket = new FakeSocket(this, slot, reading)
    this.sockets[slot] = socket
    this.all.push(socket)
    return socket
  }

  /** A peer connects. */
  accept(): FakeSocket {
    const socket = this.#add(true)
    this.batch((sink) => sink.handleAccept(socket.slot, 0))
    return socket
  }

  /** The last `connect` is through. */
  finishConnect(socket: FakeSocket): void {
    socket.reading = true
    this.batch((sink) => sink.handleConnect(socket.slot))
  }

  failConnect(socket: FakeSocket, reason: number = errno.ECONNREFUSED): void {
    socket.broken = true
    this.batch((sink) => sink.handleError(socket.slot, reason))
  }

  #live(slot: number, call: string): FakeSocket | undefined {
    const socket = this.sockets[slot]
    if (socket === undefined) this.violations.push(`${call} on slot ${slot}, which is not open`)
    return socket
  }

  async listen(endpoint: Endpoint): Promise<Listening> {
    return { listener: 0, endpoint }
  }
  setAccepting(): void {}
  closeListener(): void {}
  adopt(): void {}

  connect(_endpoint: Endpoint, _options: PollerConnectOptions): number {
    if (this.destroyed) return errno.ESHUTDOWN
    return this.#add(false).slot
  }

  flush(count: number): number {
    if (count * OUT_STRIDE > this.outRecords.length)
      this.violations.push('flush of more records than there are')
    let incomplete = 0
    for (let at = 0; at < count * OUT_STRIDE; at += OUT_STRIDE) {
      const start = this.outRecords[at + 1]!
      const length = this.outRecords[at + 2]!
      const taken = this.#write(this.outRecords[at]!, this.outSlab, start, start + length, 'flush')
      this.outRecords[at + 2] = taken
      if (taken !== length) incomplete++
    }
    return incomplete
  }

  write(slot: number, bytes: Uint8Array, start: number, end: number): number {
    return this.#write(slot, bytes, start, end, 'write')
  }

  writeBehind(slot: number, at: number, head: number, bytes: Uint8Array): number {
    const taken = this.#write(slot, this.outSlab, at, at + head, 'writeBehind')
    if (taken < head) return taken
    const behind = this.#write(slot, bytes, 0, bytes.length, 'writeBehind')
    return behind < 0 ? behind : head + behind
  }

  unmask(): void {}

  #write(slot: number, bytes: Uint8Array, start: number, end: number, call: string): number {
    const socket = this.#live(slot, call)
    if (socket === undefined) return errno.EBADF
    if (end <= start || start < 0 || end > bytes.length) this.violations.push(`${call} of [${start}, ${end})`)
    if (socket.awaitsRoom) this.violations.push(`${call} before there was room again`)
    if (socket.shut) this.violations.push(`${call} after shutdownWrite`)
    socket.offers.push(end - start)
    const taken = Math.min(socket.room(end - start), end - start)
    if (taken < 0) return taken
    socket.take(bytes.subarray(start, start + taken))
    if (taken < end - start) socket.awaitsRoom = true
    return taken
  }

  setReading(slot: number, on: boolean): number {
    const socket = this.#live(slot, 'setReading')
    if (socket !== undefined) socket.reading = on
    return 0
  }

  shutdownWrite(slot: number): number {
    const socket = this.#live(slot, 'shutdownWrite')
    if (socket?.shut === true) this.violations.push('shutdownWrite twice')
    if (socket?.awaitsRoom === true) this.violations.push('shutdownWrite with bytes unsent')
    if (socket !== undefined) socket.shut = true
    return 0
  }

  close(slot: number, linger: boolean): void {
    this.#end(slot, linger ? 'lingering' : 'at once')
  }

  reset(slot: number): void {
    this.#end(slot, 'reset')
  }

  #end(slot: number, how: FakeSocket['closed']): void {
    const socket = this.#live(slot, 'close')
    if (socket === undefined) return
    socket.closed = how
    this.sockets[slot] = undefined
  }

  expireLingering(): boolean {
    return false
  }
  tlsInfo(): undefined {}

  tlsError(): undefined {}

  setTls(): void {}

  peerAddr(slot: number): string {
    return this.sockets[slot] === undefined ? '' : `10.0.0.1:${1000 + slot}`
  }
  localAddr(slot: number): string {
    return this.sockets[slot] === undefined ? '' : '10.0.0.2:80'
  }
  setRef(on: boolean): void {
    this.referenced = on
  }
  destroy(): void {
    this.destroyed = true
  }
}
