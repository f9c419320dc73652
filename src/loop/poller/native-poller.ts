/**
 * The epoll poller of the addon. Reads arrive in one slab per poller, a batch at a time; the slab and the tables are
 * the addon's memory, shared with JavaScript. The loop's thread only, but for `mailbox`, which other threads send to.
 */

import assert from 'node:assert'
import type { ConnectionOptions } from 'node:tls'
import { markAsUntransferable } from 'node:worker_threads'
import { ErrorCode, RingloopError } from '../../errors.js'
import { errno, systemError } from '../../system-error.js'
import { tlsFailure } from '../../tls-failure.js'
import { type TlsInfo, tlsInfo, verifyErrorName } from '../../tls-info.js'
import { nonNativeOption, type ServerTlsOptions, tlsError } from '../../tls-options.js'
import { hostPort, unixPathProblem } from './endpoint.js'
import { loadNativeAddon, type NativeAddon, RECORD_INTS, RecordKind } from './native-addon.js'
import {
  COUNTED,
  type Endpoint,
  HANDSHAKE_TIMEOUT,
  type Listening,
  type ListenOptions,
  MAX_HANDSHAKES,
  MAX_LINGERING,
  type Poller,
  type PollerConnectOptions,
  type PollerOptions,
  type PollerSink,
  type TcpEndpoint,
  TLS_FAILED,
} from './poller.js'
import { ClientContexts, nativeTlsProblem, serverContext } from './secure-context.js'
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

