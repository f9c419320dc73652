/**
 * The poller over `node:net` and `node:tls`: for platforms without the addon, and for TLS. Each socket event is a batch
 * of one. Node owns the sockets; a slot is an index into a table of them. The loop's thread only.
 */
import assert from 'node:assert'
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import net from 'node:net'
import tls from 'node:tls'
import { errno, errnoOf, systemError } from '../../system-error.js'
import { MAX_NODE_DELAY } from '../../timers/max-delay.js'
import type { TlsFailure } from '../../tls-failure.js'
import { type TlsInfo, tlsInfo } from '../../tls-info.js'
import { type ServerTlsOptions, tlsError } from '../../tls-options.js'
import { hostPort, unixPathProblem } from './endpoint.js'
import {
  COUNTED,
  type Endpoint,
  HANDSHAKE_TIMEOUT,
  LINGER_MS,
  type Listening,
  type ListenOptions,
  MAX_HANDSHAKES,
  MAX_LINGERING,
  OUT_STRIDE,
  type Poller,
  type PollerConnectOptions,
  type PollerOptions,
  type PollerSink,
  type SocketOptions,
} from './poller.js'
import { resolveSocketPath, SocketFile } from './socket-file.js'

const OUT_SLAB = 256 * 1024
const OUT_RECORDS = 4096
/** One write takes no more, so that a large one does not hold everything twice. */
const WRITE_MAX = 256 * 1024
/** libuv reads on while reads come full, up to 32 of them, before anybody else has a turn. */
const FULL_READ = 64 * 1024
/** Full reads of one socket in a row, after which the others have theirs. */
const MAX_FULL_READS = 2

/** A TLS handshake of an accepted socket that is under way. */
interface Handshake {
  readonly began: number
  readonly deadline: NodeJS.Timeout | undefined
  /** Why it fails, once that is known. */
  failure: TlsFailure
  text: string | undefined
}

/** One socket and what `write` still owes for it. */
class NetSlot {
  readonly socket: net.Socket
  readonly peerAddr: string
  connected: boolean
  ended = false
  failed = false
  /** The loop wants it read. */
  isWanted = true
  /** Full reads in a row; it rests until the next round when there were enough. */
  fullReads = 0
  /** Bytes that Node holds because the kernel did not take them at once. */
  inFlight = 0
  /** Those that it has taken since: they count as taken when the same bytes are offered again. */
  landed = 0
  /** Writes begun and done: what was in flight has landed when they are equal. */
  begun = 0
  done = 0
  /** Given to each write; one for all of them. */
  readonly onWritten: () => void

  constructor(socket: net.Socket, connected: boolean, peerAddr: string, onLanded: (s: NetSlot) => void) {
    this.socket = socket
    this.connected = connected
    this.peerAddr = peerAddr
    this.onWritten = () => {
      this.done++
      if (this.done === this.begun && this.inFlight > 0) onLanded(this)
    }
  }
}

export class NetPoller implements Poller {
  readonly kind = 'net'
  readonly outSlab: Buffer = Buffer.allocUnsafeSlow(OUT_SLAB)
  readonly outRecords: Int32Array = new Int32Array(OUT_RECORDS * OUT_STRIDE)

  readonly #sink: PollerSink
  #handshakeTimeout: number
  readonly #maxLingering: number
  /** Does the handshakes of accepted sockets; it never listens. */
  #tls: tls.Server | undefined
  #maxHandshakes = MAX_HANDSHAKES
  #destroyed = false
  readonly #slots: (NetSlot | undefined)[] = []
  readonly #free: number[] = []
  readonly #listeners: (net.Server | undefined)[] = []
  /** Of the listeners on unix sockets. */
  readonly #files = new Map<number, SocketFile>()
  /** Accepted sockets whose TLS handshake is under way. All of them are counted. */
  readonly #handshaking = new Map<net.Socket, Handshake>()
  /** Closed sockets that still read and throw away, with the time until which they may: the oldest first. */
  readonly #lingering = new Map<net.Socket, number>()

  /** Throws `ERR_RINGLOOP_OPTION` for a `tls` that cannot be used. */
  constructor(sink: PollerSink, options: PollerOptions = {}) {
    this.#sink = sink
    this.#handshakeTimeout = options.handshakeTimeout ?? HANDSHAKE_TIMEOUT
    this.#maxLingering = options.maxLingering ?? MAX_LINGERING
    if (options.tls !== undefined) this.setTls(options.tls)
  }

  // ---- listeners ---------------------------------------------------------------------------------------------------

