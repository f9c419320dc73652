/**
 * The poller seam: what the event loop needs from the system. A socket is a *slot*, a small number that the poller
 * gives at accept or connect and takes back at `close`; the descriptor behind it is the poller's alone. Everything
 * runs on the loop's thread. System errors come as negative errno numbers, never as throws.
 */

import type { ConnectionOptions } from 'node:tls'
import type { TlsFailure } from '../../tls-failure.js'
import type { TlsInfo } from '../../tls-info.js'
import type { ServerTlsOptions } from '../../tls-options.js'

/** What a poller reports, in batches. Implemented by the connection table, and by acceptors. */
export interface PollerSink {
  handleBatchStart(): void
  /**
   * A socket has come whose handshake begins: may it? It is counted from now on, until `handleAccept` or `handleLost`
   * comes with {@link COUNTED}. `false`: it is closed at once. Inside of a batch or outside.
   */
  admit(): boolean
  /** The TLS handshake of the socket that `handleAccept` reports next took `ms`; a resumed session saves most of it. */
  handleSecured(ms: number, isResumed: boolean): void
  /**
   * TLS failed: in the handshake of a socket that was accepted, which is lost (`handleLost` follows), or later, and then
   * `handleError` follows. `slot` is good for `peerAddr` where it is not -1; `text`, where there is one, is OpenSSL's.
   */
  handleTlsFailure(slot: number, failure: TlsFailure, text: string | undefined): void
  /**
   * A socket was accepted, by `listener`, or it is {@link COUNTED} already. From a listener with `park` it waits, unread,
   * for `adopt`, `handOff` or `takeDescriptor`.
   */
  handleAccept(slot: number, listener: number): void
  /** A socket of `listener`, or one that is {@link COUNTED}, was lost before it could be reported. */
  handleLost(listener: number): void
  /** A `connect` is through; a failed one ends in `handleError`. */
  handleConnect(slot: number): void
  /** `storage[start…end)` came in; valid until this returns. */
  handleRead(slot: number, storage: Buffer, start: number, end: number): void
  /** The peer ended its side. Nothing more is read. */
  handleEnd(slot: number): void
  /** The socket broke (`errno` < 0, or {@link TLS_FAILED}, {@link TLS_TRUNCATED}). Nothing more is read or written. */
  handleError(slot: number, errno: number): void
  /** The socket broke while reading was off: what is still unread can be had with `setReading(slot, true)`. */
  handleHangup(slot: number): void
  /**
   * The peer ended its side while reading was off, behind bytes that have not been read: those, and `handleEnd`, come once
   * reading is on. Only where the poller can tell: `native`.
   */
  handleLeft(slot: number): void
  /** Room again after a short `write` or `flush`. */
  handleWritable(slot: number): void
  /** Accepting failed (`EMFILE` and its like) and is off until `setAccepting(listener, true)`. */
  handleAcceptError(listener: number, errno: number): void
  /** A listener was closed and its unix socket's file, still ours, could not be removed: why. Outside of batches. */
  handleFileLeft(error: NodeJS.ErrnoException): void
  /** The batch of `count` reports is over: time to flush. */
  handleBatchEnd(count: number): void
}

export interface TcpEndpoint {
  readonly host: string
  readonly port: number
}

export interface UnixEndpoint {
  readonly path: string
}

export type Endpoint = TcpEndpoint | UnixEndpoint

/** Options of the system's sockets; see `ServerOptions` for their meaning. */
export interface SocketOptions {
  readonly noDelay: boolean
  /** Milliseconds of silence before the first probe; 0 is off. */
  readonly keepAlive: number
}

export interface PollerConnectOptions extends SocketOptions {
  /** Speak TLS. */
  readonly tls?: ConnectionOptions | undefined
}

export interface ListenOptions extends SocketOptions {
  readonly backlog: number
  readonly reusePort: boolean
  /** Bytes of the kernel's; `native` poller only. */
  readonly receiveBuffer?: number | undefined
  /** Accepted sockets are parked for a hand-off instead of being read here. */
  readonly park: boolean
}

export interface Listening {
  readonly listener: number
  /** The endpoint with the port that the system chose, or the path made absolute. */
  readonly endpoint: Endpoint
}

/** What a poller is made with. */
export interface PollerOptions {
  /** Accepted sockets speak TLS. */
  readonly tls?: ServerTlsOptions | undefined
  /** Milliseconds that the TLS handshake of an accepted socket may take; 0 is for ever. Default {@link HANDSHAKE_TIMEOUT}. */
  readonly handshakeTimeout?: number | undefined
  /** Closed sockets that may linger at once; one more ends the oldest. Default {@link MAX_LINGERING}. */
  readonly maxLingering?: number | undefined
}

