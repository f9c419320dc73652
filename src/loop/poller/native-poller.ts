/**
 * The epoll poller of the addon. Reads arrive in one slab per poller, a batch at a time; the slab and the tables are
 * the addon's memory, shared with JavaScript. The loop's thread only, but for `mailbox`, which other threads send to.
 */

import assert from 'node:assert'
import { markAsUntransferable } from 'node:worker_threads'
import { ErrorCode, RingloopError } from '../../errors.js'
import { errno, systemError } from '../../system-error.js'
import { hostPort, unixPathProblem } from './endpoint.js'
import { loadNativeAddon, type NativeAddon, RECORD_INTS, RecordKind } from './native-addon.js'
import {
  type Endpoint,
  type Listening,
  type ListenOptions,
  MAX_LINGERING,
  type Poller,
  type PollerOptions,
  type PollerSink,
  type SocketOptions,
  type TcpEndpoint,
} from './poller.js'
import { resolveSocketPath, SocketFile } from './socket-file.js'

/**
 * From Node 24 on the mark also forbids Node itself to detach the memory, which it does at the end of a thread: it aborts
 * (seen in 24.21 and 26.10). The memory stays unmarked there; should it be transferred away, the addon keeps it alive.
 */
const CAN_MARK = markLeavesDetachable()

function markLeavesDetachable(): boolean {
  const probe: ArrayBuffer & { transfer?: () => ArrayBuffer } = new ArrayBuffer(1)
  markAsUntransferable(probe)
  try {
    probe.transfer?.()
    return true
  } catch {
    return false
  }
}

export class NativePoller implements Poller {
  readonly kind = 'native'
  readonly outSlab: Buffer
  readonly outRecords: Int32Array
  /** Where an acceptor of another thread sends descriptors, and loops of other threads letters. */
  readonly mailbox: number
  /** Called in a turn when there are letters, all of which it is to take, or when the group has changed. */
  onPost: (() => void) | undefined = undefined

  readonly #addon: NativeAddon
  readonly #poller: number
  readonly #sink: PollerSink
  readonly #inSlab: Buffer
  readonly #records: Int32Array
  /** Of the listeners on unix sockets. */
  readonly #files = new Map<number, SocketFile>()
  #destroyed = false

  /** Throws `ERR_RINGLOOP_POLLER` where there is no addon. With `RINGLOOP_IO_URING=0` it uses no io_uring. */
  constructor(sink: PollerSink, { maxLingering = MAX_LINGERING }: PollerOptions = {}) {
    const addon = loadNativeAddon()
    if (typeof addon === 'string') throw new RingloopError(ErrorCode.POLLER, addon)
    const mayRing = process.env.RINGLOOP_IO_URING !== '0'
    const created = addon.create((count) => this.#handleBatch(count), maxLingering, mayRing)
    if (created.poller < 0) {
      const error = systemError(created.poller, 'epoll')
      throw new RingloopError(ErrorCode.POLLER, `the native poller cannot be made: ${error.message}`, error)
    }
    if (CAN_MARK) {
      for (const memory of [created.inSlab, created.inRecords, created.outSlab, created.outRecords]) {
        markAsUntransferable(memory)
      }
    }
    this.#addon = addon
    this.#poller = created.poller
    this.#sink = sink
    this.mailbox = created.mailbox
    this.#inSlab = Buffer.from(created.inSlab)
    this.#records = new Int32Array(created.inRecords)
    this.outSlab = Buffer.from(created.outSlab)
    this.outRecords = new Int32Array(created.outRecords)
  }

  /** A record whose handling throws, which no handler's error does, must not cost the others theirs. */
  #handleBatch(count: number): void {
    const sink = this.#sink
    assert(this.#inSlab.length > 0, 'the memory that sockets are read into was transferred away')
    sink.handleBatchStart()
    for (let at = 0; at < count * RECORD_INTS; at += RECORD_INTS) {
      try {
        this.#handleRecord(sink, at)
      } catch (error) {
        throwLater(error)
      }
    }
    sink.handleBatchEnd(count)
  }

  #handleRecord(sink: PollerSink, at: number): void {
    const records = this.#records
    const slot = records[at]!
    const offset = records[at + 1]!
    const length = records[at + 2]!
    switch (records[at + 3]) {
      case RecordKind.READ:
        sink.handleRead(slot, this.#inSlab, offset, offset + length)
        break
      case RecordKind.WRITABLE:
        sink.handleWritable(slot)
        break
      case RecordKind.END:
        sink.handleEnd(slot)
        break
      case RecordKind.ERROR:
        sink.handleError(slot, length)
        break
      case RecordKind.ACCEPT:
        sink.handleAccept(slot, offset)
        break
      case RecordKind.CONNECT:
        sink.handleConnect(slot)
        break
      case RecordKind.HANGUP:
        sink.handleHangup(slot)
        break
      case RecordKind.LEFT:
        sink.handleLeft(slot)
        break
      case RecordKind.LOST:
        sink.handleLost(offset)
        break
      case RecordKind.POST:
        this.onPost?.()
        break
      default:
        sink.handleAcceptError(slot, length)
    }
  }

  async listen(endpoint: Endpoint, options: ListenOptions): Promise<Listening> {
    if ('path' in endpoint) return this.#listenUnix(resolveSocketPath(endpoint.path), options)
    const listener = this.#listenTcp(endpoint.host, endpoint.port, options)
    if (listener < 0) throw systemError(listener, 'listen')
    const port = this.#addon.listenerPort(this.#poller, listener)
    return { listener, endpoint: { host: endpoint.host, port } }
  }

  #listenUnix(path: string, { backlog, park }: ListenOptions): Listening {
    const listener = this.#addon.listenUnix(this.#poller, path, backlog, park)
    if (listener < 0) throw systemError(listener, 'listen')
    this.#files.set(listener, new SocketFile(path))
    return { listener, endpoint: { path } }
  }