  async listen(endpoint: Endpoint, options: ListenOptions): Promise<Listening> {
    if (this.#destroyed) throw systemError(errno.ESHUTDOWN, 'listen')
    const { backlog, reusePort, noDelay, keepAlive } = options
    const where = 'path' in endpoint ? { path: resolveSocketPath(endpoint.path) } : endpoint
    const server = net.createServer({
      allowHalfOpen: true,
      noDelay,
      keepAlive: keepAlive > 0,
      keepAliveInitialDelay: keepAlive,
    })
    const listener = this.#listeners.push(server) - 1
    server.on('connection', (socket) => this.#adopt(socket, listener))
    server.listen({ ...where, backlog, reusePort } as net.ListenOptions & { reusePort: boolean })
    await this.#listening(server, listener)
    server.on('error', (error) => this.#batch(() => this.#sink.handleAcceptError(listener, errnoOf(error))))
    const address = server.address()
    if ('path' in where) this.#files.set(listener, new SocketFile(where.path))
    if (address === null || typeof address === 'string') return { listener, endpoint: where }
    return { listener, endpoint: { host: address.address, port: address.port } }
  }

  async #listening(server: net.Server, listener: number): Promise<void> {
    try {
      await once(server, 'listening')
    } catch (error) {
      this.#listeners[listener] = undefined
      throw error
    }
  }

  /** Node pauses accepting by itself when descriptors run out. */
  setAccepting(): void {}

  closeListener(listener: number): void {
    const server = this.#listeners[listener]
    if (server === undefined) return
    this.#listeners[listener] = undefined
    const file = this.#files.get(listener)
    this.#files.delete(listener)
    if (file === undefined) {
      server.close()
      return
    }
    const error = file.closeListener(() => server.close())
    if (error !== undefined) this.#sink.handleFileLeft(error)
  }

  /** A socket is read from the moment of its accept. */
  adopt(): void {}

  /** A descriptor that was accepted, and counted, by another thread; it is Node's or closed from now on. */
  adoptDescriptor(fd: number, options: SocketOptions): void {
    const socket = wrapDescriptor(fd)
    if (socket === undefined) {
      this.#batch(() => this.#sink.handleLost(COUNTED))
      return
    }
    if (options.noDelay) socket.setNoDelay(true)
    if (options.keepAlive > 0) socket.setKeepAlive(true, options.keepAlive)
    this.#adopt(socket, COUNTED)
  }

  /** A socket that another thread has accepted, counted and transferred. */
  adoptSocket(socket: net.Socket): void {
    socket.allowHalfOpen = true
    this.#adopt(socket, COUNTED)
  }

  #adopt(socket: net.Socket, listener: number): void {
    if (this.#destroyed) socket.destroy()
    else if (this.#tls === undefined) this.#accept(socket, listener)
    else if (this.#handshaking.size >= this.#maxHandshakes) this.#turnAway(socket, listener)
    else if (listener === COUNTED || this.#sink.admit()) this.#handshake(socket, this.#tls)
    else socket.destroy()
  }

  #turnAway(socket: net.Socket, listener: number): void {
    socket.destroy()
    this.#batch(() => {
      this.#sink.handleTlsFailure(-1, 'too-many', undefined)
      this.#sink.handleLost(listener)
    })
  }

  #handshake(socket: net.Socket, server: tls.Server): void {
    const ms = Math.min(this.#handshakeTimeout, MAX_NODE_DELAY)
    const handshake: Handshake = {
      began: performance.now(),
      deadline: ms > 0 ? setTimeout(() => this.#endLate(socket), ms) : undefined,
      failure: 'left',
      text: undefined,
    }
    this.#handshaking.set(socket, handshake)
    // Half a handshake is none: one who ends its side during it is gone.
    socket.allowHalfOpen = false
    socket.once('close', () => {
      if (this.#endHandshake(socket) !== undefined) this.#lose(handshake)
    })
    server.emit('connection', socket)
  }

  #endLate(socket: net.Socket): void {
    this.#note(socket, 'late', undefined)
    socket.destroy()
  }

  #note(socket: net.Socket, failure: TlsFailure, text: string | undefined): void {
    const handshake = this.#handshaking.get(socket)
    if (handshake !== undefined) Object.assign(handshake, { failure, text })
  }

  #lose({ failure, text }: Handshake): void {
    this.#batch(() => {
      if (!this.#destroyed) this.#sink.handleTlsFailure(-1, failure, text)
      this.#sink.handleLost(COUNTED)
    })
  }

