/**
 * What a connection receives: the reasons not to read, cutting packets, handing them over one after another or together,
 * for as long as its turn lasts. Owns a ring only while a packet is unfinished or has to wait. The loop's thread only.
 *
 *     slab ─▶ unPacket ─▶ onMessage ─▶ answer, now or by a promise
 *        └──▶ #in ──▲  what is unfinished, or waits for a turn, an answer, room
 */
import { ErrorCode, RingloopError } from '../errors.js'
import type { Packet } from '../protocol/protocol.js'
import type { RingBuffer } from '../ringbuffer/ring-buffer.js'
import { isThenable, State } from './connection-base.js'
import { SendSide } from './send-side.js'

/** Reasons not to hand over packets, or not to read. */
const Wait = {
  /** `pause()`. */
  PAUSED: 1,
  /** A promise of `onMessage` is pending. */
  REPLY: 1 << 1,
  /** `holdPackets()`. */
  HELD: 1 << 2,
  /** It has used up its time in this turn of the loop. */
  TURN: 1 << 3,
  /** Above the high-water mark, and not yet below the low one. */
  THROTTLED: 1 << 4,
  /** Its bytes go elsewhere, see `divert`. */
  DIVERTED: 1 << 5,
  /** Where they go there is no room. */
  DIVERSION_FULL: 1 << 6,
  /** No more bytes will come. */
  ENDED: 1 << 7,
  /** The loop stops: like ENDED, but the peer does not know yet. */
  DRAINING: 1 << 8,
  /** A promise of `onConnect` is pending. */
  GREETING: 1 << 9,
  /** No reason of its own: `onConnect` was called from within `unPacket`, which may return a packet yet. */
  JUST_GREETED: 1 << 10,
  /** No reason of its own: it broke, and its handler may be waiting for an `onDrain` that never comes. */
  STRANDED: 1 << 11,
} as const

/** For these reading goes on, up to READ_AHEAD bytes. */
const READS_AHEAD = Wait.REPLY | Wait.HELD | Wait.TURN | Wait.GREETING
const HOLDS_PACKETS = READS_AHEAD | Wait.PAUSED | Wait.THROTTLED | Wait.DIVERTED | Wait.DIVERSION_FULL
const DIVERSION = Wait.DIVERTED | Wait.DIVERSION_FULL
const HOLDS_DIVERTED = Wait.PAUSED | Wait.THROTTLED | Wait.DIVERSION_FULL
/** For these what waits is shown to a protocol that wants to know: it may be long. */
const LOOKS_AHEAD = Wait.REPLY | Wait.HELD
/** After a call of `unPacket`: its packet may come too early. */
const GREETED_WITHIN = Wait.GREETING | Wait.JUST_GREETED
const STOPS_READING = Wait.PAUSED | Wait.THROTTLED | Wait.DIVERSION_FULL | Wait.ENDED | Wait.DRAINING

/** The bits of this layer. */
const Bit = {
  /** The poller reads. */
  READING: 1 << 4,
  /** Its packets are being handed over right now. */
  UNPACKING: 1 << 5,
  /** A promise of `onMessage` has settled since the last {@link takeSettled}. */
  SETTLED: 1 << 6,
} as const

/** Reading goes on while packets wait for their turn, up to this many bytes. */
const READ_AHEAD = 64 * 1024
/** A protocol that returns this many packets without taking a byte does not take any. */
const MAX_FREE_PACKETS = 1 << 16

/** Where the bytes of a connection go instead of to `unPacket`. */
export interface Diversion {
  /** Takes bytes that are the loop's, valid until this returns. `false`: no more until `diversionDrained()`. */
  take(bytes: Uint8Array): boolean
  /** Everything was taken, and the peer has ended its side. */
  end(): void
  /** The connection is over. */
  closed(reason: { readonly message: string }): void
}

export abstract class ReceiveSide<Out, Context> extends SendSide<Out, Context> {
  /** Bits of {@link Wait}. */
  #waits = 0
  /** What it does not end without: promises of `onMessage`, and holds. */
  #pending = 0
  #in: RingBuffer | undefined = undefined

