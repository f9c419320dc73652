/**
 * What a connection sends: packing, gathering in the loop's out slab, writing large pieces at once, ending its side. What
 * the kernel does not take, and who waits for it, is the `SendQueue`'s. The loop's thread only.
 *
 *     send ─▶ packetInto ─▶ out slab ── flush, one write per connection ──▶ kernel
 *        └──▶ packet ─────────▲ │ large: at once                              │
 *                               └──────────▶ SendQueue ◀── what it refuses ───┘
 */

import type { OnSent } from '../connection.js'
import { ErrorCode, RingloopError } from '../errors.js'
import { kindOf, notSendable } from '../protocol/not-sendable.js'
import type { BroadcastPacker, Packed } from '../protocol/protocol.js'
import { brokenReason } from './close-reason.js'
import { ConnectionBase, State } from './connection-base.js'
import { neverSent, type QueueOwner, SendQueue } from './send-queue.js'

/** The bits of this layer. */
const Bit = {
  /** Nothing can be written any more. */
  BROKEN: 1,
  /** `shutdownWrite()` was called. */
  SHUT: 1 << 1,
  /** The poller has been told so. */
  SHUT_DONE: 1 << 2,
} as const

const CANNOT_SEND = Bit.BROKEN | Bit.SHUT

/** From this size on bytes are written at once and not copied to the out slab. */
const LARGE = 32 * 1024
/** `packetInto` did not write; `packet` is asked. */
const NOT_WRITTEN = -1
const NO_BYTES: Packed = []

export abstract class SendSide<Out, Context> extends ConnectionBase<Out, Context> implements QueueOwner {
  /** `send` sends: not before it is open, and not once a side of it has ended. */
  get canSend(): boolean {
    return this.state === State.OPEN && (this.bits & CANNOT_SEND) === 0
  }

  get writeBufferLength(): number {
    const queue = this.extra?.queue
    return this.gathered + (queue === undefined ? 0 : queue.length)
  }

  send(out: Out, onSent?: OnSent): boolean {
    this.letPublicationsPass()
    if (!this.canSend) return this.refuse(onSent)
    this.pack(out, undefined)
    return this.sent(onSent)
  }

  sendRaw(bytes: Packed, onSent?: OnSent): boolean {
    this.letPublicationsPass()
    if (!this.canSend) return this.refuse(onSent)
    this.append(bytes)
    return this.sent(onSent)
  }

  sendPacked(pack: BroadcastPacker<Out, unknown>): boolean {
    this.letPublicationsPass()
    if (!this.canSend) return this.refuse(undefined)
    const bytes = pack(this)
    if (bytes === undefined || !this.canSend) return false
    this.append(bytes)
    this.sent(undefined)
    return true
  }

  end(out?: Out, onSent?: OnSent): boolean {
    const sent = out === undefined ? this.sendRaw(NO_BYTES, onSent) : this.send(out, onSent)
    this.shutdownWrite()
    return sent
  }

  shutdownWrite(): void {
    this.letPublicationsPass()
    if (!this.canSend) return
    this.bits |= Bit.SHUT
    this.host.out.afterFlush(this.slot)
  }

  async drained(): Promise<boolean> {
    if (this.canSend && !this.isThrottled && this.host.turns.isOverdue) await this.loop.yield()
    while (this.canSend && this.isThrottled) await this.sendQueue().room()
    return this.canSend
  }

  /** The answer to a packet; `ctx` is the packet's. */
  protected answer(out: Out, ctx: unknown): void {
    this.letPublicationsPass()
    if (!this.canSend) return
    this.pack(out, ctx)
    this.checkHighWater()
  }

  /** What was published to its topics comes before whatever it sends or does next. */
  protected letPublicationsPass(): void {
    const { turn } = this.host.topics
    if (turn.hasPending && this.extra?.topics !== undefined) turn.deliver()
  }

