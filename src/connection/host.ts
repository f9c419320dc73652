/**
 * What a connection asks of its loop: the poller that has its socket, the slab that its answers are gathered in, memory,
 * counters, turns. An interface only, so that a connection knows nothing of who stands behind it;
 * `loop/connection-table.ts` implements it. The loop's thread only.
 */
import type { Subscription } from '../connection.js'
import type { CloseReason } from '../errors.js'
import type { LogLimit } from '../log-limit.js'
import type { Poller } from '../loop/poller/poller.js'
import type { BroadcastOptions, BroadcastResult, Loop } from '../loop.js'
import type { RingBufferPool } from '../ringbuffer/pool.js'
import type { RingBuffer } from '../ringbuffer/ring-buffer.js'
import type { MessageSampler } from './message-sampler.js'
import type { TcpConnection } from './tcp-connection.js'
import type { Traffic } from './traffic.js'

// biome-ignore lint/suspicious/noExplicitAny: what passes through is known to the protocol alone
type Any = any
/** A connection of whatever protocol. */
export type AnyConnection = TcpConnection<Any>

/** Who gathers bytes in the out slab. */
export interface SegmentOwner {
  readonly slot: number
  /** Bytes wait before whatever would be gathered now. */
  readonly hasBacklog: boolean
  readonly isBroken: boolean
  /** Its segment cannot stay: the bytes move behind its backlog. */
  spillSegment(slab: Buffer, start: number, end: number): void
  tookBytes(count: number): void
  /** Of its segment the kernel took only the first `taken` bytes, or there was an error. */
  handleShortSegment(slab: Buffer, start: number, end: number, taken: number): void
}

/** Who waits for a turn. */
export interface TurnTaker {
  takeTurn(): void
}

/** The out slab: small answers of a turn lie in it, the bytes of one connection together as its segment. */
export interface OutSegments {
  /** The slab itself; written only between {@link open} and {@link close}. */
  readonly bytes: Buffer
  /** How many those are. */
  readonly capacity: number
  /**
   * Where `c` may put `length` bytes, right behind what it has gathered; -1 where it may not: its bytes have to go
   * behind its backlog.
   */
  open(c: SegmentOwner, length: number): number
  /** `c` has put its bytes at `at`, up to `end`; they go out with the next flush. */
  close(c: SegmentOwner, at: number, end: number): void
  /** Writes at once what `c` has gathered and `bytes` behind it: how many of `bytes` were taken, or a negative errno. */
  writeBehind(c: SegmentOwner, bytes: Uint8Array): number
  /** Bytes of `slot` that are gathered and not yet offered to the kernel. */
  gathered(slot: number): number
  /** Forgets what is gathered for `slot`. */
  drop(slot: number): void
  /** Offers everything that is gathered to the kernel, of all connections. Calls no callback of the user's: it may be in one. */
  write(): void
  /** `c.handleFlushed()` is called at the end of the next flush. */
  afterFlush(slot: number): void
}

/** Who has had enough of this turn, and waits for the next. */
export interface Turns {
  /** After so many packets a connection looks at the clock. */
  readonly packetsPerLook: number
  /** How long one connection may go on in one turn, in ms; less while many wait. */
  readonly slice: number
  /** Milliseconds since anybody last looked, or since the turn began. */
  lap(): number
  /** `c.takeTurn()` is called in a later round, in turn with the others. */
  push(c: TurnTaker): void
  /** Whether a chain of promises has kept the loop for so long that the others should have their turn. */
  readonly isOverdue: boolean
  /** The same, asked often: it looks at the clock now and then. */
  readonly isTired: boolean
}

/** Who is subscribed to what, on the loop. */
export interface Subscriptions {
  /** What was published in this turn and is not with its subscribers yet. */
  readonly turn: { readonly hasPending: boolean; deliver(): void }
  /** Returns the name to remember, for the given one may keep a message alive. Throws `ERR_RINGLOOP_TOPIC` for no name. */
  add(topic: string, c: AnyConnection): string
  /** For one that was just added: see `Connection.subscribe`. */
  catchUp(topic: string, c: AnyConnection, since: string | undefined): Promise<Subscription>
  /** Does nothing where it is not subscribed. */
  remove(topic: string, c: AnyConnection): void
  /**
   * To every subscriber of every loop but `publisher`. Resolves with what was done; a rejection is looked after. Throws
   * `ERR_RINGLOOP_TOPIC`, `ERR_RINGLOOP_OPTION`, and what a protocol throws for an `out` that none here can pack.
   */
  publish(
    topic: string,
    out: unknown,
    options: BroadcastOptions,
    publisher: AnyConnection | undefined,
  ): Promise<BroadcastResult>
}

export interface ConnectionHost {
  readonly loop: Loop
  /** The loop's clock in ms, as of this turn: an int32, which wraps after 24.8 days; compare differences `| 0`. */
  readonly now: number
  /** Reads the clock anew. */
  readClock(): number
  readonly poller: Poller
  readonly out: OutSegments
  readonly turns: Turns
  readonly topics: Subscriptions
  readonly traffic: Traffic
  readonly sampler: MessageSampler
  /** The one view through which protocols look at the poller's memory. */
  readonly view: RingBuffer
  /** Rings for unfinished packets, and for what the kernel refused. */
  readonly pool: RingBufferPool
  readonly outPool: RingBufferPool
  /** What is logged of the faults of peers. */
  readonly faultLog: LogLimit
  /** What is logged of callbacks that fail: peers can make them, too. */
  readonly errorLog: LogLimit
  /** By slot: when bytes last went in or out, by the clock above. */
  readonly lastActive: Int32Array
  /** How many rounds it takes until every socket that is ready has been read. */
  readonly roundsToReadAll: number
  countHandlerError(): void
  countProtocolError(): void
  /** `c` is over and gives its slot back. */
  remove(c: AnyConnection, linger: boolean, reason: CloseReason): void
}
