/**
 * One connection: its state, its reading, its end. It belongs to one loop from accept to close, and every method is to be
 * called on that loop's thread. It owns memory only while something waits in it: an unfinished packet (`#in`), or what
 * the kernel did not take (`SendQueue`). Both rings come from the loop's pool and go back when they are empty.
 *
 *     socket ─▶ slab ─▶ unPacket ─▶ onMessage ─▶ packet ─▶ out slab ─▶ socket
 *                 └▶ #in (unfinished packet)               └▶ SendQueue (what the kernel refused)
 */
import { constants } from 'node:os'
import type { OnSent, ProtocolConnection } from '../connection.js'
import {
  CLOSE_CODES,
  type CloseCode,
  type CloseReason,
  ErrorCode,
  isCloseCode,
  ProtocolError,
  RingloopError,
  toError,
} from '../errors.js'
import { systemError } from '../loop/system-error.js'
import type { Loop } from '../loop.js'
import type { Packed, Protocol } from '../protocol/protocol.js'
import type { RingBuffer } from '../ringbuffer/ring-buffer.js'
import { Timer } from '../timers/timer.js'
import type { ConnectionConfig } from './config.js'
import type { AnyConnection, ConnectionHost } from './host.js'
import { neverSent, type QueueOwner, SendQueue } from './send-queue.js'

/** The life of a connection: each state is entered once, in this order; the second only where it gets so far. */
const State = {
  /** Made by `connect`, not yet through. */
  CONNECTING: 0,
  OPEN: 1,
  /** The reason to close has come: nothing is read or handed over, what is unsent still goes out. */
  CLOSING: 2,
  CLOSED: 3,
} as const

/** Reasons not to hand over packets, or not to read. */
const Wait = {
  /** `pause()`. */
  PAUSED: 1,
  /** A promise of `onMessage` is pending. */
  REPLY: 1 << 1,
  /** `holdPackets()`, or a promise of `onConnect` is pending. */
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
} as const

const HOLDS_PACKETS =
  Wait.PAUSED | Wait.REPLY | Wait.HELD | Wait.TURN | Wait.THROTTLED | Wait.DIVERTED | Wait.DIVERSION_FULL
const HOLDS_DIVERTED = Wait.PAUSED | Wait.THROTTLED | Wait.DIVERSION_FULL
const STOPS_READING = Wait.PAUSED | Wait.THROTTLED | Wait.DIVERSION_FULL | Wait.ENDED | Wait.DRAINING
/** For these reading goes on, up to READ_AHEAD bytes. */
const READS_AHEAD = Wait.REPLY | Wait.HELD | Wait.TURN

/** What else there is to know of a connection; this file alone reads and writes it. */
const Bit = {
  /** It came in through a listener; otherwise `connect` made it. */
  ACCEPTED: 1,
  /** The handler's onConnect has been called. */
  GREETED: 1 << 1,
  /** The poller reads. */
  READING: 1 << 2,
  /** Its packets are being handed over right now. */
  UNPACKING: 1 << 3,
  /** The protocol has heard that it is closing. */
  TOLD_CLOSING: 1 << 4,
  /** The handler has heard that the peer has ended its side. */
  TOLD_END: 1 << 5,
  /** Nothing can be written any more. */
  BROKEN: 1 << 6,
  /** `shutdownWrite()` was called. */
  SHUT: 1 << 7,
  /** The poller has been told so. */
  SHUT_DONE: 1 << 8,
  /** It stays open when the peer has ended its side. */
  HALF_OPEN: 1 << 9,
} as const

const CANNOT_SEND = Bit.BROKEN | Bit.SHUT

/** Reading goes on while packets wait for their turn, up to this many bytes. */
const READ_AHEAD = 64 * 1024
/** From this size on bytes are written at once and not copied to the out slab. */
const LARGE = 32 * 1024
/** A protocol that returns this many packets without taking a byte does not take any. */
const MAX_FREE_PACKETS = 1 << 16
/** `packetInto` did not write; `packet` is asked. */
const NOT_WRITTEN = -1

const PEER_CLOSED: CloseReason = { code: 'peer-closed', message: 'the peer closed the connection' }
const CLOSED_HERE: CloseReason = { code: 'closed', message: 'closed by this side' }
const NO_BYTES: Packed = []

/** What is asked of `connect` when it is through, or fails. */
export interface PendingConnect {
  resolve(): void
  reject(error: Error): void
}

/** Where the bytes of a connection go instead of to `unPacket`. */
export interface Diversion {
  /** Takes bytes that are the loop's, valid until this returns. `false`: no more until `diversionDrained()`. */
  take(bytes: Uint8Array): boolean
  /** Everything was taken, and the peer has ended its side. */
  end(): void
  /** The connection is over. */
  closed(reason: CloseReason): void
}