/** How often late handshakes are looked for: so many times in the time that one may take, within these bounds in ms. */
const LATE_LOOKS = 8
const MIN_LOOK_MS = 10
const MAX_LOOK_MS = 1000
const US_PER_MS = 1000
/** Of a record of the kind `REFUSED`: OpenSSL's reason lies above the failure. */
const FAILURE_BITS = 8
const FAILURE_MASK = 0xff

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
  #handshakeTimeout: number
  readonly #clientContexts: ClientContexts
  /** While handshakes are under way. */
  #lateTimer: NodeJS.Timeout | undefined
  #isInBatch = false
  #destroyed = false

  /**
   * Throws `ERR_RINGLOOP_POLLER` where there is no addon, and `ERR_RINGLOOP_OPTION` for a `tls` that cannot be used. With
   * `RINGLOOP_IO_URING=0` it uses no io_uring.
   */
  constructor(sink: PollerSink, options: PollerOptions = {}) {
    const { maxLingering = MAX_LINGERING, handshakeTimeout = HANDSHAKE_TIMEOUT } = options
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
    this.#handshakeTimeout = handshakeTimeout
    this.#clientContexts = new ClientContexts(addon)
    if (options.tls !== undefined) this.#startTls(options.tls)
  }

  #startTls(tls: ServerTlsOptions): void {
    try {
      this.setTls(tls)
    } catch (error) {
      this.destroy()
      throw error
    }
  }

  /** A record whose handling throws, which no handler's error does, must not cost the others theirs. */
  #handleBatch(count: number): void {
    const sink = this.#sink
    assert(this.#inSlab.length > 0, 'the memory that sockets are read into was transferred away')
    this.#isInBatch = true
    sink.handleBatchStart()
    for (let at = 0; at < count * RECORD_INTS; at += RECORD_INTS) {
      try {
        this.#handleRecord(sink, at)
      } catch (error) {
        throwLater(error)
      }
    }
    sink.handleBatchEnd(count)
    this.#isInBatch = false
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
        if (length === TLS_FAILED) this.#tellFailure(sink, slot)
        sink.handleError(slot, length)
        break
      case RecordKind.HANDSHAKE:
        this.#beginHandshake(sink, slot, offset)
        break
      case RecordKind.REFUSED:
        this.#refuse(sink, slot, offset, length)
        break
      case RecordKind.SECURED:
        sink.handleSecured(offset / US_PER_MS, length !== 0)
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

  // ---- TLS -----------------------------------------------------------------------------------------------------------

  setTls(tls: ServerTlsOptions): void {
    assertNative(tls)
    const context = serverContext(this.#addon, tls)
    const result = this.#addon.useTls(this.#poller, context, tls.maxHandshakes ?? MAX_HANDSHAKES)
    this.#addon.dropContext(context)
    if (result < 0 && result !== errno.ESHUTDOWN) throw systemError(result, 'tls')
    this.#handshakeTimeout = tls.handshakeTimeout ?? this.#handshakeTimeout
  }

  #beginHandshake(sink: PollerSink, slot: number, listener: number): void {
    if (listener !== COUNTED && !sink.admit()) this.close(slot, false)
    else if (this.#handshakeTimeout > 0) this.#watchHandshakes()
  }

  #refuse(sink: PollerSink, slot: number, listener: number, why: number): void {
    const failure = tlsFailure(why & FAILURE_MASK)
    sink.handleTlsFailure(slot, failure, this.#addon.reasonText(why >> FAILURE_BITS))
    sink.handleLost(listener)
  }

  #tellFailure(sink: PollerSink, slot: number): void {
    const session = this.#addon.sessionOf(this.#poller, slot)
    if (session !== undefined) sink.handleTlsFailure(slot, tlsFailure(session.failure), session.failureText)
  }

  #watchHandshakes(): void {
    if (this.#lateTimer !== undefined) return
    const ms = Math.min(Math.max(this.#handshakeTimeout / LATE_LOOKS, MIN_LOOK_MS), MAX_LOOK_MS)
    this.#lateTimer = setTimeout(() => {
      this.#lateTimer = undefined
      this.#dropHandshakes(this.#handshakeTimeout)
      if (this.#addon.lateHandshake(this.#poller, 0) >= 0) this.#watchHandshakes()
    }, ms)
    this.#lateTimer.unref()
  }

  /** Those that have been under way for so long. */
  #dropHandshakes(ageMs: number): void {
    for (;;) {
      const slot = this.#addon.lateHandshake(this.#poller, ageMs)
      if (slot < 0) return
      this.#report((sink) => {
        if (ageMs > 0) sink.handleTlsFailure(slot, 'late', undefined)
        sink.handleLost(COUNTED)
      })
      this.close(slot, false)
    }
  }

  /** In a batch of its own, unless there is one. */
  #report(report: (sink: PollerSink) => void): void {
    const sink = this.#sink
    if (this.#isInBatch) {
      report(sink)
      return
    }
    sink.handleBatchStart()
    report(sink)
    sink.handleBatchEnd(1)
  }

  tlsInfo(slot: number): TlsInfo | undefined {
    const session = this.#addon.sessionOf(this.#poller, slot)
    if (session === undefined) return undefined
    const { protocol, cipher, alpnProtocol, servername, certificate, resumed, verifyError } = session
    const authorizationError = verifyErrorName(verifyError)
    return tlsInfo({
      ...{ protocol, cipher, alpnProtocol, servername, certificate, authorizationError },
      resumed: resumed !== 0,
    })
  }

  tlsError(slot: number): Error | undefined {
    const session = this.#addon.sessionOf(this.#poller, slot)
    if (session === undefined || session.failure === 0) return undefined
    const failure = tlsFailure(session.failure)
    const code = failure === 'certificate' ? verifyErrorName(session.verifyError) : undefined
    const error: NodeJS.ErrnoException = new Error(session.failureText ?? `TLS failed: ${failure}`)
    error.code = code ?? `ERR_TLS_${failure.toUpperCase().replaceAll('-', '_')}`
    return error
  }

  // ---- listeners and sockets -----------------------------------------------------------------------------------------

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

  connect(endpoint: Endpoint, options: PollerConnectOptions): number {
    if (options.tls === undefined) return this.#connect(endpoint, options)
    const context = this.#clientContexts.get(options.tls)
    const slot = this.#connect(endpoint, options)
    if (slot < 0) return slot
    const result = this.#addon.secure(this.#poller, slot, context, peerName(endpoint, options.tls))
    if (result === 0) return slot
    this.close(slot, false)
    return result
  }

  #connect(endpoint: Endpoint, options: PollerConnectOptions): number {
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
    clearTimeout(this.#lateTimer)
    this.#dropHandshakes(0)
    this.#clientContexts.close()
    this.#addon.destroy(this.#poller)
  }
}

/** Whether the native poller can be used here: `true`, or the reason why not. */
export function nativeAvailable(): true | string {
  const addon = loadNativeAddon()
  return typeof addon === 'string' ? addon : true
}

/** Whether it can speak TLS too: `true`, or the reason why not. */
export function nativeTlsAvailable(): true | string {
  const addon = loadNativeAddon()
  return typeof addon === 'string' ? addon : (nativeTlsProblem(addon) ?? true)
}

/** Throws `ERR_RINGLOOP_OPTION` where these options cannot be used. */
export function checkNativeTls(tls: ServerTlsOptions): void {
  assertNative(tls)
  const addon = loadNativeAddon()
  if (typeof addon !== 'string') addon.dropContext(serverContext(addon, tls))
}

function assertNative(tls: ServerTlsOptions): void {
  const other = nonNativeOption(tls)
  if (other !== undefined) throw tlsError(`the native poller does not know ${other}`)
}

/** Whom a client wants to talk to, as Node has it. */
function peerName(endpoint: Endpoint, { servername }: ConnectionOptions): string {
  if (servername !== undefined && servername !== '') return servername
  return 'path' in endpoint ? 'localhost' : endpoint.host
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
