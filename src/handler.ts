/**
 * Every callback that a user writes for a connection: interfaces only. All of them run on the thread of the loop that
 * owns the connection; none is called twice at the same time for one loop.
 */
import type { Connection } from './connection.js'
import type { CloseReason } from './errors.js'
import type { Loop } from './loop.js'

/**
 * Answers packets. Only `onMessage` is needed. `Ctx` and `Out` are what the protocol cuts and packs; `State` is the type
 * of `c.context`, `Data` that of `loop.data`.
 *
 * A handler that throws, or whose promise rejects, is logged and closes that connection; the loop goes on. What a
 * callback that gives `unknown` returns is ignored, unless it is a promise.
 */
export interface Handler<Ctx = undefined, Out = Uint8Array | string, State = unknown, Data = unknown> {
  /** Once per loop, before its first connection; a promise is awaited, a throw or rejection fails `server.start()`. */
  onStart?(loop: Loop<Data>): void | Promise<void>

  /** Once per loop, after its last connection; a promise is awaited before the loop ends. */
  onStop?(loop: Loop<Data>): void | Promise<void>

  /**
   * Once per connection, always before its first `onMessage`: at accept, or after the protocol's handshake. A promise is
   * awaited before the first `onMessage`, for `handshakeTimeout` at most.
   */
  onConnect?(c: Connection<Out, State, Data>): unknown

  /**
   * One packet. `data` is the handler's own and may be kept, unless the protocol says `borrow`.
   * What it returns, now or through a promise, is packed as the answer and sent. While a promise is pending no further
   * packet of this connection is handed over, so answers keep their order, unless the protocol is `multiplexed`.
   */
  onMessage: (c: Connection<Out, State, Data>, ctx: Ctx, data: Buffer) => Out | void | Promise<Out | void>

  /** The write buffer was above the high-water mark and has fallen below the low-water mark: send on. */
  onDrain?(c: Connection<Out, State, Data>): unknown

  /**
   * The peer has ended its side, and everything that it has sent was handed over and answered: no `onMessage` follows.
   * With `allowHalfOpen` this side may go on sending until it calls `c.end()` or `c.close()`; without it the connection
   * closes after this call. Not called where the peer has left while an answer was pending, see `Protocol.endsWithPeer`.
   */
  onEnd?(c: Connection<Out, State, Data>): unknown

  /**
   * Subscribers of this loop may have missed something of `topic` that was published on other machines: see {@link Gap}. They are
   * `loop.connections` whose `topics` have it. Only with a broker.
   */
  onGap?(topic: string, gap: Gap, loop: Loop<Data>): unknown

  /**
   * What subscribers get for `out`, published to a topic with history at `position`: to be able to come back, a client has to
   * know where it was. Once per loop and publication, and once per message for a subscriber that catches up. Default: `out`.
   */
  withPosition?(topic: string, out: Out, position: string): Out

  /** Exactly once for each `onConnect`, and last. The connection can be looked at, sending on it does nothing. */
  onClose?(c: Connection<Out, State, Data>, reason: CloseReason): unknown
}

/** What is known of publications that did not arrive. */
export interface Gap {
  /** How many, `undefined` where that cannot be known: then perhaps none. */
  readonly missed: number | undefined
  /**
   * `broker-away` the connection to the broker was gone for a while · `unpublished` a publisher could not bring them to the
   * broker · `history-lost` they are not in the history any more · `loop-behind` this loop was too far behind.
   */
  readonly reason: 'broker-away' | 'unpublished' | 'history-lost' | 'loop-behind'
}

/**
 * What a loop module may export as `default` (and, with `Protocol`, as `protocol`): the object itself, a class made
 * with `new (loop)`, or a factory called with the loop, which may be async. Each loop makes its own.
 */
export type PerLoop<T, Data = unknown> =
  | T
  | (new (
      loop: Loop<Data>,
    ) => T)
  | ((loop: Loop<Data>) => T | Promise<T>)