  /** `undefined`: it was over already. */
  #endHandshake(socket: net.Socket): Handshake | undefined {
    const handshake = this.#handshaking.get(socket)
    clearTimeout(handshake?.deadline)
    this.#handshaking.delete(socket)
    return handshake
  }

  setTls(options: ServerTlsOptions): void {
    const server = createTlsServer(options)
    server.on('secureConnection', (socket) => {
      const handshake = this.#endHandshake(rawSocket(socket))
      assert(handshake !== undefined, 'a TLS socket belongs to a socket that was accepted')
      socket.allowHalfOpen = true
      this.#sink.handleSecured(performance.now() - handshake.began, socket.isSessionReused())
      this.#accept(socket, COUNTED)
    })
    server.on('tlsClientError', (error, socket) => {
      this.#note(rawSocket(socket), failureOf(error, socket), (error as { reason?: string }).reason)
      socket.destroy()
    })
    this.#maxHandshakes = options.maxHandshakes ?? MAX_HANDSHAKES
    this.#handshakeTimeout = options.handshakeTimeout ?? this.#handshakeTimeout
    this.#tls = server
  }

  tlsInfo(slot: number): TlsInfo | undefined {
    const socket = this.#slots[slot]?.socket
    return socket instanceof tls.TLSSocket ? infoOf(socket) : undefined
  }

  /** Node's own error has the code. */
  tlsError(): undefined {}

  #accept(socket: net.Socket, listener: number): void {
    const slot = this.#add(socket, true)
    this.#batch(() => this.#sink.handleAccept(slot, listener))
  }

  // ---- sockets -----------------------------------------------------------------------------------------------------

  connect(endpoint: Endpoint, options: PollerConnectOptions): number {
    if (this.#destroyed) return errno.ESHUTDOWN
    if ('path' in endpoint && unixPathProblem(endpoint.path) !== undefined) return errno.EINVAL
    const where = { ...endpoint, allowHalfOpen: true, noDelay: options.noDelay }
    const keepAlive = { keepAlive: options.keepAlive > 0, keepAliveInitialDelay: options.keepAlive }
    const secure = options.tls !== undefined
    const socket = secure
      ? tls.connect({ ...options.tls, ...where })
      : net.connect({ ...where, ...keepAlive })
    if (secure && options.keepAlive > 0) socket.setKeepAlive(true, options.keepAlive)
    const slot = this.#add(socket, false, 'path' in endpoint ? '' : hostPort(endpoint.host, endpoint.port))
    socket.once(secure ? 'secureConnect' : 'connect', () => {
      const s = this.#slots[slot]
      if (s === undefined || s.socket !== socket) return
      s.connected = true
      this.#batch(() => this.#sink.handleConnect(slot))
    })
    return slot
  }

  #add(socket: net.Socket, connected: boolean, peerAddr: string = remoteText(socket)): number {
    const slot = this.#free.pop() ?? this.#slots.length
    const s = new NetSlot(socket, connected, peerAddr, (landed) => this.#landed(slot, landed))
    this.#slots[slot] = s
    socket.on('data', (chunk: Buffer) => {
      if (this.#slots[slot] === s) this.#read(slot, s, chunk)
    })
    socket.on('end', () => {
      s.ended = true
      if (this.#slots[slot] === s) this.#batch(() => this.#sink.handleEnd(slot))
    })
    socket.on('error', (error) => this.#fail(slot, s, errnoOf(error)))
    socket.on('close', () => {
      this.#lingering.delete(socket)
      // Ended on both sides, as it should: there is nothing to report.
      if (s.ended && s.inFlight === 0 && socket.errored === null) return
      this.#fail(slot, s, s.ended ? errno.EPIPE : errno.ECONNRESET)
    })
    return slot
  }

  #fail(slot: number, s: NetSlot, reason: number): void {
    this.#lingering.delete(s.socket)
    if (this.#slots[slot] !== s || s.failed) return
    s.failed = true
    this.#batch(() => this.#sink.handleError(slot, reason))
  }

  #read(slot: number, s: NetSlot, chunk: Buffer): void {
    this.#sink.handleBatchStart()
    this.#sink.handleRead(slot, chunk, 0, chunk.length)
    this.#sink.handleBatchEnd(1)
    if (this.#slots[slot] !== s) return
    if (chunk.length < FULL_READ) s.fullReads = 0
    else if (++s.fullReads === MAX_FULL_READS) this.#rest(slot, s)
  }

  /** The other sockets have their turn before it is read on. */
  #rest(slot: number, s: NetSlot): void {
    s.socket.pause()
    setImmediate(() => {
      s.fullReads = 0
      if (s.isWanted && this.#slots[slot] === s) s.socket.resume()
    })
  }

  #batch(report: () => void): void {
    this.#sink.handleBatchStart()
    report()
    this.#sink.handleBatchEnd(1)
  }

  flush(count: number): number {
    let incomplete = 0
    const records = this.outRecords
    for (let at = 0; at < count * OUT_STRIDE; at += OUT_STRIDE) {
      const start = records[at + 1]!
      const length = records[at + 2]!
      const taken = this.write(records[at]!, this.outSlab, start, start + length)
      records[at + 2] = taken
      if (taken !== length) incomplete++
    }
    return incomplete
  }

  write(slot: number, bytes: Uint8Array, start: number, end: number): number {
    const s = this.#slots[slot]
    if (s === undefined || !s.connected) return errno.EBADF
    if (s.failed || !s.socket.writable) return errno.EPIPE
    const credit = Math.min(s.landed, end - start)
    s.landed -= credit
    let taken = credit
    while (start + taken < end && s.inFlight === 0) {
      const to = Math.min(end, start + taken + WRITE_MAX)
      const length = to - start - taken
      hand(s, Buffer.from(bytes.subarray(start + taken, to)))
      if (s.inFlight === 0) taken += length
    }
    return taken
  }

  writeBehind(slot: number, at: number, head: number, bytes: Uint8Array): number {
    const taken = this.write(slot, this.outSlab, at, at + head)
    if (taken < head) return taken
    const behind = this.write(slot, bytes, 0, bytes.length)
    return behind < 0 ? behind : head + behind
  }

  /** The bytes are Node's. */
  unmask(): void {}

  #landed(slot: number, s: NetSlot): void {
    s.landed = s.inFlight
    s.inFlight = 0
    if (this.#slots[slot] === s && !s.failed) this.#batch(() => this.#sink.handleWritable(slot))
  }

  setReading(slot: number, on: boolean): number {
    const s = this.#slots[slot]
    if (s === undefined) return 0
    s.isWanted = on
    if (!on) s.socket.pause()
    else if (s.fullReads < MAX_FULL_READS) s.socket.resume()
    return 0
  }

  shutdownWrite(slot: number): number {
    const s = this.#slots[slot]
    if (s === undefined || !s.connected) return errno.EBADF
    s.socket.end()
    return 0
  }

  close(slot: number, linger: boolean): void {
    const s = this.#slots[slot]
    if (s === undefined) return
    this.#slots[slot] = undefined
    this.#free.push(slot)
    const { socket } = s
    if (linger && !socket.destroyed && this.#maxLingering > 0) {
      this.#linger(socket)
    } else if (s.inFlight > 0 || !s.connected) {
      socket.destroy()
    } else {
      socket.destroySoon()
    }
  }

  reset(slot: number): void {
    const s = this.#slots[slot]
    if (s === undefined) return
    this.#slots[slot] = undefined
    this.#free.push(slot)
    resetSocket(s.socket)
  }

  #linger(socket: net.Socket): void {
    const [oldest] = this.#lingering.keys()
    if (oldest !== undefined && this.#lingering.size >= this.#maxLingering) {
      this.#lingering.delete(oldest)
      oldest.destroy()
    }
    this.#lingering.set(socket, performance.now() + LINGER_MS)
    socket.end()
    socket.resume()
  }

  expireLingering(): boolean {
    const now = performance.now()
    for (const [socket, deadline] of this.#lingering) {
      if (deadline <= now) socket.destroy()
    }
    return this.#lingering.size > 0
  }

  peerAddr(slot: number): string {
    return this.#slots[slot]?.peerAddr ?? ''
  }

  localAddr(slot: number): string {
    const socket = this.#slots[slot]?.socket
    return socket?.localAddress === undefined ? '' : hostPort(socket.localAddress, socket.localPort ?? 0)
  }

  /** Node's sockets keep the process alive by themselves. */
  setRef(): void {}

  destroy(): void {
    this.#destroyed = true
    for (let i = 0; i < this.#listeners.length; i++) this.closeListener(i)
    for (const s of this.#slots) s?.socket.destroy()
    for (const socket of this.#lingering.keys()) socket.destroy()
    for (const socket of this.#handshaking.keys()) socket.destroy()
    this.#slots.length = 0
    this.#free.length = 0
  }
}

/** Node takes the chunk; `inFlight` says whether the kernel did not. */
function hand(s: NetSlot, chunk: Buffer): void {
  s.begun++
  s.socket.write(chunk, s.onWritten)
  if (s.socket.writableLength > 0) s.inFlight = chunk.length
}

/** Where Node cannot reset it, it is destroyed: a unix socket, one that has ended its side, an outgoing one with TLS. */
function resetSocket(socket: net.Socket): void {
  const raw: net.Socket | undefined = socket instanceof tls.TLSSocket ? rawSocket(socket) : socket
  if (raw?.remotePort !== undefined && !socket.writableEnded) raw.resetAndDestroy()
  else socket.destroy()
}

/** The socket that an accepted one with TLS runs on. Undocumented, but there from Node 0.11 to 26. */
function rawSocket(socket: tls.TLSSocket): net.Socket {
  return (socket as unknown as { readonly _parent: net.Socket })._parent
}

/** Closes it where Node takes it for no socket. */
function wrapDescriptor(fd: number): net.Socket | undefined {
  try {
    return new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: true })
  } catch {
    closeDescriptor(fd)
    return undefined
  }
}

function closeDescriptor(fd: number): void {
  try {
    closeSync(fd)
  } catch {
    // There was none.
  }
}

/** Throws `ERR_RINGLOOP_OPTION` where these options cannot be used. */
export function checkNetTls(options: ServerTlsOptions): void {
  createTlsServer(options)
}

/** Node's own limit of a handshake starts again with every byte: it is left to the poller's deadline. */
function createTlsServer({ sni, handshakeTimeout, maxHandshakes, ...options }: ServerTlsOptions): tls.Server {
  try {
    const names = sni === undefined ? {} : { SNICallback: contextByName(sni, options) }
    return tls.createServer({ ...names, ...options, handshakeTimeout: MAX_NODE_DELAY })
  } catch (error) {
    throw tlsError((error as Error).message, error)
  }
}

type SniCallback = NonNullable<tls.TlsOptions['SNICallback']>

/** The contexts are made now, so that what is wrong with one is known now. */
function contextByName(sni: NonNullable<ServerTlsOptions['sni']>, options: tls.TlsOptions): SniCallback {
  const contexts = new Map(
    Object.entries(sni).map(([name, own]) => [
      name.toLowerCase(),
      tls.createSecureContext({ ...options, ...own }),
    ]),
  )
  return (servername, done) => {
    const name = servername.toLowerCase()
    done(null, contexts.get(name) ?? contexts.get(`*${name.slice(name.indexOf('.'))}`))
  }
}

/** By the code that Node makes of OpenSSL's reason. */
const FAILURES: ReadonlyMap<string, TlsFailure> = new Map([
  ['ERR_SSL_HTTP_REQUEST', 'not-tls'],
  ['ERR_SSL_HTTPS_PROXY_REQUEST', 'not-tls'],
  ['ERR_SSL_PACKET_LENGTH_TOO_LONG', 'not-tls'],
  ['ERR_SSL_UNKNOWN_PROTOCOL', 'not-tls'],
  ['ERR_SSL_WRONG_VERSION_NUMBER', 'not-tls'],
  ['ERR_SSL_UNSUPPORTED_PROTOCOL', 'old-version'],
  ['ERR_SSL_VERSION_TOO_LOW', 'old-version'],
  ['ERR_SSL_NO_SHARED_CIPHER', 'no-cipher'],
  ['ERR_SSL_CERTIFICATE_VERIFY_FAILED', 'certificate'],
  ['ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE', 'certificate'],
  ['ERR_SSL_NO_APPLICATION_PROTOCOL', 'no-protocol'],
  ['ECONNRESET', 'left'],
])

function failureOf(error: NodeJS.ErrnoException, { authorizationError }: tls.TLSSocket): TlsFailure {
  if (authorizationError !== undefined && authorizationError !== null) return 'certificate'
  if (error.code?.includes('_ALERT_') === true) return 'alert'
  return FAILURES.get(error.code ?? '') ?? 'broken'
}

function infoOf(socket: tls.TLSSocket): TlsInfo {
  const { alpnProtocol, authorizationError, servername } = socket as tls.TLSSocket & {
    readonly servername?: string | false
  }
  return tlsInfo({
    protocol: socket.getProtocol() ?? 'unknown',
    cipher: socket.getCipher().name,
    alpnProtocol: alpnProtocol || undefined,
    servername: servername || undefined,
    certificate: socket.getPeerX509Certificate()?.raw,
    authorizationError: errorName(authorizationError),
    resumed: socket.isSessionReused(),
  })
}

/** Node has it as a name or as an error with a code. */
function errorName(error: unknown): string | undefined {
  if (error === undefined || error === null) return undefined
  const { code = error } = error as { readonly code?: unknown }
  return String(code)
}

function remoteText(socket: net.Socket): string {
  return socket.remoteAddress === undefined ? '' : hostPort(socket.remoteAddress, socket.remotePort ?? 0)
}