  private pack(out: Out, ctx: unknown): void {
    const { protocol } = this.config
    const slab = this.host.out
    if (out === null) throw notSendable(out, 'return nothing (undefined) where there is no answer')
    this.host.traffic.messagesOut++
    if (protocol.packetInto !== undefined && !this.hasBacklog) {
      const at = slab.open(this, 1)
      if (at >= 0) {
        const wrote = protocol.packetInto(this, out, ctx, slab.bytes, at)
        if (this.state === State.CLOSED || this.isBroken) return
        if (wrote !== NOT_WRITTEN) {
          slab.close(this, at, endOf(at, wrote, slab.bytes))
          return
        }
      }
    }
    this.append(protocol.packet(this, out, ctx))
  }

  /** Nothing of it is sent where one piece is not bytes. */
  private append(packed: Packed): void {
    if (packed instanceof Uint8Array) {
      this.appendBytes(packed)
      return
    }
    if (!Array.isArray(packed)) throw notSendable(packed, 'on the wire go Uint8Arrays, one or a list')
    for (let i = 0; i < packed.length; i++) {
      if (!(packed[i] instanceof Uint8Array)) throw notSendable(packed[i], 'each piece must be a Uint8Array')
    }
    for (let i = 0; i < packed.length; i++) this.appendBytes(packed[i]!)
  }

  private appendBytes(bytes: Uint8Array): void {
    const { length } = bytes
    if (length === 0 || this.state === State.CLOSED || this.isBroken) return
    if (length >= LARGE) {
      this.writeLarge(bytes)
      return
    }
    const slab = this.host.out
    const at = this.hasBacklog ? -1 : slab.open(this, length)
    if (at >= 0) {
      slab.bytes.set(bytes, at)
      slab.close(this, at, at + length)
    } else if (!this.isBroken) {
      this.sendQueue().push(bytes, 0, length)
    }
  }

  /** Writes at once, together with what was gathered before; only what the kernel refuses is copied. */
  private writeLarge(bytes: Uint8Array): void {
    const { length } = bytes
    const taken = this.hasBacklog ? 0 : this.writeNow(bytes)
    if (this.isBroken) return
    if (taken < 0) {
      this.breakWith(taken)
      return
    }
    this.host.readClock() // it may be long since the last turn
    if (taken > 0) this.tookBytes(taken)
    if (taken === length) return
    const queue = this.sendQueue()
    if (!queue.hasBacklog) queue.block()
    queue.push(bytes, taken, length)
  }

  private writeNow(bytes: Uint8Array): number {
    const { out, poller } = this.host
    if (this.gathered > 0) return out.writeBehind(this, bytes)
    return poller.write(this.slot, bytes, 0, bytes.length)
  }

  /** What a `send` still has to do: remember its callback, look at the marks. */
  private sent(onSent: OnSent | undefined): boolean {
    if (this.isBroken) return this.refuse(onSent)
    if (onSent !== undefined) this.sendQueue().remember(onSent)
    this.checkHighWater()
    if (this.isBroken) this.strand()
    return !this.isThrottled && !this.isBroken
  }

  private checkHighWater(): void {
    const queue = this.extra?.queue
    const { highWaterMark } = this.config
    if (queue !== undefined) queue.checkHighWater()
    // Where nothing waits, all that is unsent lies in the slab.
    else if (highWaterMark < this.host.out.capacity && this.gathered > highWaterMark) {
      this.sendQueue().checkHighWater()
    }
  }

  /** Made when something begins to wait. */
  private sendQueue(): SendQueue {
    const extra = this.extras()
    extra.queue ??= new SendQueue(this)
    return extra.queue
  }

  private refuse(onSent: OnSent | undefined): boolean {
    if (this.isBroken) this.strand()
    if (onSent !== undefined) process.nextTick(() => this.callOnSent(onSent, neverSent()))
    return false
  }

  // ---- what the queue and the out slab ask ---------------------------------------------------------------------------

  get highWaterMark(): number {
    return this.config.highWaterMark
  }

