/**
 * `EventLoop` as its users see it. The class that serves connections, `event-loop.ts`, has more that only the server, the
 * tables and the connections call; the types keep that out of sight. No code of its own.
 */
import type { Loop } from '../loop.js'
import type { LoopOptions } from '../options.js'
import { EventLoop as LoopMachine } from './event-loop.js'

/** A loop of one's own, for clients, in the thread that made it. `Data` is the type of the option `data`. */
export interface EventLoop<Data = unknown> extends Loop<Data> {
  /** Stops at the end of an `await using` block, without `drain`. */
  [Symbol.asyncDispose](): Promise<void>
}

export interface EventLoopConstructor {
  /**
   * A loop for clients, in this thread: use `connect`. A server makes its own. Throws `ERR_RINGLOOP_OPTION`, and
   * `ERR_RINGLOOP_POLLER` when `poller` is `native` and there is no addon.
   */
  new <Data>(options: LoopOptions<Data> & { readonly data: Data }): EventLoop<Data>
  new (options?: LoopOptions<undefined>): EventLoop<undefined>
  readonly prototype: EventLoop
}

export const EventLoop: EventLoopConstructor = LoopMachine
