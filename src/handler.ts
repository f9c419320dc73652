/**
 * Every callback that a user writes for a connection. All of them run on the thread of the loop that owns the
 * connection; none is called twice at the same time for one loop.
 */
import type { Connection } from './connection.js'
import type { CloseReason } from './errors.js'
import type { EventLoop } from './loop/event-loop.js'

/**
 * Answers packets. Only `onMessage` is needed.
 *
 * A handler that throws, or whose promise rejects, is logged and closes that connection; the loop goes on.
 */
export interface Handler<Ctx = undefined, Out = Uint8Array | string> {
  /** Once per loop, before its first connection; a promise is awaited, a throw or rejection fails `server.start()`. */
  onStart?(loop: EventLoop): void | Promise<void>

  /** Once per loop, after its last connection; a promise is awaited before the loop ends. */
  onStop?(loop: EventLoop): void | Promise<void>

  /** Once per connection, always before its first `onMessage`: at accept, or after the protocol's handshake. */
  onConnect?(c: Connection<Out>): void

  /**
   * One packet. `data` is the handler's own and may be kept, unless the protocol says `borrow`.
   * What it returns, now or through a promise, is packed as the answer and sent. While a promise is pending no further
   * packet of this connection is handed over, so answers keep their order, unless the protocol is `multiplexed`.
   */
  onMessage(c: Connection<Out>, ctx: Ctx, data: Buffer): Out | void | Promise<Out | void>

  /** The write buffer was above the high-water mark and has fallen below the low-water mark: send on. */
  onDrain?(c: Connection<Out>): void

  /** Exactly once for each `onConnect`, and last. The connection can be looked at, sending on it does nothing. */
  onClose?(c: Connection<Out>, reason: CloseReason): void
}

/**
 * What a loop module may export as `default` (and, with `Protocol`, as `protocol`): the object itself, a class made
 * with `new (loop)`, or a factory called with the loop. Each loop makes its own.
 */
export type PerLoop<T> = T | (new (loop: EventLoop) => T) | ((loop: EventLoop) => T)