  get lowWaterMark(): number {
    return this.config.lowWaterMark
  }

  get gathered(): number {
    return this.slot < 0 ? 0 : this.host.out.gathered(this.slot)
  }

  get hasBacklog(): boolean {
    return this.extra?.queue?.hasBacklog === true
  }

  get isBroken(): boolean {
    return (this.bits & Bit.BROKEN) !== 0
  }

  /** The receive side holds the peer back while it does not read. */
  abstract readonly isThrottled: boolean
  abstract throttle(): void
  abstract unthrottle(): void

  tookBytes(count: number): void {
    const { host } = this
    host.traffic.bytesOut += count
    host.lastActive[this.slot] = host.now
    this.extra?.queue?.count(count)
  }

  /** Of its segment in the out slab the kernel took only the first `taken` bytes, or there was an error. */
  handleShortSegment(slab: Buffer, start: number, end: number, taken: number): void {
    if (taken < 0) {
      this.breakWith(taken)
      return
    }
    if (taken > 0) this.tookBytes(taken)
    const queue = this.sendQueue()
    queue.block()
    queue.push(slab, start + taken, end)
  }

  /** Its segment is not the last in the slab: the bytes move to the backlog so that later ones can follow. */
  spillSegment(slab: Buffer, start: number, end: number): void {
    this.sendQueue().push(slab, start, end)
  }

  callOnSent(onSent: OnSent, error: Error | undefined): void {
    try {
      onSent(error)
    } catch (thrown) {
      this.fail('onSent', thrown)
    }
  }

  /** Room again. */
  handleWritable(): void {
    this.extra?.queue?.unblock()
    this.host.out.afterFlush(this.slot)
  }

  // ---- the end of sending --------------------------------------------------------------------------------------------

  /** No more bytes can go out: what that means for those that come in. */
  protected abstract outputBroke(): void

  /** Nothing can be written any more, and the handler was told to wait for an `onDrain`. */
  protected abstract strand(): void

  /** Nothing can be written any more. What the peer has sent can still be read: its end or error comes that way. */
  breakWith(errno: number): void {
    if (!this.isBroken) this.extras().reason ??= brokenReason(errno, this.host.poller, this.slot)
    this.dropOutput()
    this.outputBroke()
  }

  protected dropOutput(): void {
    this.bits |= Bit.BROKEN
    this.extra?.queue?.drop()
    this.host.out.drop(this.slot)
    this.host.out.afterFlush(this.slot)
  }

  /** Everything is sent and this side was to end: it does. */
  protected finishShutdown(): void {
    if ((this.bits & (Bit.SHUT | Bit.SHUT_DONE | Bit.BROKEN)) !== Bit.SHUT) return
    this.bits |= Bit.SHUT_DONE
    this.host.poller.shutdownWrite(this.slot)
  }

  /** This side has ended, or broke. */
  protected get hasStoppedSending(): boolean {
    return (this.bits & (Bit.SHUT_DONE | Bit.BROKEN)) !== 0
  }

  /** The queue's part of the end of a flush; it goes when nothing waits any more. */
  protected flushQueue(): void {
    const queue = this.extra?.queue
    if (queue === undefined) return
    queue.flushed()
    if (queue.isIdle) this.extra!.queue = undefined
  }

  /** Nobody waits for a connection that is over. */
  protected settleSends(): void {
    const queue = this.extra?.queue
    queue?.settleSent(true)
    queue?.settleWaiting()
  }
}

/** Where a packet ends that `packetInto` has written at `at`. */
function endOf(at: number, wrote: number, slab: Buffer): number {
  if (Number.isInteger(wrote) && wrote >= 0 && wrote <= slab.length - at) return at + wrote
  throw new RingloopError(
    ErrorCode.PACKET,
    `packetInto must return how many bytes it wrote, or -1, not ${typeof wrote === 'number' ? wrote : kindOf(wrote)}`,
  )
}