  get readBufferLength(): number {
    return this.#in === undefined ? 0 : this.#in.length
  }

  // ---- reasons not to read -------------------------------------------------------------------------------------------

  pause(): void {
    if (!this.connected) return
    this.#waits |= Wait.PAUSED
    this.updateReading()
    if ((this.#waits & Wait.STRANDED) !== 0) this.strand()
  }

  get paused(): boolean {
    return (this.#waits & Wait.PAUSED) !== 0
  }

  resume(): void {
    if (!this.paused || !this.connected) return
    this.#waits &= ~Wait.PAUSED
    this.loop.queueInLoop(() => this.continue())
  }

  holdPackets(): void {
    this.#pending++
    this.extras().held++
    this.#waits |= Wait.HELD
  }

  releasePackets(): void {
    const extra = this.extras()
    if (extra.held === 0) throw unheld('releasePackets', 'holdPackets')
    if (--extra.held === 0) this.#waits &= ~Wait.HELD
    this.releaseEnd()
  }

  holdEnd(): void {
    this.#pending++
  }

  releaseEnd(): void {
    if (this.#pending === 0) throw unheld('releaseEnd', 'holdEnd')
    this.#pending--
    if ((this.bits & Bit.UNPACKING) !== 0) this.loop.queueInLoop(() => this.askAgain())
    else this.askAgain()
  }

  /** A promise of `onConnect` is pending: no packet before it, also none that was cut in the call that greeted. */
  protected holdForGreeting(): void {
    this.#pending++
    this.#waits |= Wait.GREETING
  }

  protected releaseGreeting(): void {
    this.#waits &= ~Wait.GREETING
    this.releaseEnd()
  }

  /** `onConnect` was called: where that was from within `unPacket`, what it returns may have to wait. */
  protected noteGreeting(): void {
    if ((this.bits & Bit.UNPACKING) !== 0) this.#waits |= Wait.JUST_GREETED
  }

  /** It does not end before {@link releaseOpen}; packets are not the matter. */
  protected holdOpen(): void {
    this.#pending++
  }

  protected releaseOpen(): void {
    this.#pending--
    this.finishIfDone()
  }

  unmaskFrames(): void {
    if (this.connected) this.host.poller.unmask(this.slot)
  }

  yield(): void {
    if (!this.connected || (this.#waits & Wait.TURN) !== 0) return
    this.#waits |= Wait.TURN
    this.host.turns.push(this)
  }

  /** The others have had their turn. */
  takeTurn(): void {
    this.#waits &= ~Wait.TURN
    this.askAgain()
  }

  get isThrottled(): boolean {
    return (this.#waits & Wait.THROTTLED) !== 0
  }

  throttle(): void {
    this.#waits |= Wait.THROTTLED
    this.host.out.afterFlush(this.slot)
    this.updateReading()
  }

  unthrottle(): void {
    this.#waits &= ~Wait.THROTTLED
    if (this.isBroken) this.strand()
    else if (this.connected) this.callOnDrain()
    this.continue()
  }

  protected abstract callOnDrain(): void

  /** Reading ends as if the peer had ended its side; what is here is still answered. */
  protected stopReading(): void {
    this.#waits |= Wait.DRAINING
    this.updateReading()
  }

  /** The peer has ended its side, or is gone. `true` the first time. */
  protected noteEnd(): boolean {
    const isFirst = this.connected && !this.hasEnded
    this.#waits |= Wait.ENDED
    this.bits &= ~Bit.READING
    return isFirst
  }

  protected get hasEnded(): boolean {
    return (this.#waits & Wait.ENDED) !== 0
  }

  protected get hasPending(): boolean {
    return this.#pending > 0
  }

  /** Nothing more will come, all that came was handed over, and answered where that is still possible. */
  protected get isDone(): boolean {
    const waits = this.#waits
    if ((waits & (Wait.ENDED | Wait.DRAINING)) === 0) return false
    // Where the bytes go nobody asks for an answer.
    if ((waits & Wait.DIVERTED) !== 0) return this.#in === undefined || (waits & HOLDS_DIVERTED) === 0
    if ((waits & Wait.TURN) !== 0) return false
    const holds = (waits & Wait.STRANDED) === 0 ? HOLDS_PACKETS : HOLDS_PACKETS & ~Wait.PAUSED
    if (this.hasWaiting && (waits & holds) !== 0) return false
    // On a broken socket no answer can be sent: nothing to wait for.
    return this.#pending === 0 || this.isBroken
  }

  /** What has come is handed over, and only answers that come later keep it open. */
  protected get isAnswering(): boolean {
    return this.#pending > 0 && (this.#waits & HOLDS_PACKETS & ~Wait.REPLY) === 0
  }

  /** Packets wait, and so does reading, for an answer or {@link releasePackets}; for nothing else. */
  protected get isHeldBack(): boolean {
    const waits = this.#waits
    return (waits & LOOKS_AHEAD) !== 0 && (waits & (Wait.TURN | Wait.PAUSED | DIVERSION)) === 0
  }

  protected takeSettled(): boolean {
    const hasSettled = (this.bits & Bit.SETTLED) !== 0
    this.bits &= ~Bit.SETTLED
    return hasSettled
  }

  private get hasWaiting(): boolean {
    return this.#in !== undefined || this.extra?.waitingPacket !== undefined
  }

  /** Looks whether the connection is to end now. */
  protected abstract finishIfDone(): void

  /** The end, where it has come, is told when the flush is over: a write may be in the middle of one. */
  protected outputBroke(): void {
    if (!this.hasEnded) this.updateReading()
  }

  /** A handler that has paused it too might wait for ever, as one that joins two connections: it ends unread. */
  protected strand(): void {
    if (!this.connected) return
    this.#waits |= Wait.STRANDED
    if (!this.paused) return
    this.noteEnd()
    this.host.out.afterFlush(this.slot)
  }

  /** The poller reads of its own accord: from the accept on, and until it has reported an end. */
  protected noteReading(on: boolean): void {
    this.bits = on ? this.bits | Bit.READING : this.bits & ~Bit.READING
  }

  protected updateReading(): void {
    const waits = this.#waits
    const isAhead = (waits & READS_AHEAD) !== 0 && this.readBufferLength >= READ_AHEAD
    this.setReading(this.connected && (waits & STOPS_READING) === 0 && !isAhead)
  }

  private setReading(on: boolean): void {
    if (((this.bits & Bit.READING) !== 0) === on || this.slot < 0) return
    this.bits ^= Bit.READING
    const result = this.host.poller.setReading(this.slot, on)
    if (result < 0) this.loop.queueInLoop(() => this.handleError(result))
  }

  abstract handleError(errno: number): void

  /** The connection closes: nothing is read any more, and what waits is thrown away, soon where it is being looked at. */
  protected stopReceiving(): void {
    if ((this.bits & Bit.UNPACKING) === 0) this.dropInput()
    this.setReading(false)
  }

  protected dropInput(): void {
    const ring = this.#in
    if (ring === undefined) return
    this.#in = undefined
    this.host.pool.give(ring)
  }

  // ---- bytes come in -------------------------------------------------------------------------------------------------

  /** Bytes came in; they are the poller's and are copied when they have to stay. */
  handleRead(storage: Buffer, start: number, end: number): void {
    const { host } = this
    host.lastActive[this.slot] = host.now
    host.traffic.bytesIn += end - start
    if (this.state !== State.OPEN) return
    if (this.#in !== undefined) {
      this.#in.writeRange(storage, start, end)
      this.unpackRing()
    } else if ((this.#waits & HOLDS_PACKETS) === 0) {
      const { view } = host
      if (this.config.protocol.takesAll === true) view.attachCopy(storage, start, end)
      else view.attach(storage, start, end)
      this.unpack(view)
      if (!view.isEmpty && this.connected) this.keep(view.storage, view.start, view.start + view.length)
      view.detach()
    } else if ((this.#waits & (Wait.DIVERTED | HOLDS_DIVERTED)) === Wait.DIVERTED) {
      this.divertBytes(storage.subarray(start, end))
    } else {
      this.keep(storage, start, end)
    }
    if ((this.#waits & LOOKS_AHEAD) !== 0) this.lookAhead()
  }

  private lookAhead(): void {
    const ring = this.#in
    const { protocol } = this.config
    if (protocol.lookAhead === undefined || ring === undefined || this.state !== State.OPEN) return
    try {
      protocol.lookAhead(this, ring)
    } catch (error) {
      this.fail('lookAhead', error)
    }
  }

  private keep(storage: Buffer, start: number, end: number): void {
    const ring = this.host.pool.take()
    ring.writeRange(storage, start, end)
    this.#in = ring
    this.checkReadBuffer()
  }

  private unpack(ring: RingBuffer): void {
    const { protocol, handler } = this.config
    const { host } = this
    const { traffic, sampler, turns } = host
    let freePackets = this.takeFreePackets()
    let waiting = this.takeWaitingPacket()
    let length = ring.length
    let untilLook = turns.packetsPerLook
    let spent = 0
    let where = 'unPacket'
    this.bits |= Bit.UNPACKING
    this.#waits &= ~Wait.JUST_GREETED
    try {
      while ((this.#waits & HOLDS_PACKETS) === 0 && this.state === State.OPEN) {
        where = 'unPacket'
        const packet = waiting ?? protocol.unPacket(this, ring)
        if (packet === undefined) break
        waiting = undefined
        if ((this.#waits & GREETED_WITHIN) !== 0 && !this.mayHandOver(packet)) break
        if (ring.length !== length) {
          length = ring.length
          freePackets = 0
        } else if (++freePackets > MAX_FREE_PACKETS) {
          throw new Error('unPacket returns packets without taking bytes')
        }
        traffic.messagesIn++
        const ctx = packet.ctx
        where = 'onMessage'
        const out =
          --sampler.left > 0
            ? handler.onMessage(this, ctx, packet.data)
            : sampler.time(handler, this, host.now, ctx, packet.data)
        where = 'packet'
        if (out === undefined) {
          if (ctx !== undefined) protocol.unanswered?.(this, ctx)
        } else if (out instanceof Uint8Array || typeof out === 'string') this.answer(out as Out, ctx)
        else if (isThenable(out)) this.await(out as PromiseLike<Out | void>, ctx)
        else this.answer(out as Out, ctx)
        if (--untilLook <= 0 && (!ring.isEmpty || freePackets > 0)) {
          spent += turns.lap()
          if (spent >= turns.slice) this.endTurn(freePackets)
          untilLook = turns.packetsPerLook
        }
      }
    } catch (error) {
      this.fail(where, error)
    }
    this.bits &= ~Bit.UNPACKING
  }

  /** Its time is over; the count of packets that took no byte goes on in its next turn. */
  private endTurn(freePackets: number): void {
    if (freePackets > 0) this.extras().freePackets = freePackets
    this.yield()
  }

  private takeFreePackets(): number {
    const { extra } = this
    if (extra === undefined || extra.freePackets === 0) return 0
    const { freePackets } = extra
    extra.freePackets = 0
    return freePackets
  }

  /** It was cut by the call of `unPacket` that ended the handshake: whoever was greeted may want it later, or not at all. */
  private mayHandOver(packet: Packet<unknown>): boolean {
    this.#waits &= ~Wait.JUST_GREETED
    if (!this.connected) return false
    if ((this.#waits & HOLDS_PACKETS) === 0) return true
    this.keepPacket(packet)
    return false
  }

  private keepPacket({ ctx, data }: Packet<unknown>): void {
    const own = this.config.protocol.borrow === true ? Buffer.from(data) : data
    this.extras().waitingPacket = { ctx, data: own }
  }

  private takeWaitingPacket(): Packet<unknown> | undefined {
    const { extra } = this
    if (extra === undefined) return undefined
    const { waitingPacket } = extra
    extra.waitingPacket = undefined
    return waitingPacket
  }

  /** Hands over what the own ring holds, as far as it goes. */
  private unpackRing(): void {
    const ring = this.#in
    if (ring === undefined || (this.bits & Bit.UNPACKING) !== 0) return
    if ((this.#waits & Wait.DIVERTED) !== 0) {
      this.divertRing(ring)
      return
    }
    const isHeld = (this.#waits & HOLDS_PACKETS) !== 0
    if (!isHeld) this.unpack(ring)
    if (!this.connected) this.dropInput()
    else if (!ring.isEmpty) this.checkReadBuffer()
    else if (!isHeld && (this.#waits & Wait.TURN) === 0) this.dropInput() // else unPacket is to be asked again
  }

  /** Bounds what waits: by closing when it is one packet, by not reading when packets only wait for their turn. */
  private checkReadBuffer(): void {
    const length = this.readBufferLength
    const { maxReadBuffer } = this.config
    if ((this.#waits & HOLDS_PACKETS) !== 0) {
      if (length >= READ_AHEAD) this.updateReading()
    } else if (length > maxReadBuffer) {
      this.beginClose({
        code: 'read-buffer-full',
        message: `a packet did not complete within maxReadBuffer (${maxReadBuffer} bytes)`,
      })
    }
  }

  private await(promise: PromiseLike<Out | void>, ctx: unknown): void {
    this.#pending++
    if (this.config.protocol.multiplexed !== true) this.#waits |= Wait.REPLY
    // A thenable of the user's own might settle twice or throw; a promise does not.
    Promise.resolve(promise).then(
      (out) => this.settled(out, ctx),
      (error) => {
        this.#pending--
        this.#waits &= ~Wait.REPLY
        this.fail('onMessage', error)
      },
    )
  }

  private settled(out: Out | void, ctx: unknown): void {
    this.#pending--
    this.bits |= Bit.SETTLED
    this.#waits &= ~Wait.REPLY
    if (!this.connected) return
    try {
      if (out !== undefined) this.answer(out, ctx)
      else if (ctx !== undefined) this.config.protocol.unanswered?.(this, ctx)
    } catch (error) {
      this.fail('packet', error)
      return
    }
    // Promises that settle at once would keep the loop for as long as there are packets.
    if (this.#in !== undefined && this.host.turns.isTired) this.yield()
    else this.continue()
  }

  /** Something that held packets back is over. */
  private continue(): void {
    if (!this.connected) return
    if (this.extra?.waitingPacket !== undefined) this.#in ??= this.host.pool.take()
    this.unpackRing()
    if ((this.#waits & LOOKS_AHEAD) !== 0) this.lookAhead()
    this.updateReading()
    this.finishIfDone()
  }

  /** The same, and `unPacket` is called even where no byte waits. */
  private askAgain(): void {
    if (!this.connected) return
    this.#in ??= this.host.pool.take()
    this.continue()
  }

  // ---- bytes that go elsewhere ---------------------------------------------------------------------------------------

  /** From now on the bytes go to `diversion`, those first that wait already; no packet is handed over any more. */
  protected startDiversion(diversion: Diversion): void {
    this.extras().diversion = diversion
    this.#waits |= Wait.DIVERTED
    this.loop.queueInLoop(() => this.askAgain())
  }

  get isDiverted(): boolean {
    return (this.#waits & Wait.DIVERTED) !== 0
  }

  /** A packet that was cut before, and not handed over: its data. */
  private divertWaitingPacket(): void {
    const packet = this.takeWaitingPacket()
    if (packet !== undefined) this.divertBytes(packet.data)
  }

  /** There is room again where the bytes go. */
  diversionDrained(): void {
    this.#waits &= ~Wait.DIVERSION_FULL
    this.continue()
  }

  private divertBytes(bytes: Uint8Array): void {
    if (this.extra!.diversion!.take(bytes)) return
    this.#waits |= Wait.DIVERSION_FULL
    this.updateReading()
  }

  private divertRing(ring: RingBuffer): void {
    this.divertWaitingPacket()
    while (!ring.isEmpty && (this.#waits & HOLDS_DIVERTED) === 0 && this.connected) {
      const count = ring.contiguous
      this.divertBytes(ring.storage.subarray(ring.start, ring.start + count))
      ring.retrieve(count)
    }
    if (ring.isEmpty || !this.connected) this.dropInput()
  }
}

function unheld(call: string, before: string): RingloopError {
  return new RingloopError(ErrorCode.STATE, `${call}() is called once for each ${before}(), not more often`)
}
