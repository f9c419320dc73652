/**
 * What a handler or a protocol may ask of its loop: an interface only. `loop/event-loop.ts` implements it. Everything
 * here is to be called on the loop's thread.
 */
import type { Connection } from './connection.js'
import type { Logger } from './log.js'
import type { LoopStats } from './loop/stats.js'
import type { Address, ConnectOptions, StopOptions } from './options.js'
import type { Protocol } from './protocol/protocol.js'
import type { Timer } from './timers/index.js'

/** What a broadcast or a publication did. */
export interface BroadcastResult {
  /** Connections that the message was sent to. */
  readonly sent: number
  /** Connections above their high-water mark that it was not sent to; of a publication also loops too far behind. */
  readonly dropped: number
  /** Of the dropped ones, those that were closed for it. */
  readonly closed: number
}

export interface BroadcastOptions {
  /** What happens to a connection above its high-water mark: the message is dropped (default), or it is closed. */
  readonly slow?: 'drop' | 'close'
}

export interface LocalBroadcastOptions<Out> extends BroadcastOptions {
  /** Leaves out connections for which it is `false`. */
  readonly filter?: (c: Connection<Out>) => boolean
}

/** `T` is not guessed from what is given for it: it is the default unless it is said, as in `broadcast<Out>(…)`. */
type Said<T> = [T][T extends unknown ? 0 : never]

/** The loop of a connection. `Data` is the type of the option `data`. */
export interface Loop<Data = unknown> {
  /** 0 … numLoops - 1. */
  readonly id: number

  /** How many loops the server has; 1 for a loop made by `new EventLoop`. */
  readonly numLoops: number

  /** The same on every loop of a server and on no other: names a `BroadcastChannel` on which they can talk. */
  readonly serverId: string

  /** The `data` of the options: a copy in each thread. */
  readonly data: Data

  readonly logger: Logger

  /** Which poller this loop uses. */
  readonly poller: 'native' | 'net'

  /** `true` once `stop` was called: a protocol may tell its peers. */
  readonly stopping: boolean

  /**
   * Every connection of this loop, accepted or made by `connect`; also one that is still connecting or closing, where
   * `connected` is `false`. They may be of different protocols: to send to them all use {@link broadcast}.
   */
  readonly connections: Iterable<Connection<never>>

  /** Calls `fn` once, in `ms` milliseconds, on this loop. What it throws is logged. */
  runAfter(ms: number, fn: () => void): Timer

  /** Calls `fn` every `ms` milliseconds on this loop until the handle is stopped. What it throws is logged. */
  runEvery(ms: number, fn: () => void): Timer

  /** Lets a timer of the caller's own class fire in `ms` milliseconds; one that waits already is moved. */
  addTimer(timer: Timer, ms: number): void

  /** Calls `fn` at the end of this turn, before its output is flushed; outside a turn, soon. What it throws is logged. */
  queueInLoop(fn: () => void): void

  /**
   * Resolves in a later round of the loop, when the sockets and everybody who yielded before have had their turn. For
   * work that could go on and on: `await loop.yield()` every half a millisecond or so.
   */
  yield(): Promise<void>

  /** What this loop has counted. */
  stats(): LoopStats

  /**
   * Connects on this loop. Resolves after the handler's `onConnect`; rejects with `ERR_RINGLOOP_CONNECT` when the peer
   * cannot be reached, the handshake fails, or `timeout` is over, and with `ERR_RINGLOOP_CLOSED` on a stopped loop.
   * The addresses of a host name are tried one after another.
   */
  connect<State = unknown>(
    address: Address,
    options: ConnectOptions<undefined, Uint8Array | string, State>,
  ): Promise<Connection<Uint8Array | string, State>>
  connect<Ctx, Out, State = unknown>(
    address: Address,
    options: ConnectOptions<Ctx, Out, State> & { readonly protocol: Protocol<Ctx, Out> },
  ): Promise<Connection<Out, State>>

  /**
   * Sends `out` to every connection that this loop has accepted and whose handshake is over. It is packed once where
   * the protocol can. Not for connections made by `connect`.
   */
  broadcast<Out = Uint8Array | string>(
    out: Said<Out>,
    options?: LocalBroadcastOptions<Said<Out>>,
  ): BroadcastResult

  /**
   * Sends `out` to every connection that is subscribed to `topic`, on every loop of the server: on this one at the end of
   * the turn, packed once where the protocol can, on the others soon. What one publisher publishes to one topic keeps its
   * order everywhere, and its place among what is sent here. Bytes are the caller's again when this returns. Where there
   * are several loops `out` must be a value that can be cloned.
   *
   * Resolves with what all loops did; rejects where it could not be packed later or on another loop, or not be cloned
   * (`ERR_RINGLOOP_PACKET`), which is logged too and may be left unawaited. Throws `ERR_RINGLOOP_TOPIC` (see
   * {@link Connection.subscribe}), `ERR_RINGLOOP_OPTION`, and what the protocol throws for an `out` that it cannot pack.
   */
  publish<Out = Uint8Array | string>(
    topic: string,
    out: Said<Out>,
    options?: BroadcastOptions,
  ): Promise<BroadcastResult>

  /** How many connections of this loop are subscribed to `topic`. Throws `ERR_RINGLOOP_TOPIC`. */
  subscribers(topic: string): number

  /**
   * Ends every connection: those with an answer pending or bytes unsent get `drain` ms (default 0) for them. Then
   * everything of this loop is closed; timers and tasks are dropped. Later calls give the same promise.
   */
  stop(options?: StopOptions): Promise<void>
}
