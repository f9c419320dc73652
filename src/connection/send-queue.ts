/**
 * What one connection still has to send, and who waits for it: the place where a slow reader is treated. It says when the
 * peer is held back and let go; the receive side, which reads, does that (`throttle`, `unthrottle`). It exists
 * only while something waits: a backlog that the kernel did not take, an `onSent`, a `drained()`, or a held-back peer.
 * The backlog's ring comes from the loop's pool and goes back when it is empty. The loop's thread only.
 *
 *     above highWaterMark, even after the kernel was asked    the peer is not read any more, `send` says false
 *     the kernel has room again                               the backlog is written, as far as it goes
 *     at lowWaterMark                                         reading goes on, `onDrain`, `drained()`
 */
import type { OnSent } from '../connection.js'
import { ErrorCode, RingloopError } from '../errors.js'
import type { RingBuffer } from '../ringbuffer/ring-buffer.js'
import type { ConnectionHost } from './host.js'

/** The connection, as its queue sees it. */
export interface QueueOwner {
  readonly host: ConnectionHost
  readonly slot: number
  readonly highWaterMark: number
  readonly lowWaterMark: number
  /** Bytes that are gathered in the out slab, ahead of which nothing of this queue may go. */
  readonly gathered: number
  /** Nothing can be written any more. */
  readonly isBroken: boolean
  /** The peer is held back because it does not read. */
  readonly isThrottled: boolean
  throttle(): void
  unthrottle(): void
  /** The kernel has taken so many bytes. */
  tookBytes(count: number): void
  /** A write failed. */
  breakWith(errno: number): void
  callOnSent(onSent: OnSent, error: Error | undefined): void
}

interface SentCallback {
  /** The value of `#taken` at which the bytes are in the kernel. */
  readonly at: number
  readonly onSent: OnSent
}

export class SendQueue {
  readonly #owner: QueueOwner
  #backlog: RingBuffer | undefined = undefined
  /** A write was short: there is nothing to do until the poller reports room. */
  #isBlocked = false
  #sent: SentCallback[] = []
  /** Bytes taken since this queue was made. */
  #taken = 0
  #waiting: (() => void)[] = []

  constructor(owner: QueueOwner) {
    this.#owner = owner
  }

  /** Bytes that the kernel did not take, or that came behind such. */
  get length(): number {
    return this.#backlog === undefined ? 0 : this.#backlog.length
  }

  get hasBacklog(): boolean {
    return this.#backlog !== undefined
  }

  /** Nothing and nobody waits: it can go. */
  get isIdle(): boolean {
    return this.#backlog === undefined && this.#sent.length === 0 && this.#waiting.length === 0
  }

  /** Puts a copy of `bytes[start…end)` behind the backlog. */
  push(bytes: Uint8Array, start: number, end: number): void {
    const { host, slot } = this.#owner
    this.#backlog ??= host.outPool.take()
    this.#backlog.writeRange(bytes, start, end)
    host.traffic.backlogBytes += end - start
    host.out.afterFlush(slot)
  }

  /** A write was short. */
  block(): void {
    this.#isBlocked = true
  }

  /** The kernel has room again. */
  unblock(): void {
    this.#isBlocked = false
  }

  /** The kernel has taken `count` bytes of this connection, of the slab, of the backlog, or written at once. */
  count(count: number): void {
    this.#taken += count
  }

  /** Calls `onSent` once the kernel has everything up to here. */
  remember(onSent: OnSent): void {
    const { host, slot, gathered } = this.#owner
    this.#sent.push({ at: this.#taken + gathered + this.length, onSent })
    host.out.afterFlush(slot)
  }

  /** Resolves at the low-water mark, or when nothing can be sent any more. */
  room(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  /** Something was sent: above the mark even after the kernel was asked, the peer is held back until it has read enough. */
  checkHighWater(): void {
    const owner = this.#owner
    if (owner.isThrottled || owner.gathered + this.length <= owner.highWaterMark) return
    owner.host.readClock() // it may be long since the last turn
    if (owner.gathered > 0) owner.host.out.write()
    this.#write()
    if (owner.isBroken || owner.gathered + this.length <= owner.highWaterMark) return
    owner.throttle()
  }

  /** The end of a flush: what can be written is, and whoever waited for that is told. */
  flushed(): void {
    const owner = this.#owner
    this.#write()
    this.settleSent(owner.isBroken)
    if (owner.isThrottled && owner.gathered + this.length <= owner.lowWaterMark) {
      this.settleWaiting()
      owner.unthrottle()
    }
  }

  #write(): void {
    const owner = this.#owner
    const { host, slot } = owner
    for (let ring = this.#backlog; ring !== undefined && !this.#isBlocked; ring = this.#backlog) {
      const offered = ring.contiguous
      const taken = host.poller.write(slot, ring.storage, ring.start, ring.start + offered)
      if (taken < 0) {
        owner.breakWith(taken)
        return
      }
      ring.retrieve(taken)
      host.traffic.backlogBytes -= taken
      owner.tookBytes(taken)
      if (taken < offered) this.#isBlocked = true
      else if (ring.isEmpty) this.drop()
    }
  }

  /** Gives the backlog back, with what is still in it. */
  drop(): void {
    const ring = this.#backlog
    this.#isBlocked = false
    if (ring === undefined) return
    const { host } = this.#owner
    host.traffic.backlogBytes -= ring.length
    this.#backlog = undefined
    host.outPool.give(ring)
  }

  /** Calls what is done; where nothing can be sent any more, all of them. */
  settleSent(isLost: boolean): void {
    const all = this.#sent
    let done = 0
    while (done < all.length && all[done]!.at <= this.#taken) done++
    if (done === 0 && !isLost) return
    this.#sent = isLost ? [] : all.slice(done)
    for (let i = 0; i < done; i++) this.#owner.callOnSent(all[i]!.onSent, undefined)
    if (isLost) for (let i = done; i < all.length; i++) this.#owner.callOnSent(all[i]!.onSent, neverSent())
  }

  settleWaiting(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve()
  }
}

export function neverSent(): Error {
  return new RingloopError(ErrorCode.CLOSED, 'the connection was closed before the bytes were sent')
}