  #listenTcp(host: string, port: number, options: ListenOptions): number {
    return this.#addon.listenTcp(
      this.#poller,
      host,
      port,
      options.backlog,
      options.noDelay,
      seconds(options.keepAlive),
      options.reusePort,
      options.receiveBuffer ?? 0,
      options.park,
    )
  }

  setAccepting(listener: number, on: boolean): void {
    this.#addon.setAccepting(this.#poller, listener, on)
  }

  closeListener(listener: number): void {
    this.#removeFile(listener)
    this.#addon.closeListener(this.#poller, listener)
  }

  #removeFile(listener: number): void {
    const error = this.#files.get(listener)?.remove()
    this.#files.delete(listener)
    if (error !== undefined) this.#sink.handleFileLeft(error)
  }

  connect(endpoint: Endpoint, options: SocketOptions): number {
    if ('path' in endpoint) {
      if (unixPathProblem(endpoint.path) !== undefined) return errno.EINVAL
      return this.#addon.connectUnix(this.#poller, endpoint.path)
    }
    const { host, port } = endpoint
    return this.#addon.connectTcp(this.#poller, host, port, options.noDelay, seconds(options.keepAlive))
  }

  /** Sockets from the mailbox wait for {@link takeDescriptor} instead of being read here. */
  parkMailbox(): void {
    this.#addon.parkMailbox(this.#poller, true)
  }

  adopt(slot: number): void {
    this.#addon.adopt(this.#poller, slot)
  }

  /** Sends a parked slot to another thread's poller: 0, or a negative errno and the slot is still ours. */
  handOff(slot: number, mailbox: number): number {
    return this.#addon.handOff(this.#poller, slot, mailbox)
  }

  /** Gives a parked slot's descriptor away for good; the caller must wrap it at once in what will close it. */
  takeDescriptor(slot: number): number {
    return this.#addon.takeDescriptor(this.#poller, slot)
  }

  flush(count: number): number {
    return this.#addon.flush(this.#poller, count)
  }

  write(slot: number, bytes: Uint8Array, start: number, end: number): number {
    return this.#addon.write(this.#poller, slot, bytes, start, end)
  }

  writeBehind(slot: number, at: number, head: number, bytes: Uint8Array): number {
    return this.#addon.writeBehind(this.#poller, slot, at, head, bytes, 0, bytes.length)
  }

  unmask(slot: number): void {
    this.#addon.unmask(this.#poller, slot)
  }

  setReading(slot: number, on: boolean): number {
    return this.#addon.setReading(this.#poller, slot, on)
  }

  shutdownWrite(slot: number): number {
    return this.#addon.shutdownWrite(this.#poller, slot)
  }

  close(slot: number, linger: boolean): void {
    this.#addon.close(this.#poller, slot, linger)
  }

  reset(slot: number): void {
    this.#addon.reset(this.#poller, slot)
  }

  expireLingering(): boolean {
    return this.#addon.expireLingering(this.#poller) > 0
  }

  peerAddr(slot: number): string {
    return addrText(this.#addon.peerAddr(this.#poller, slot))
  }

  localAddr(slot: number): string {
    return addrText(this.#addon.localAddr(this.#poller, slot))
  }

  /** Makes the mailbox known to those of the other loops of the group, and these to it. Once. */
  joinGroup(group: number, loop: number): void {
    this.#addon.joinGroup(this.#poller, group, loop)
  }

  /** The others of the group are to post nothing more to it. */
  rest(): void {
    this.#addon.rest(this.#poller)
  }

  /** The others of the group, `MEMBER_INTS` for each: how many, or a negative errno where nothing has changed. */
  members(into: Int32Array): number {
    return this.#addon.members(this.#poller, into)
  }

  /** Posts a copy of the first `length` bytes to the first `count` mailboxes of `to`: 0 or a negative errno. */
  post(to: Int32Array, count: number, bytes: Uint8Array, length: number): number {
    return this.#addon.post(this.#poller, to, count, bytes, 0, length)
  }

  /** The next letter, in memory of its own. */
  takeLetter(): Buffer | undefined {
    return this.#addon.takeLetter(this.#poller)
  }

  setRef(on: boolean): void {
    this.#addon.setRef(this.#poller, on)
  }

  destroy(): void {
    if (this.#destroyed) return
    this.#destroyed = true
    for (const listener of this.#files.keys()) this.#removeFile(listener)
    this.#addon.destroy(this.#poller)
  }
}

/** Whether the native poller can be used here: `true`, or the reason why not. */
export function nativeAvailable(): true | string {
  const addon = loadNativeAddon()
  return typeof addon === 'string' ? addon : true
}

/** As an uncaught exception, once the batch is done. */
function throwLater(error: unknown): void {
  process.nextTick(() => {
    throw error
  })
}

function seconds(ms: number): number {
  return Math.ceil(ms / 1000)
}

function addrText(addr: TcpEndpoint | undefined): string {
  return addr === undefined ? '' : hostPort(addr.host, addr.port)
}