/**
 * Instead of a listener's number: the socket was counted before it came, by the acceptor of another thread or by
 * {@link PollerSink.admit}.
 */
export const COUNTED = -1

/** Instead of an errno: TLS failed; {@link Poller.tlsError} says why. */
export const TLS_FAILED = -10_001
/** Instead of an errno: the peer's side ended without the `close_notify` that says so, so that something may be missing. */
export const TLS_TRUNCATED = -10_002

/** Numbers per record of `outRecords`: slot, offset in `outSlab`, length; `flush` puts the bytes taken over the length. */
export const OUT_STRIDE = 3

export interface Poller {
  readonly kind: 'native' | 'net'
  /** Where the loop gathers the answers of a batch. */
  readonly outSlab: Buffer
  readonly outRecords: Int32Array

  /**
   * Host names are resolved by the caller: `endpoint.host` is an address. A relative path is resolved now. Rejects with
   * the system's error.
   */
  listen(endpoint: Endpoint, options: ListenOptions): Promise<Listening>
  setAccepting(listener: number, on: boolean): void
  /** The file of a unix socket is removed with it, if it is still this listener's; see `handleFileLeft`. */
  closeListener(listener: number): void

  /** The slot, or a negative errno. `handleConnect` or `handleError` follows. */
  connect(endpoint: Endpoint, options: PollerConnectOptions): number

  /** Starts reading a parked slot here. */
  adopt(slot: number): void

  /**
   * Writes `count` records of `outRecords`; each record's length becomes the number of bytes taken or a negative errno.
   * Returns how many records were not taken whole; after a short one `handleWritable` follows.
   */
  flush(count: number): number
  /** Bytes taken, or a negative errno. After a short write (0 included) `handleWritable` follows; offer the same bytes then. */
  write(slot: number, bytes: Uint8Array, start: number, end: number): number

  /** The same of `head` bytes of `outSlab` from `at` on and all of `bytes` behind them, in one write where it can. */
  writeBehind(slot: number, at: number, head: number, bytes: Uint8Array): number

  /** What is read from now on begins with a WebSocket frame: where it can, the poller takes the masks off; see `unmaskFrames`. */
  unmask(slot: number): void

  /** 0 or a negative errno: then nothing is reported of it any more. */
  setReading(slot: number, on: boolean): number
  /** 0 or a negative errno. Everything taken before is sent first. */
  shutdownWrite(slot: number): number
  /**
   * Gives the slot back; nothing is reported of it any more. With `linger` what was taken is delivered first, and what
   * the peer still sends is read and thrown away for at most {@link LINGER_MS}, or until `maxLingering` others have been
   * closed: a bare close would answer it with a reset, which can destroy bytes on their way to the peer.
   */
  close(slot: number, linger: boolean): void
  /**
   * Gives the slot back, at once, and the peer sees a reset: what it has got is not whole. What was taken may be lost. A unix
   * socket has no reset: it ends, and so does a `connect` with TLS.
   */
  reset(slot: number): void
  /** Ends lingering sockets whose time is over; `true` while others are left. */
  expireLingering(): boolean

  /** `host:port`, `[host]:port` for IPv6, `''` for a unix socket. Good until `close`. */
  peerAddr(slot: number): string
  localAddr(slot: number): string

  /** What is known of its TLS; `undefined` where it speaks none. Good until `close`. */
  tlsInfo(slot: number): TlsInfo | undefined
  /** After an error that is {@link TLS_FAILED}: why. Good until `close`. */
  tlsError(slot: number): Error | undefined
  /**
   * Sockets that are accepted from now on speak TLS by these options. Throws `ERR_RINGLOOP_OPTION` where they cannot be
   * used; those before stay in force then.
   */
  setTls(options: ServerTlsOptions): void

  /** Whether this poller keeps the process alive. */
  setRef(on: boolean): void
  /** Closes everything, the listeners as `closeListener` does. Every method is a no-op afterwards. */
  destroy(): void
}

/** After the descriptors ran out, accepting is tried again this often. */
export const ACCEPT_RETRY_MS = 100

/** How long a closed socket may linger. */
export const LINGER_MS = 2000

/** How often one who waits for them looks whether all lingering sockets have ended, in milliseconds. */
export const LINGER_CHECK_MS = 10

/** How many closed sockets may linger on one poller, unless it is told otherwise. */
export const MAX_LINGERING = 1024

/** TLS handshakes that may be under way at once on one poller, unless it is told otherwise. */
export const MAX_HANDSHAKES = 16_384

/** What the handshake of an accepted socket may take in ms, unless the poller is told otherwise. */
export const HANDSHAKE_TIMEOUT = 30_000