/** What few connections need, so that the others need no room for it. */
class Extra {
  values: Map<unknown, unknown> | undefined = undefined
  queue: SendQueue | undefined = undefined
  pendingConnect: PendingConnect | undefined = undefined
  diversion: Diversion | undefined = undefined
  reason: CloseReason | undefined = undefined
  timer: ConnectionTimer | undefined = undefined
  idleTime: number | undefined = undefined
  /** Calls of `holdPackets` without their `releasePackets`. */
  held = 0
  /** When the handshake and a promise of `onConnect` must be over, by the loop's clock. */
  deadline: number | undefined = undefined
  /** How often the timer has found it idle: everything that had come must have been read first. */
  idleLooks = 0
  isCloseTimed = false
  /** Packets without a byte of which the last turn was full. */
  freePackets = 0
  peerAddr: string | undefined = undefined
  localAddr: string | undefined = undefined
}

/** Watches the handshake, then for idleness; once the connection is closing, for a peer that does not take the rest. */
class ConnectionTimer extends Timer {
  readonly #connection: AnyConnection

  constructor(connection: AnyConnection) {
    super()
    this.#connection = connection
    this.unref()
  }

  fire(): void {
    this.#connection.handleTimer(this)
  }
}

export class TcpConnection<Out = Uint8Array | string, Context = unknown>
  implements ProtocolConnection<Out>, QueueOwner
{
  readonly id: number
  context: Context = undefined as Context
  session: unknown = undefined

  readonly host: ConnectionHost
  /** The poller's number; -1 when it has been given back. */
  slot: number
  readonly #config: ConnectionConfig<unknown, Out>
  #state: number
  /** Bits of {@link Wait}. */
  #waits = 0
  /** Bits of {@link Bit}. */
  #bits: number
  /** What it does not end without: promises of `onMessage`, and holds. */
  #pending = 0
  #in: RingBuffer | undefined = undefined
  #extra: Extra | undefined = undefined

  constructor(
    host: ConnectionHost,
    config: ConnectionConfig<unknown, Out>,
    slot: number,
    id: number,
    isAccepted: boolean,
  ) {
    this.host = host
    this.#config = config
    this.slot = slot
    this.id = id
    this.#state = State.CONNECTING
    this.#bits = (isAccepted ? Bit.ACCEPTED : 0) | (config.allowHalfOpen ? Bit.HALF_OPEN : 0)
  }

  // ---- what a handler sees -------------------------------------------------------------------------------------------

  get loop(): Loop {
    return this.host.loop
  }

  get connected(): boolean {
    return this.#state === State.OPEN
  }

  get peerAddr(): string {
    const known = this.#extra?.peerAddr
    if (known !== undefined) return known
    if (this.slot < 0) return ''
    const addr = this.host.poller.peerAddr(this.slot)
    this.#extras().peerAddr = addr
    return addr
  }

  get localAddr(): string {
    const known = this.#extra?.localAddr
    if (known !== undefined) return known
    if (this.slot < 0) return ''
    const addr = this.host.poller.localAddr(this.slot)
    this.#extras().localAddr = addr
    return addr
  }

  get(key: unknown): unknown {
    return this.#extra?.values?.get(key)
  }

  set(key: unknown, value: unknown): void {
    const extra = this.#extras()
    extra.values ??= new Map()
    extra.values.set(key, value)
  }

  delete(key: unknown): boolean {
    return this.#extra?.values?.delete(key) ?? false
  }

  get readBufferLength(): number {
    return this.#in === undefined ? 0 : this.#in.length
  }

  get writeBufferLength(): number {
    const queue = this.#extra?.queue
    return this.gathered + (queue === undefined ? 0 : queue.length)
  }

  get idleTime(): number {
    return this.#extra?.idleTime ?? this.#config.idleTime
  }

  set idleTime(ms: number) {
    if (!Number.isFinite(ms) || ms < 0) {
      throw new RingloopError(
        ErrorCode.OPTION,
        `idleTime must be a number of ms, 0 or more, not ${String(ms)}`,
      )
    }
    this.#extras().idleTime = ms
    if (this.connected && this.#extra?.deadline === undefined) this.#armTimer(ms)
  }

  get idleFor(): number {
    const { host, slot } = this
    return slot < 0 ? 0 : (host.readClock() - host.lastActive[slot]!) | 0
  }

  send(out: Out, onSent?: OnSent): boolean {
    if (!this.canSend) return this.#refuse(onSent)
    this.#pack(out, undefined)
    return this.#sent(onSent)
  }

  end(out?: Out, onSent?: OnSent): boolean {
    const sent = out === undefined ? this.sendRaw(NO_BYTES, onSent) : this.send(out, onSent)
    this.shutdownWrite()
    return sent
  }

  close(reason: CloseReason | CloseCode | Error = CLOSED_HERE): void {
    this.beginClose(closeReason(reason))
  }

  shutdownWrite(): void {
    if (!this.canSend) return
    this.#bits |= Bit.SHUT
    this.host.out.afterFlush(this.slot)
  }

  pause(): void {
    if (!this.connected) return
    this.#waits |= Wait.PAUSED
    this.#updateReading()
  }

  get paused(): boolean {
    return (this.#waits & Wait.PAUSED) !== 0
  }

  resume(): void {
    if (!this.paused || !this.connected) return
    this.#waits &= ~Wait.PAUSED
    this.loop.queueInLoop(() => this.#continue())
  }

  async drained(): Promise<boolean> {
    if (!this.canSend) return false
    if (this.isThrottled) await this.#queue().room()
    else if (this.host.turns.isOverdue) await this.loop.yield()
    return this.canSend
  }

  // ---- what a protocol sees ------------------------------------------------------------------------------------------

  get protocol(): Protocol<unknown, Out> {
    return this.#config.protocol
  }

  sendRaw(bytes: Packed, onSent?: OnSent): boolean {
    if (!this.canSend) return this.#refuse(onSent)
    this.#append(bytes)
    return this.#sent(onSent)
  }

  established(): void {
    if (!this.connected || (this.#bits & Bit.GREETED) !== 0) return
    this.#bits |= Bit.GREETED
    try {
      const greeting = this.#config.handler.onConnect?.(this)
      if (isThenable(greeting)) {
        this.#awaitGreeting(greeting)
        return
      }
    } catch (error) {
      this.#fail('onConnect', error)
    }
    this.#greeted()
  }

  /** Packets wait for it, no longer than `handshakeTimeout`. */
  #awaitGreeting(greeting: PromiseLike<unknown>): void {
    this.holdPackets()
    if (this.#extras().deadline === undefined) this.#timeHandshake()
    // A thenable of the user's own might settle twice or throw; a promise does not.
    Promise.resolve(greeting)
      .catch((error) => this.#fail('onConnect', error))
      .then(() => {
        this.#greeted()
        this.releasePackets()
      })
  }

  #greeted(): void {
    const extra = this.#extra
    // One that its own onConnect has closed was never ready: the end of the close rejects.
    if (extra === undefined || !this.connected) return
    if (extra.deadline !== undefined) {
      extra.deadline = undefined
      this.#armTimer(this.idleTime)
    }
    extra.pendingConnect?.resolve()
    extra.pendingConnect = undefined
  }

  holdPackets(): void {
    this.#pending++
    this.#extras().held++
    this.#waits |= Wait.HELD
  }

  releasePackets(): void {
    this.#pending--
    if (--this.#extras().held === 0) this.#waits &= ~Wait.HELD
    this.#released()
  }

  holdEnd(): void {
    this.#pending++
  }

  releaseEnd(): void {
    this.#pending--
    this.#released()
  }

  #released(): void {
    if ((this.#bits & Bit.UNPACKING) !== 0) this.loop.queueInLoop(() => this.#askAgain())
    else this.#askAgain()
  }

  /** `unPacket` is called even where no byte waits. */
  #askAgain(): void {
    if (!this.connected) return
    this.#in ??= this.host.pool.take()
    this.#continue()
  }

  yield(): void {
    if (!this.connected || (this.#waits & Wait.TURN) !== 0) return
    this.#waits |= Wait.TURN
    this.host.turns.push(this)
  }

  /** The others have had their turn. */
  takeTurn(): void {
    this.#waits &= ~Wait.TURN
    this.#askAgain()
  }

  // ---- the poller's reports ------------------------------------------------------------------------------------------

  /** It is accepted or connected: the first callbacks. */
  handleOpen(): void {
    const { protocol, idleTime } = this.#config
    this.#state = State.OPEN
    this.#bits |= Bit.READING
    this.host.lastActive[this.slot] = this.host.now
    const isShaking = protocol.handshake === true
    if (idleTime > 0) this.#armTimer(idleTime)
    if (isShaking) this.#timeHandshake()
    try {
      protocol.onConnect?.(this)
    } catch (error) {
      this.#fail('the protocol’s onConnect', error)
      return
    }
    if (!isShaking) this.established()
  }

  /** Waits for the handshake of a `connect`. */
  setPendingConnect(pending: PendingConnect): void {
    this.#extras().pendingConnect = pending
  }

  /** Bytes came in; they are the poller's and are copied when they have to stay. */
  handleRead(storage: Buffer, start: number, end: number): void {
    const { host } = this
    host.lastActive[this.slot] = host.now
    host.traffic.bytesIn += end - start
    if (this.#state !== State.OPEN) return
    if (this.#in !== undefined) {
      this.#in.writeRange(storage, start, end)
      this.#unpackRing()
      return
    }
    if ((this.#waits & HOLDS_PACKETS) === 0) {
      const { view } = host
      view.attach(storage, start, end)
      this.#unpack(view)
      if (!view.isEmpty && this.connected) this.#keep(view.storage, view.start, view.start + view.length)
      view.detach()
    } else if ((this.#waits & (Wait.DIVERTED | HOLDS_DIVERTED)) === Wait.DIVERTED) {
      this.#divert(storage.subarray(start, end))
    } else {
      this.#keep(storage, start, end)
    }
  }

  #keep(storage: Buffer, start: number, end: number): void {
    const ring = this.host.pool.take()
    ring.writeRange(storage, start, end)
    this.#in = ring
    this.#checkReadBuffer()
  }

  /** The peer ended its side: what has come is still answered. */
  handleEnd(): void {
    const isFirst = this.connected && (this.#waits & Wait.ENDED) === 0
    this.#waits |= Wait.ENDED
    this.#bits &= ~Bit.READING
    if (isFirst) this.#callProtocolOnEnd()
    this.#finishIfDone()
  }

  /** The socket broke. */
  handleError(errno: number): void {
    this.breakWith(errno)
    this.handleEnd()
  }

  /** The socket broke while reading was off. */
  handleHangup(): void {
    const hasEnded = (this.#waits & Wait.ENDED) !== 0
    // A peer that has ended and is gone altogether owes us nothing, unless something was still to be sent.
    if (hasEnded && this.writeBufferLength === 0) this.#extras().reason ??= PEER_CLOSED
    if (hasEnded || this.writeBufferLength > 0) this.breakWith(-constants.errno.EPIPE)
    if (hasEnded) return
    this.#bits &= ~Bit.READING
    this.#updateReading()
  }

  /** Room again. */
  handleWritable(): void {
    this.#extra?.queue?.unblock()
    this.host.out.afterFlush(this.slot)
  }

  /** Its handshake, its idle time, or the time for the last bytes, may be over. */
  handleTimer(timer: Timer): void {
    const extra = this.#extras()
    const isClosing = this.#state === State.CLOSING
    const { deadline } = extra
    const limit = isClosing ? this.#config.closeTimeout : this.idleTime
    const isShaking = deadline !== undefined && !isClosing
    const rest = isShaking ? (deadline - this.host.readClock()) | 0 : limit - this.idleFor
    if (rest > 0) {
      extra.idleLooks = 0
      timer.restart(rest)
    } else if (++extra.idleLooks <= this.host.roundsToReadAll) {
      // Timers run before the poll: after a stall the bytes that came meanwhile have not been read yet.
      timer.restart(0)
    } else if (isClosing) {
      this.#dropOutput()
      this.#finishClose()
    } else if (isShaking) {
      this.beginClose({
        code: 'handshake-timeout',
        message: `not ready within handshakeTimeout (${this.#config.handshakeTimeout} ms)`,
      })
    } else if (this.#pending > 0 && !this.isBroken) {
      timer.restart(limit)
    } else {
      if (this.writeBufferLength > 0) this.#dropOutput()
      this.beginClose({ code: 'idle', message: `no traffic for ${limit} ms` })
    }
  }

  /** The end of a flush: backlog, callbacks, water marks, the close. */
  handleFlushed(): void {
    if (this.#state === State.CLOSED) return
    const queue = this.#extra?.queue
    if (queue !== undefined) {
      queue.flushed()
      if (queue.isIdle) this.#extra!.queue = undefined
    }
    this.#afterFlush()
  }

  #afterFlush(): void {
    if (this.#state === State.CLOSED) return
    if (this.writeBufferLength > 0) this.#timeClose()
    else if (this.#state === State.CLOSING) this.#finishClose()
    else if ((this.#bits & (Bit.SHUT | Bit.SHUT_DONE)) === Bit.SHUT) this.#shutdown()
    else this.#finishIfDone()
  }

  // ---- the loop's orders ---------------------------------------------------------------------------------------------

  /** It was accepted, its handshake is over, and it can be sent to: a broadcast reaches it. */
  get isReceiver(): boolean {
    return this.canSend && (this.#bits & (Bit.ACCEPTED | Bit.GREETED)) === (Bit.ACCEPTED | Bit.GREETED)
  }

  get isAccepted(): boolean {
    return (this.#bits & Bit.ACCEPTED) !== 0
  }

  /** `connect` has not got through. */
  get isConnecting(): boolean {
    return this.#state === State.CONNECTING
  }

  /** The loop stops: reading ends, packets that are here are still answered, then it is closed. */
  drain(reason: CloseReason): void {
    if (this.isConnecting) {
      this.abort(reason)
      return
    }
    if (!this.connected || (this.#waits & Wait.DRAINING) !== 0) return
    this.#extras().reason ??= reason
    this.#waits |= Wait.DRAINING
    this.#updateReading()
    this.#finishIfDone()
  }

  /** Ends it at once, whatever is unsent. */
  abort(reason: CloseReason): void {
    if (this.#state === State.CLOSED) return
    this.#extras().reason ??= reason
    if (!this.isConnecting) this.#state = State.CLOSING
    this.#dropOutput()
    this.#finishClose()
  }

  /** Sends what is unsent, then closes. */
  beginClose(reason: CloseReason): void {
    if (this.isConnecting) {
      this.abort(reason)
      return
    }
    if (!this.connected) return
    const extra = this.#extras()
    extra.reason ??= reason
    if ((this.#bits & Bit.TOLD_CLOSING) === 0) this.#callOnClosing(extra.reason)
    if (!this.connected) return
    this.#state = State.CLOSING
    if ((this.#bits & Bit.UNPACKING) === 0) this.#dropInput()
    this.#setReading(false)
    this.host.out.afterFlush(this.slot)
  }

  /**
   * From now on the bytes go to `diversion`, those first that wait already; no packet is handed over any more. It stays
   * open when the peer has ended its side.
   */
  divert(diversion: Diversion): void {
    this.#extras().diversion = diversion
    this.#waits |= Wait.DIVERTED
    this.#bits |= Bit.HALF_OPEN
    this.loop.queueInLoop(() => this.#continue())
  }

  get isDiverted(): boolean {
    return (this.#waits & Wait.DIVERTED) !== 0
  }

  /** There is room again where the bytes go. */
  diversionDrained(): void {
    this.#waits &= ~Wait.DIVERSION_FULL
    this.#continue()
  }

  #divert(bytes: Uint8Array): void {
    if (this.#extra!.diversion!.take(bytes)) return
    this.#waits |= Wait.DIVERSION_FULL
    this.#updateReading()
  }

  #divertRing(ring: RingBuffer): void {
    while (!ring.isEmpty && (this.#waits & HOLDS_DIVERTED) === 0 && this.connected) {
      const count = ring.contiguous
      this.#divert(ring.storage.subarray(ring.start, ring.start + count))
      ring.retrieve(count)
    }
    if (ring.isEmpty || !this.connected) this.#dropInput()
  }

  // ---- in ------------------------------------------------------------------------------------------------------------

  #unpack(ring: RingBuffer): void {
    const { protocol, handler } = this.#config
    const { host } = this
    const { traffic, sampler, turns } = host
    let freePackets = this.#takeFreePackets()
    let length = ring.length
    let untilLook = turns.packetsPerLook
    let spent = 0
    let where = 'unPacket'
    this.#bits |= Bit.UNPACKING
    try {
      while ((this.#waits & HOLDS_PACKETS) === 0 && this.#state === State.OPEN) {
        where = 'unPacket'
        const packet = protocol.unPacket(this, ring)
        if (packet === undefined) break
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
        } else if (out instanceof Uint8Array || typeof out === 'string') this.#answer(out as Out, ctx)
        else if (isThenable(out)) this.#await(out as PromiseLike<Out | void>, ctx)
        else this.#answer(out as Out, ctx)
        if (--untilLook <= 0) {
          spent += turns.lap()
          if (spent >= turns.slice) this.#endTurn(freePackets)
          untilLook = turns.packetsPerLook
        }
      }
    } catch (error) {
      this.#fail(where, error)
    }
    this.#bits &= ~Bit.UNPACKING
  }

  /** Its time is over; the count of packets that took no byte goes on in its next turn. */
  #endTurn(freePackets: number): void {
    if (freePackets > 0) this.#extras().freePackets = freePackets
    this.yield()
  }

  #takeFreePackets(): number {
    const extra = this.#extra
    if (extra === undefined || extra.freePackets === 0) return 0
    const { freePackets } = extra
    extra.freePackets = 0
    return freePackets
  }

  /** Hands over what the own ring holds, as far as it goes. */
  #unpackRing(): void {
    const ring = this.#in
    if (ring === undefined || (this.#bits & Bit.UNPACKING) !== 0) return
    if ((this.#waits & Wait.DIVERTED) !== 0) {
      this.#divertRing(ring)
      return
    }
    const isHeld = (this.#waits & HOLDS_PACKETS) !== 0
    if (!isHeld) this.#unpack(ring)
    if (!this.connected) this.#dropInput()
    else if (!ring.isEmpty) this.#checkReadBuffer()
    else if (!isHeld && (this.#waits & Wait.TURN) === 0) this.#dropInput() // else unPacket is to be asked again
  }

  /** Bounds what waits: by closing when it is one packet, by not reading when packets only wait for their turn. */
  #checkReadBuffer(): void {
    const length = this.readBufferLength
    if ((this.#waits & HOLDS_PACKETS) !== 0) {
      if (length >= READ_AHEAD) this.#updateReading()
    } else if (length > this.#config.maxReadBuffer) {
      this.beginClose({
        code: 'read-buffer-full',
        message: `a packet did not complete within maxReadBuffer (${this.#config.maxReadBuffer} bytes)`,
      })
    }
  }

  #dropInput(): void {
    const ring = this.#in
    if (ring === undefined) return
    this.#in = undefined
    this.host.pool.give(ring)
  }

  #await(promise: PromiseLike<Out | void>, ctx: unknown): void {
    this.#pending++
    if (this.#config.protocol.multiplexed !== true) this.#waits |= Wait.REPLY
    // A thenable of the user's own might settle twice or throw; a promise does not.
    Promise.resolve(promise).then(
      (out) => this.#settled(out, ctx),
      (error) => {
        this.#pending--
        this.#waits &= ~Wait.REPLY
        this.#fail('onMessage', error)
      },
    )
  }

  #settled(out: Out | void, ctx: unknown): void {
    this.#pending--
    this.#waits &= ~Wait.REPLY
    if (!this.connected) return
    try {
      if (out !== undefined) this.#answer(out, ctx)
      else if (ctx !== undefined) this.#config.protocol.unanswered?.(this, ctx)
    } catch (error) {
      this.#fail('packet', error)
      return
    }
    this.#continue()
  }

  /** Something that held packets back is over. */
  #continue(): void {
    if (!this.connected) return
    this.#unpackRing()
    this.#updateReading()
    this.#finishIfDone()
  }

  #updateReading(): void {
    const waits = this.#waits
    const isAhead = (waits & READS_AHEAD) !== 0 && this.readBufferLength >= READ_AHEAD
    this.#setReading(this.connected && (waits & STOPS_READING) === 0 && !isAhead)
  }

  #setReading(on: boolean): void {
    if (((this.#bits & Bit.READING) !== 0) === on || this.slot < 0) return
    this.#bits ^= Bit.READING
    const result = this.host.poller.setReading(this.slot, on)
    if (result < 0) this.handleError(result)
  }

  // ---- out -----------------------------------------------------------------------------------------------------------

  /** `send` sends: not before it is open, and not once a side of it has ended. */
  get canSend(): boolean {
    return this.#state === State.OPEN && (this.#bits & CANNOT_SEND) === 0
  }

  #answer(out: Out, ctx: unknown): void {
    if (!this.canSend) return
    this.#pack(out, ctx)
    this.#checkHighWater()
  }

  #pack(out: Out, ctx: unknown): void {
    const { protocol } = this.#config
    const slab = this.host.out
    this.host.traffic.messagesOut++
    if (out === null) throw notSendable(out, 'return nothing (undefined) where there is no answer')
    if (protocol.packetInto !== undefined && !this.hasBacklog) {
      const at = slab.open(this, 1)
      if (at >= 0) {
        const wrote = protocol.packetInto(this, out, ctx, slab.bytes, at)
        if (this.#state === State.CLOSED || this.isBroken) return
        if (wrote !== NOT_WRITTEN) {
          slab.close(this, at, endOf(at, wrote, slab.bytes))
          return
        }
      }
    }
    this.#append(protocol.packet(this, out, ctx))
  }

  /** Nothing of it is sent where one piece is not bytes. */
  #append(packed: Packed): void {
    if (packed instanceof Uint8Array) {
      this.#appendBytes(packed)
      return
    }
    if (!Array.isArray(packed))
      throw notSendable(packed, 'what goes on the wire is a Uint8Array or a list of them')
    for (let i = 0; i < packed.length; i++) {
      if (!(packed[i] instanceof Uint8Array)) throw notSendable(packed[i], 'each piece must be a Uint8Array')
    }
    for (let i = 0; i < packed.length; i++) this.#appendBytes(packed[i]!)
  }

  #appendBytes(bytes: Uint8Array): void {
    const { length } = bytes
    if (length === 0 || this.#state === State.CLOSED || this.isBroken) return
    const slab = this.host.out
    if (length >= LARGE) {
      this.#writeLarge(bytes)
      return
    }
    const at = this.hasBacklog ? -1 : slab.open(this, length)
    if (at >= 0) {
      slab.bytes.set(bytes, at)
      slab.close(this, at, at + length)
    } else if (!this.isBroken) {
      this.#queue().push(bytes, 0, length)
    }
  }

  /** Writes at once, behind what was gathered before; only what the kernel refuses is copied. */
  #writeLarge(bytes: Uint8Array): void {
    const { out, poller } = this.host
    const { length } = bytes
    if (this.gathered > 0) out.write()
    if (this.isBroken) return
    const taken = this.hasBacklog ? 0 : poller.write(this.slot, bytes, 0, length)
    if (taken < 0) {
      this.breakWith(taken)
      return
    }
    if (taken > 0) this.tookBytes(taken)
    if (taken === length) return
    const queue = this.#queue()
    if (!queue.hasBacklog) queue.block()
    queue.push(bytes, taken, length)
  }

  /** What a `send` still has to do: remember its callback, look at the marks. */
  #sent(onSent: OnSent | undefined): boolean {
    if (this.isBroken) return this.#refuse(onSent)
    if (onSent !== undefined) this.#queue().remember(onSent)
    this.#checkHighWater()
    return !this.isThrottled && !this.isBroken
  }

  #checkHighWater(): void {
    const queue = this.#extra?.queue
    if (queue !== undefined) queue.checkHighWater()
    else if (this.gathered > this.#config.highWaterMark) this.#queue().checkHighWater()
  }

  #queue(): SendQueue {
    const extra = this.#extras()
    extra.queue ??= new SendQueue(this)
    return extra.queue
  }

  #refuse(onSent: OnSent | undefined): boolean {
    if (onSent !== undefined) process.nextTick(() => this.callOnSent(onSent, neverSent()))
    return false
  }

  #shutdown(): void {
    this.#bits |= Bit.SHUT_DONE
    this.host.poller.shutdownWrite(this.slot)
    this.#finishIfDone()
  }

  // ---- out, as the queue and the slab see it -------------------------------------------------------------------------

  get highWaterMark(): number {
    return this.#config.highWaterMark
  }

  get lowWaterMark(): number {
    return this.#config.lowWaterMark
  }

  get gathered(): number {
    return this.slot < 0 ? 0 : this.host.out.gathered(this.slot)
  }

  get hasBacklog(): boolean {
    return this.#extra?.queue?.hasBacklog === true
  }

  get isBroken(): boolean {
    return (this.#bits & Bit.BROKEN) !== 0
  }

  get isThrottled(): boolean {
    return (this.#waits & Wait.THROTTLED) !== 0
  }

  throttle(): void {
    this.#waits |= Wait.THROTTLED
    this.host.out.afterFlush(this.slot)
    this.#updateReading()
  }

  unthrottle(): void {
    this.#waits &= ~Wait.THROTTLED
    if (!this.isBroken && this.#state !== State.CLOSED) {
      try {
        this.#config.protocol.onDrain?.(this)
        if ((this.#bits & Bit.GREETED) !== 0) this.#watch('onDrain', this.#config.handler.onDrain?.(this))
      } catch (error) {
        this.#fail('onDrain', error)
      }
    }
    this.#continue()
  }

  tookBytes(count: number): void {
    const { host } = this
    host.traffic.bytesOut += count
    host.lastActive[this.slot] = host.now
    this.#extra?.queue?.count(count)
  }

  /** Of its segment in the out slab the kernel took only the first `taken` bytes, or there was an error. */
  handleShortSegment(slab: Buffer, start: number, end: number, taken: number): void {
    if (taken < 0) {
      this.breakWith(taken)
      return
    }
    if (taken > 0) this.tookBytes(taken)
    const queue = this.#queue()
    queue.block()
    queue.push(slab, start + taken, end)
  }

  /** Its segment is not the last in the slab: the bytes move to the backlog so that later ones can follow. */
  spillSegment(slab: Buffer, start: number, end: number): void {
    this.#queue().push(slab, start, end)
  }

  callOnSent(onSent: OnSent, error: Error | undefined): void {
    try {
      onSent(error)
    } catch (thrown) {
      this.#fail('onSent', thrown)
    }
  }

  // ---- the end -------------------------------------------------------------------------------------------------------

  /** No more bytes will come: once all is handed over and answered the handler hears it, and the connection closes. */
  #finishIfDone(): void {
    const waits = this.#waits
    if ((waits & (Wait.ENDED | Wait.DRAINING)) === 0 || !this.connected) return
    if ((waits & Wait.TURN) !== 0) return
    if (this.#in !== undefined && (waits & HOLDS_PACKETS & ~Wait.DIVERTED) !== 0) return
    // On a broken socket no answer can be sent: nothing to wait for.
    if (this.#pending > 0 && !this.isBroken) return
    if ((waits & Wait.ENDED) !== 0 && (this.#bits & Bit.TOLD_END) === 0) {
      this.#bits |= Bit.TOLD_END
      this.#callOnEnd()
      if (!this.connected || (this.#pending > 0 && !this.isBroken)) return
    }
    const mayGoOn = (this.#bits & (Bit.HALF_OPEN | Bit.SHUT_DONE | Bit.BROKEN)) === Bit.HALF_OPEN
    if (mayGoOn && (this.#waits & Wait.DRAINING) === 0) return
    this.beginClose(PEER_CLOSED)
  }

  #callOnEnd(): void {
    const diversion = this.#extra?.diversion
    if (diversion !== undefined) {
      diversion.end()
      return
    }
    if ((this.#bits & Bit.GREETED) === 0) return
    try {
      const ending = this.#config.handler.onEnd?.(this)
      if (!isThenable(ending)) return
      this.holdEnd()
      Promise.resolve(ending)
        .catch((error) => this.#fail('onEnd', error))
        .then(() => this.releaseEnd())
    } catch (error) {
      this.#fail('onEnd', error)
    }
  }

  /** Nothing can be written any more. What the peer has sent can still be read: its end or error comes that way. */
  breakWith(errno: number): void {
    if (!this.isBroken) {
      const error = systemError(errno)
      this.#extras().reason ??= { code: 'network-error', message: error.message, error }
    }
    this.#dropOutput()
    if ((this.#waits & Wait.ENDED) !== 0) this.#finishIfDone()
    else this.#updateReading()
  }

  #dropOutput(): void {
    this.#bits |= Bit.BROKEN
    this.#extra?.queue?.drop()
    this.host.out.drop(this.slot)
    this.host.out.afterFlush(this.slot)
  }

  /** An async callback may reject, though nothing waits for it. */
  #watch(where: string, returned: unknown): void {
    if (isThenable(returned)) Promise.resolve(returned).catch((error) => this.#fail(where, error))
  }

  /** A callback threw or rejected: logged, and this connection is closed. */
  #fail(where: string, thrown: unknown): void {
    const { host } = this
    const { logger } = host.loop
    const error = toError(thrown)
    if (this.#state === State.CLOSED) {
      const level = isConsequence(error) ? 'debug' : 'error'
      logger[level](this.#logged({ err: error }), `${where} failed after the connection was closed`)
    } else if (error instanceof ProtocolError) {
      host.countProtocolError()
      logger.info(this.#logged({ reason: error.message }), 'the peer broke the protocol')
      this.beginClose({ code: 'protocol-error', message: error.message, error })
    } else {
      host.countHandlerError()
      logger.error(this.#logged({ err: error }), `${where} failed; its connection is closed`)
      this.beginClose({ code: 'handler-error', message: `${where} failed: ${error.message}`, error })
    }
  }

  /** The fields of a log line, and who it is about. */
  #logged(fields: object): object {
    return { ...fields, connection: `${this.loop.id}:${this.id}`, peer: this.peerAddr || 'unix' }
  }

  #finishClose(): void {
    if (this.#state === State.CLOSED) return
    const { host, slot } = this
    const extra = this.#extras()
    const reason = extra.reason ?? CLOSED_HERE
    const wasOpen = !this.isConnecting
    const isGraceful = wasOpen && (this.#waits & Wait.ENDED) === 0 && !this.isBroken
    extra.peerAddr ??= host.poller.peerAddr(slot)
    extra.timer?.stop()
    this.#dropInput()
    host.release(this, isGraceful, reason)
    this.#state = State.CLOSED
    this.slot = -1
    extra.queue?.settleSent(true)
    extra.queue?.settleWaiting()
    extra.diversion?.closed(reason)
    if (wasOpen) this.#callOnClose(reason)
    const { pendingConnect } = extra
    extra.pendingConnect = undefined
    pendingConnect?.reject(neverReady(reason))
  }

  #callProtocolOnEnd(): void {
    try {
      this.#config.protocol.onEnd?.(this)
    } catch (error) {
      this.#fail('the protocol’s onEnd', error)
    }
  }

  #callOnClosing(reason: CloseReason): void {
    this.#bits |= Bit.TOLD_CLOSING
    try {
      this.#config.protocol.onClosing?.(this, reason)
    } catch (error) {
      this.loop.logger.error(this.#logged({ err: toError(error) }), 'the protocol’s onClosing failed')
    }
  }

  #callOnClose(reason: CloseReason): void {
    const { protocol, handler } = this.#config
    try {
      protocol.onClose?.(this, reason)
    } catch (error) {
      this.#fail('the protocol’s onClose', error)
    }
    if ((this.#bits & Bit.GREETED) === 0) return
    try {
      this.#watch('onClose', handler.onClose?.(this, reason))
    } catch (error) {
      this.#fail('onClose', error)
    }
  }

  // ---- time ----------------------------------------------------------------------------------------------------------

  #timeHandshake(): void {
    const { handshakeTimeout } = this.#config
    if (handshakeTimeout === 0) return
    this.#extras().deadline = (this.host.readClock() + handshakeTimeout) | 0
    this.#armTimer(handshakeTimeout)
  }

  /** Closing, but the peer does not take the rest: not for ever. */
  #timeClose(): void {
    if (this.#state !== State.CLOSING || this.#extras().isCloseTimed) return
    this.#extras().isCloseTimed = true
    this.#armTimer(this.#config.closeTimeout)
  }

  #armTimer(ms: number): void {
    const extra = this.#extras()
    extra.idleLooks = 0
    if (ms === 0) {
      extra.timer?.stop()
      return
    }
    extra.timer ??= new ConnectionTimer(this)
    this.loop.addTimer(extra.timer, ms)
  }

  #extras(): Extra {
    this.#extra ??= new Extra()
    return this.#extra
  }
}

/** What `close` was given, as a reason. */
function closeReason(given: CloseReason | CloseCode | Error): CloseReason {
  if (typeof given === 'string' && isCloseCode(given)) return { code: given, message: given }
  if (given instanceof Error) {
    const error = toError(given)
    const code = given instanceof ProtocolError ? 'protocol-error' : 'handler-error'
    return { code, message: error.message, error }
  }
  if (typeof given === 'object' && given !== null && isCloseCode(given.code)) return given
  throw new RingloopError(
    ErrorCode.OPTION,
    `close takes a reason ({ code, message }), an Error, or one of the codes ${CLOSE_CODES.join(', ')}`,
  )
}

/** Where a packet ends that `packetInto` has written at `at`. */
function endOf(at: number, wrote: number, slab: Buffer): number {
  if ((wrote | 0) === wrote && wrote >= 0 && wrote <= slab.length - at) return at + wrote
  throw new RingloopError(
    ErrorCode.PACKET,
    `packetInto must return how many bytes it wrote, or -1, not ${String(wrote)}`,
  )
}

function notSendable(value: unknown, advice: string): RingloopError {
  return new RingloopError(ErrorCode.PACKET, `${kindOf(value)} cannot be sent: ${advice}`)
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return String(value)
  if (typeof value !== 'object') return `a ${typeof value}`
  const name = Object.getPrototypeOf(value)?.constructor?.name
  return typeof name === 'string' && name !== '' ? `an object (${name})` : 'an object'
}

/** A handler was told that its connection has ended, and passed that on: nobody's fault. */
function isConsequence(error: unknown): boolean {
  return error instanceof RingloopError && error.code === ErrorCode.CLOSED
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    typeof value === 'object' && value !== null && typeof (value as PromiseLike<unknown>).then === 'function'
  )
}

function neverReady(reason: CloseReason): RingloopError {
  const message = `the connection ended before it was ready: ${reason.message}`
  return new RingloopError(ErrorCode.CONNECT, message, reason.error)
}
