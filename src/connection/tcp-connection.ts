/**
 * One connection. It belongs to one loop from accept to close, and every method is to be called on that loop's thread.
 * It owns memory only while something waits in it: an unfinished packet (`#in`), or bytes that the kernel did not take
 * (`#out`). Both rings come from the loop's pool and go back when they are empty.
 *
 *     socket ─▶ slab ─▶ unPacket ─▶ onMessage ─▶ packet ─▶ out slab ─▶ socket
 *                 └▶ #in (unfinished packet)               └▶ #out (what the kernel refused)
 */

import type { OnSent, ProtocolConnection } from '../connection.js'
import {
  type CloseCode,
  type CloseReason,
  ErrorCode,
  ProtocolError,
  RingloopError,
  toError,
} from '../errors.js'
import type { EventLoop } from '../loop/event-loop.js'
import { CELL } from '../loop/stats.js'
import { systemError } from '../loop/system-error.js'
import { Timer } from '../loop/timing-wheel.js'
import type { Transport } from '../loop/transport.js'
import type { Packed, Protocol } from '../protocol/protocol.js'
import type { RingBuffer } from '../ringbuffer/ring-buffer.js'
import type { Service } from './service.js'

// biome-ignore lint/suspicious/noExplicitAny: what passes through is known to the protocol alone
type Any = any
/** A connection of whatever protocol. */
export type AnyConnection = TcpConnection<Any>
/** @internal */
export type AnyService = Service<Any, Any>

/** What is asked of `connect` when it is through, or fails. @internal */
export interface Opening {
  resolve(): void
  reject(error: Error): void
}

/** Bits of `Connection.flags`. @internal */
export const Flag = {
  /** It came in through a listener; otherwise `connect` made it. */
  INBOUND: 1,
  CONNECTING: 0x2,
  /** The handler's onConnect has been called. */
  ESTABLISHED: 0x4,
  /** `close` was called, or the reason to close has come: only what is unsent still goes out. */
  CLOSING: 0x8,
  CLOSED: 0x10,
  /** `pause()`. */
  PAUSED: 0x20,
  /** A promise of `onMessage` is pending: later packets wait for it. */
  BLOCKED: 0x40,
  /** Above the high-water mark, and not yet below the low one. */
  THROTTLED: 0x80,
  /** No more bytes will come in. */
  ENDED: 0x100,
  /** No more bytes can go out. */
  BROKEN: 0x200,
  /** `shutdownWrite()` was called. */
  SHUT: 0x400,
  /** The poller has been told so. */
  SHUT_DONE: 0x800,
  /** The poller reads. */
  READING: 0x1000,
  /** On the list of the next flush. */
  DIRTY: 0x2000,
  /** A write was short: wait for handleWritable. */
  AWAITS_ROOM: 0x4000,
  /** There is more to do at a flush than to write the segment. */
  AFTER_FLUSH: 0x8000,
  /** Its packets are being handed over right now. */
  UNPACKING: 0x10000,
  /** The server or loop stops: like ENDED, but the peer does not know yet. */
  DRAINING: 0x20000,
  /** An `onSent` waits: taken bytes are counted. */
  COUNTS: 0x40000,
  /** A protocol's `hold`: packets wait for its `release`. */
  HELD: 0x80000,
  /** The protocol has heard that it is closing. */
  TOLD: 0x100000,
} as const

const STOPPED =
  Flag.PAUSED | Flag.BLOCKED | Flag.HELD | Flag.THROTTLED | Flag.CLOSING | Flag.CLOSED | Flag.CONNECTING
const NOT_CONNECTED = Flag.CONNECTING | Flag.CLOSING | Flag.CLOSED
const CANNOT_SEND = NOT_CONNECTED | Flag.BROKEN | Flag.SHUT

/** Reading goes on while a promise is pending, up to this many bytes. */
const READ_AHEAD = 64 * 1024
/** From this size on bytes are written at once and not copied to the out slab. */
const LARGE = 32 * 1024
/** A protocol that returns this many packets without taking a byte does not take any. */
const MAX_FREE_PACKETS = 1 << 16

const PEER_CLOSED: CloseReason = { code: 'peer-closed', message: 'the peer closed the connection' }
const CLOSED_HERE: CloseReason = { code: 'closed', message: 'closed by this side' }

interface SentCallback {
  /** The value of `Extra.taken` at which the bytes are in the kernel. */
  readonly at: number
  readonly onSent: OnSent
}

/** What few connections need, so that the others need no room for it. */
class Extra {
  values: Map<unknown, unknown> | undefined = undefined
  sent: SentCallback[] | undefined = undefined
  /** Bytes taken since `sent` was last empty. */
  taken = 0
  drained: (() => void)[] | undefined = undefined
  opening: Opening | undefined = undefined
  reason: CloseReason | undefined = undefined
  timer: ConnectionTimer | undefined = undefined
  idleTime: number | undefined = undefined
  /** Calls of `hold` without their `release`. */
  held = 0
  closeTimed = false
  peerAddr: string | undefined = undefined
  localAddr: string | undefined = undefined
}

/** Watches for idleness; once the connection is closing, for a peer that does not take the rest. */
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

export class TcpConnection<Out = Uint8Array | string> implements ProtocolConnection<Out> {
  /** Unique within its loop. */
  readonly id: number
  /** Yours to use; ringloop never touches it. */
  context: unknown = undefined
  /** The protocol's own state of this connection; handlers leave it alone. */
  session: unknown = undefined

  /** @internal */
  readonly transport: Transport
  /** @internal */
  readonly service: Service<unknown, Out>
  /** The poller's number; -1 when it has been given back. @internal */
  slot: number
  /** Bits of {@link Flag}. @internal */
  flags: number
  /** When bytes last went in or out, by the loop's clock in ms. @internal */
  lastActive: number
  /** The part of the out slab that holds this connection's gathered bytes. @internal */
  outStart = 0
  /** @internal */
  outEnd = 0
  /** Promises of `onMessage` that are still pending. */
  #pending = 0
  #in: RingBuffer | undefined = undefined
  #out: RingBuffer | undefined = undefined
  #extra: Extra | undefined = undefined

  /** @internal */
  constructor(transport: Transport, service: Service<unknown, Out>, slot: number, id: number, flags: number) {
    this.transport = transport
    this.service = service
    this.slot = slot
    this.id = id
    this.flags = flags
    this.lastActive = transport.loop.now
  }

  get protocol(): Protocol<unknown, Out> {
    return this.service.protocol
  }

  /** The loop that owns this connection. */
  get loop(): EventLoop {
    return this.transport.loop
  }

  /** `true` from `onConnect` (or the handshake's begin) until it is closed by either side. */
  get connected(): boolean {
    return (this.flags & NOT_CONNECTED) === 0
  }

  /** The peer as `host:port` (`[host]:port` for IPv6); `''` for a unix socket. Can still be read after the close. */
  get peerAddr(): string {
    const known = this.#extra?.peerAddr
    if (known !== undefined) return known
    if (this.slot < 0) return ''
    const addr = this.transport.poller.peerAddr(this.slot)
    this.#extras().peerAddr = addr
    return addr
  }

  /** This side's address, written as {@link peerAddr}; `''` after the close if it was not read before. */
  get localAddr(): string {
    const known = this.#extra?.localAddr
    if (known !== undefined) return known
    if (this.slot < 0) return ''
    const addr = this.transport.poller.localAddr(this.slot)
    this.#extras().localAddr = addr
    return addr
  }

  /** A value kept under `key` by `set`. */
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

  /** Bytes that have come in and wait for the rest of their packet, or for the handler. */
  get readBufferLength(): number {
    return this.#in === undefined ? 0 : this.#in.length
  }

  /** Bytes that are to be sent and that the kernel has not taken yet. */
  get writeBufferLength(): number {
    return this.outEnd - this.outStart + (this.#out === undefined ? 0 : this.#out.length)
  }

  /** Milliseconds without a byte in or out after which it is closed; 0 is never. Starts with the server's `idleTime`. */
  get idleTime(): number {
    return this.#extra?.idleTime ?? this.service.idleTime
  }

  set idleTime(ms: number) {
    if (!Number.isFinite(ms) || ms < 0) {
      throw new RingloopError(ErrorCode.OPTION, `idleTime must be a number of ms, 0 or more, not ${ms}`)
    }
    this.#extras().idleTime = ms
    if (this.connected) this.#armIdleTimer()
  }

  /**
   * Packs `out` with the protocol and sends it. The bytes are copied or written before this returns: they are the
   * caller's again. `false` when the write buffer is above the high-water mark (it is sent all the same; stop until
   * `onDrain`), or when the connection is closed (it is not sent). `onSent` is called exactly once, later. What the
   * protocol throws for an `out` that it cannot pack is thrown to the caller.
   */
  send(out: Out, onSent?: OnSent): boolean {
    if ((this.flags & CANNOT_SEND) !== 0) return this.#refuse(onSent)
    this.#pack(out, undefined)
    return this.#sent(onSent)
  }

  /** Like {@link send} for bytes that are as the wire wants them: for protocols. */
  sendRaw(bytes: Packed, onSent?: OnSent): boolean {
    if ((this.flags & CANNOT_SEND) !== 0) return this.#refuse(onSent)
    this.#append(bytes)
    return this.#sent(onSent)
  }

  /**
   * Sends what is unsent, then closes. No packet is handed over any more; `onClose` follows, never from within this
   * call. `reason` is what `onClose` gets; by default `closed`.
   */
  close(reason: CloseReason | CloseCode | Error = CLOSED_HERE): void {
    this.beginClose(typeof reason === 'string' ? { code: reason, message: reason } : (reason as CloseReason))
  }

  end(out?: Out, onSent?: OnSent): boolean {
    const sent = out === undefined ? this.sendRaw([], onSent) : this.send(out, onSent)
    this.shutdownWrite()
    return sent
  }

  get idleFor(): number {
    return (this.loop.readClock() - this.lastActive) | 0
  }

  yield(): void {}

  /** Sends what is unsent and then ends this side; the peer may go on sending. `send` returns `false` from now on. */
  shutdownWrite(): void {
    if ((this.flags & CANNOT_SEND) !== 0) return
    this.flags |= Flag.SHUT | Flag.AFTER_FLUSH
    this.transport.markDirty(this)
  }

  /** Stops reading and handing over packets until {@link resume}; the peer is held back once the kernel's buffer is full. */
  pause(): void {
    if ((this.flags & NOT_CONNECTED) !== 0) return
    this.flags |= Flag.PAUSED
    this.#updateReading()
  }

  /** `true` from {@link pause} to {@link resume}. */
  get paused(): boolean {
    return (this.flags & Flag.PAUSED) !== 0
  }

  /** Undoes {@link pause}. Packets that wait are handed over soon, not from within this call. */
  resume(): void {
    if ((this.flags & Flag.PAUSED) === 0 || (this.flags & NOT_CONNECTED) !== 0) return
    this.flags &= ~Flag.PAUSED
    this.loop.queueInLoop(() => this.#continue())
  }

  /** Resolves to `true` once the write buffer is not above its mark, to `false` when the connection is closed. */
  drained(): Promise<boolean> {
    if ((this.flags & CANNOT_SEND) !== 0) return Promise.resolve(false)
    if ((this.flags & Flag.THROTTLED) === 0) return Promise.resolve(true)
    const extra = this.#extras()
    extra.drained ??= []
    const waiting = extra.drained
    return new Promise((resolve) => waiting.push(() => resolve((this.flags & CANNOT_SEND) === 0)))
  }

  /**
   * For a protocol that has to wait for something of its own: `unPacket` is not called again until {@link release}, as
   * while a promise of `onMessage` is pending. With `packets` false it goes on being called, and the connection only
   * does not end before its answer because the peer has ended its side.
   */
  holdPackets(): void {
    this.#pending++
    this.#extras().held++
    this.flags |= Flag.HELD
  }

  /**
   * Ends a {@link hold}, once for each and with the same `packets`. `unPacket` is called again even where no byte waits,
   * soon when this is called while packets are being handed over.
   */
  releasePackets(): void {
    if (--this.#extras().held === 0) this.flags &= ~Flag.HELD
    this.releaseEnd()
  }

  holdEnd(): void {
    this.#pending++
  }

  releaseEnd(): void {
    this.#pending--
    if ((this.flags & Flag.UNPACKING) !== 0) this.loop.queueInLoop(() => this.#released())
    else this.#released()
  }

  #released(): void {
    if ((this.flags & NOT_CONNECTED) !== 0) return
    this.#in ??= this.transport.pool.take()
    this.#continue()
  }

  /** For a protocol with `handshake`: the handshake is over, the handler gets its `onConnect`. Once only. */
  established(): void {
    if ((this.flags & (NOT_CONNECTED | Flag.ESTABLISHED)) !== 0) return
    this.flags |= Flag.ESTABLISHED
    try {
      this.#watch('onConnect', this.service.handler.onConnect?.(this))
    } catch (error) {
      this.#fail('onConnect', error)
    }
    // One that its own onConnect has closed was never ready: the end of the close rejects.
    const extra = this.#extra
    if (extra?.opening === undefined || (this.flags & Flag.CLOSING) !== 0) return
    extra.opening.resolve()
    extra.opening = undefined
  }

  // ---- called by the transport -------------------------------------------------------------------------------------

  /** It is accepted or connected: the first callbacks. @internal */
  handleOpen(): void {
    const { protocol } = this.service
    this.flags = (this.flags & ~Flag.CONNECTING) | Flag.READING
    this.lastActive = this.loop.now
    if (this.service.idleTime > 0) this.#armIdleTimer()
    try {
      protocol.onConnect?.(this)
    } catch (error) {
      this.#fail('the protocol’s onConnect', error)
      return
    }
    if (protocol.handshake !== true) this.established()
  }

  /** Waits for the handshake of a `connect`. @internal */
  setOpening(opening: Opening): void {
    this.#extras().opening = opening
  }

  /** Bytes came in; they are the transport's and are copied when they have to stay. @internal */
  handleRead(storage: Buffer, start: number, end: number): void {
    const { transport } = this
    this.lastActive = transport.loop.now
    transport.bytesIn += end - start
    if ((this.flags & (Flag.CLOSING | Flag.CLOSED)) !== 0) return
    if (this.#in !== undefined) {
      this.#in.writeRange(storage, start, end)
      this.#unpackRing()
      return
    }
    const view = transport.view
    view.attach(storage, start, end)
    if ((this.flags & STOPPED) === 0) this.#unpack(view)
    if (!view.isEmpty && (this.flags & (Flag.CLOSING | Flag.CLOSED)) === 0) {
      const ring = transport.pool.take()
      ring.writeRange(view.storage, view.start, view.start + view.length)
      this.#in = ring
      view.detach()
      this.#checkReadBuffer()
    } else {
      view.detach()
    }
  }

  /** The peer ended its side: what has come is still answered, then it is closed. @internal */
  handleEnd(): void {
    const isFirst = (this.flags & (Flag.ENDED | NOT_CONNECTED)) === 0
    this.flags = (this.flags | Flag.ENDED) & ~Flag.READING
    if (isFirst) this.#callOnEnd()
    this.#closeIfDone()
  }

  /** The socket broke. @internal */
  handleError(errno: number): void {
    this.#break(errno)
    this.handleEnd()
  }

  /** The socket broke while reading was off. @internal */
  handleHangup(): void {
    if ((this.flags & Flag.ENDED) !== 0) {
      if (this.writeBufferLength > 0) this.handleError(-32)
      return
    }
    if (this.writeBufferLength > 0) this.#break(-32)
    this.flags &= ~Flag.READING
    this.#updateReading()
  }

  /** Room again. @internal */
  handleWritable(): void {
    this.flags = (this.flags & ~Flag.AWAITS_ROOM) | Flag.AFTER_FLUSH
    this.transport.markDirty(this)
  }

  /** Its idle time, or the time for the last bytes, may be over. @internal */
  handleTimer(timer: Timer): void {
    const closing = (this.flags & Flag.CLOSING) !== 0
    const limit = closing ? this.service.closeTimeout : this.idleTime
    const rest = limit - ((this.loop.readClock() - this.lastActive) | 0)
    if (rest > 0) {
      timer.restart(rest)
    } else if (this.#pending > 0 && (this.flags & (Flag.CLOSING | Flag.BROKEN)) === 0) {
      timer.restart(limit)
    } else if (closing) {
      this.#dropOutput()
      this.#finishClose()
    } else {
      if (this.writeBufferLength > 0) this.#dropOutput()
      this.beginClose({ code: 'idle', message: `no traffic for ${limit} ms` })
    }
  }

  /** The kernel has `taken` of the `length` bytes of the segment, or there was an error. @internal */
  handleSegment(slab: Buffer, taken: number): void {
    const start = this.outStart
    const end = this.outEnd
    this.outStart = 0
    this.outEnd = 0
    if (taken < 0) {
      this.#break(taken)
      return
    }
    this.#tookBytes(taken)
    const ring = this.#backlog()
    ring.writeRange(slab, start + taken, end)
    this.transport.backlogBytes += end - start - taken
    this.flags |= Flag.AWAITS_ROOM | Flag.AFTER_FLUSH
  }

  /** The segment is not the last in the slab: its bytes move to the backlog so that later ones can follow. @internal */
  spillSegment(slab: Buffer): void {
    const ring = this.#backlog()
    ring.writeRange(slab, this.outStart, this.outEnd)
    this.transport.backlogBytes += this.outEnd - this.outStart
    this.outStart = 0
    this.outEnd = 0
    this.flags |= Flag.AFTER_FLUSH
  }

  /** @internal */
  get hasBacklog(): boolean {
    return this.#out !== undefined
  }

  /** The rest of a flush: backlog, callbacks, water marks, the close. @internal */
  handleFlushed(): void {
    this.flags &= ~Flag.AFTER_FLUSH
    if ((this.flags & Flag.CLOSED) !== 0) return
    if (this.#out !== undefined && (this.flags & Flag.AWAITS_ROOM) === 0) this.#writeBacklog()
    if (this.#extra?.sent !== undefined) this.#settleSent()
    if ((this.flags & Flag.THROTTLED) !== 0 && this.writeBufferLength <= this.service.lowWaterMark)
      this.#unthrottle()
    if ((this.flags & Flag.CLOSED) !== 0) return
    if (this.writeBufferLength > 0) this.#timeClose()
    else if ((this.flags & Flag.CLOSING) !== 0) this.#finishClose()
    else if ((this.flags & (Flag.SHUT | Flag.SHUT_DONE)) === Flag.SHUT) this.#shutdown()
    else this.#closeIfDone()
  }

  /**
   * The server or loop stops: reading ends, packets that are here are still answered, then it is closed.
   * @internal
   */
  drain(reason: CloseReason): void {
    if ((this.flags & (Flag.CLOSING | Flag.CLOSED | Flag.DRAINING)) !== 0) return
    if ((this.flags & Flag.CONNECTING) !== 0) {
      this.abort(reason)
      return
    }
    this.#extras().reason ??= reason
    this.flags |= Flag.DRAINING
    this.#updateReading()
    this.#closeIfDone()
  }

  /** Ends it at once, whatever is unsent. @internal */
  abort(reason: CloseReason): void {
    if ((this.flags & Flag.CLOSED) !== 0) return
    this.#extras().reason ??= reason
    this.flags |= Flag.CLOSING
    this.#dropOutput()
    this.#finishClose()
  }

  /** @internal */
  beginClose(reason: CloseReason): void {
    if ((this.flags & (Flag.CLOSING | Flag.CLOSED)) !== 0) return
    const extra = this.#extras()
    extra.reason ??= reason
    if ((this.flags & (Flag.CONNECTING | Flag.TOLD)) === 0) this.#callOnClosing(extra.reason)
    if ((this.flags & (Flag.CLOSING | Flag.CLOSED)) !== 0) return
    this.flags |= Flag.CLOSING | Flag.AFTER_FLUSH
    if ((this.flags & Flag.UNPACKING) === 0) this.#dropInput()
    this.#setReading(false)
    this.transport.markDirty(this)
  }

  // ---- in ----------------------------------------------------------------------------------------------------------

  #unpack(ring: RingBuffer): void {
    const { protocol, handler } = this.service
    const { transport } = this
    let freePackets = 0
    let length = ring.length
    this.flags |= Flag.UNPACKING
    try {
      while ((this.flags & STOPPED) === 0) {
        const packet = protocol.unPacket(this, ring)
        if (packet === undefined) break
        if (ring.length !== length) {
          length = ring.length
          freePackets = 0
        } else if (++freePackets > MAX_FREE_PACKETS) {
          throw new Error('unPacket returns packets without taking bytes')
        }
        transport.messagesIn++
        const ctx = packet.ctx
        const out =
          --transport.untilTimed > 0
            ? handler.onMessage(this, ctx, packet.data)
            : transport.timeMessage(this, ctx, packet.data)
        if (out === undefined) {
          if (ctx !== undefined) protocol.unanswered?.(this, ctx)
          continue
        }
        if (out instanceof Uint8Array || typeof out === 'string') this.#answer(out as Out, ctx)
        else if (isThenable(out)) this.#await(out as PromiseLike<Out | void>, ctx)
        else this.#answer(out as Out, ctx)
      }
    } catch (error) {
      this.#fail('onMessage', error)
    }
    this.flags &= ~Flag.UNPACKING
  }

  /** Hands over what the own ring holds, as far as it goes. */
  #unpackRing(): void {
    const ring = this.#in
    if (ring === undefined || (this.flags & Flag.UNPACKING) !== 0) return
    const stopped = (this.flags & STOPPED) !== 0
    if (!stopped) this.#unpack(ring)
    if ((this.flags & (Flag.CLOSING | Flag.CLOSED)) !== 0) this.#dropInput()
    else if (!ring.isEmpty) this.#checkReadBuffer()
    else if (!stopped) this.#dropInput() // else `release` wants a call of unPacket once it may go on
  }

  /** Bounds what waits: by closing when it is one packet, by not reading when packets only wait for their turn. */
  #checkReadBuffer(): void {
    const length = this.readBufferLength
    if ((this.flags & STOPPED) !== 0) {
      if (length >= READ_AHEAD) this.#updateReading()
    } else if (length > this.service.maxReadBuffer) {
      this.beginClose({
        code: 'read-buffer-full',
        message: `a packet did not complete within maxReadBuffer (${this.service.maxReadBuffer} bytes)`,
      })
    }
  }

  #dropInput(): void {
    const ring = this.#in
    if (ring === undefined) return
    this.#in = undefined
    this.transport.pool.give(ring)
  }

  #await(promise: PromiseLike<Out | void>, ctx: unknown): void {
    this.#pending++
    if (this.service.protocol.multiplexed !== true) this.flags |= Flag.BLOCKED
    // A thenable of the user's own might settle twice or throw; a promise does not.
    Promise.resolve(promise).then(
      (out) => this.#settled(out, ctx),
      (error) => {
        this.#pending--
        this.flags &= ~Flag.BLOCKED
        this.#fail('onMessage', error)
      },
    )
  }

  #settled(out: Out | void, ctx: unknown): void {
    this.#pending--
    this.flags &= ~Flag.BLOCKED
    if ((this.flags & (Flag.CLOSING | Flag.CLOSED)) !== 0) return
    try {
      if (out !== undefined) this.#answer(out, ctx)
      else if (ctx !== undefined) this.service.protocol.unanswered?.(this, ctx)
    } catch (error) {
      this.#fail('packet', error)
      return
    }
    this.#continue()
  }

  /** Something that held packets back is over. */
  #continue(): void {
    if ((this.flags & NOT_CONNECTED) !== 0) return
    this.#unpackRing()
    this.#updateReading()
    this.#closeIfDone()
  }

  #closeIfDone(): void {
    if ((this.flags & (Flag.ENDED | Flag.DRAINING)) === 0) return
    if ((this.flags & (Flag.CLOSING | Flag.CLOSED)) !== 0) return
    if (this.#in !== undefined && (this.flags & STOPPED) !== 0) return
    // On a broken socket no answer can be sent: nothing to wait for.
    if (this.#pending > 0 && (this.flags & Flag.BROKEN) === 0) return
    this.beginClose(PEER_CLOSED)
  }

  #updateReading(): void {
    const { flags } = this
    const held = (flags & (Flag.PAUSED | Flag.THROTTLED | Flag.ENDED | Flag.DRAINING | NOT_CONNECTED)) !== 0
    const ahead = (flags & (Flag.BLOCKED | Flag.HELD)) !== 0 && this.readBufferLength >= READ_AHEAD
    this.#setReading(!held && !ahead)
  }

  #setReading(on: boolean): void {
    if (((this.flags & Flag.READING) !== 0) === on || this.slot < 0) return
    this.flags ^= Flag.READING
    const result = this.transport.poller.setReading(this.slot, on)
    if (result < 0) this.handleError(result)
  }

  // ---- out ---------------------------------------------------------------------------------------------------------

  #answer(out: Out, ctx: unknown): void {
    if ((this.flags & CANNOT_SEND) !== 0) return
    this.#pack(out, ctx)
    if (this.outEnd - this.outStart > this.service.highWaterMark || this.#out !== undefined)
      this.#checkHighWater()
  }

  #pack(out: Out, ctx: unknown): void {
    const { protocol } = this.service
    const { transport } = this
    transport.messagesOut++
    if (protocol.packetInto !== undefined && this.#out === undefined && transport.openSegment(this, 1)) {
      const slab = transport.slab
      const wrote = protocol.packetInto(this, out, ctx, slab, transport.slabEnd)
      if ((this.flags & (Flag.BROKEN | Flag.CLOSED)) !== 0) return
      if (wrote >= 0) {
        transport.slabEnd += wrote
        this.outEnd = transport.slabEnd
        transport.markDirty(this)
        return
      }
    }
    this.#append(protocol.packet(this, out, ctx))
  }

  #append(packed: Packed): void {
    if (packed instanceof Uint8Array) {
      this.#appendBytes(packed)
      return
    }
    for (let i = 0; i < packed.length; i++) this.#appendBytes(packed[i]!)
  }

  #appendBytes(bytes: Uint8Array): void {
    const length = bytes.length
    if (length === 0 || (this.flags & (Flag.BROKEN | Flag.CLOSED)) !== 0) return
    const { transport } = this
    transport.markDirty(this)
    if (length >= LARGE) {
      this.#writeLarge(bytes)
    } else if (this.#out === undefined && transport.openSegment(this, length)) {
      transport.slab.set(bytes, transport.slabEnd)
      transport.slabEnd += length
      this.outEnd = transport.slabEnd
    } else {
      this.#queue(bytes, 0)
    }
  }

  /** Writes at once, behind what was gathered before; only what the kernel refuses is copied. */
  #writeLarge(bytes: Uint8Array): void {
    if (this.outEnd > this.outStart) this.transport.writeSlab()
    if ((this.flags & Flag.BROKEN) !== 0) return
    if (this.#out !== undefined) {
      this.#queue(bytes, 0)
      return
    }
    const taken = this.transport.poller.write(this.slot, bytes, 0, bytes.length)
    if (taken < 0) this.#break(taken)
    else this.#tookBytes(taken)
    if (taken >= 0 && taken < bytes.length) {
      this.flags |= Flag.AWAITS_ROOM
      this.#queue(bytes, taken)
    }
  }

  #queue(bytes: Uint8Array, from: number): void {
    if ((this.flags & Flag.BROKEN) !== 0) return
    this.#backlog().writeRange(bytes, from, bytes.length)
    this.transport.backlogBytes += bytes.length - from
    this.flags |= Flag.AFTER_FLUSH
  }

  #backlog(): RingBuffer {
    this.#out ??= this.transport.outPool.take()
    return this.#out
  }

  #tookBytes(count: number): void {
    this.transport.bytesOut += count
    this.lastActive = this.transport.loop.now
    if ((this.flags & Flag.COUNTS) !== 0) this.countTaken(count)
  }

  /** @internal */
  countTaken(count: number): void {
    this.#extras().taken += count
  }

  #writeBacklog(): void {
    const ring = this.#out!
    const { poller } = this.transport
    while (!ring.isEmpty) {
      const offered = ring.contiguous
      const taken = poller.write(this.slot, ring.storage, ring.start, ring.start + offered)
      if (taken < 0) {
        this.#break(taken)
        return
      }
      ring.retrieve(taken)
      this.transport.backlogBytes -= taken
      this.#tookBytes(taken)
      if (taken < offered) {
        this.flags |= Flag.AWAITS_ROOM
        return
      }
    }
    this.#dropBacklog()
  }

  #dropBacklog(): void {
    const ring = this.#out
    if (ring === undefined) return
    this.transport.backlogBytes -= ring.length
    this.#out = undefined
    this.transport.outPool.give(ring)
  }

  /** What a `send` still has to do: remember its callback, look at the marks. */
  #sent(onSent: OnSent | undefined): boolean {
    if ((this.flags & Flag.BROKEN) !== 0) return this.#refuse(onSent)
    if (onSent !== undefined) this.#remember(onSent)
    this.#checkHighWater()
    return (this.flags & (Flag.THROTTLED | Flag.BROKEN)) === 0
  }

  #remember(onSent: OnSent): void {
    const extra = this.#extras()
    if (extra.sent === undefined) {
      extra.sent = []
      extra.taken = 0
    }
    extra.sent.push({ at: extra.taken + this.writeBufferLength, onSent })
    this.flags |= Flag.COUNTS | Flag.AFTER_FLUSH
    this.transport.markDirty(this)
  }

  /** Calls what is done; once nothing can be sent any more, all of them. */
  #settleSent(): void {
    const extra = this.#extras()
    const { sent, taken } = extra
    if (sent === undefined) return
    const lost = (this.flags & (Flag.BROKEN | Flag.CLOSED)) !== 0
    const done = sent.filter((waiting) => lost || waiting.at <= taken)
    const left = sent.filter((waiting) => !lost && waiting.at > taken)
    extra.sent = left.length > 0 ? left : undefined
    if (left.length === 0) this.flags &= ~Flag.COUNTS
    for (const { at, onSent } of done) this.#callOnSent(onSent, at <= taken ? undefined : closedError())
  }

  #callOnSent(onSent: OnSent, error: Error | undefined): void {
    try {
      onSent(error)
    } catch (thrown) {
      this.#fail('onSent', thrown)
    }
  }

  /** Above the mark even after asking the kernel: hold the peer back until it has taken enough. */
  #checkHighWater(): void {
    const { highWaterMark } = this.service
    if (this.writeBufferLength <= highWaterMark || (this.flags & Flag.THROTTLED) !== 0) return
    if (this.outEnd > this.outStart) this.transport.writeSlab()
    if (this.#out !== undefined && (this.flags & Flag.AWAITS_ROOM) === 0) this.#writeBacklog()
    if (this.writeBufferLength <= highWaterMark) return
    this.flags |= Flag.THROTTLED | Flag.AFTER_FLUSH
    this.#updateReading()
  }

  #unthrottle(): void {
    this.flags &= ~Flag.THROTTLED
    this.#settleDrained()
    if ((this.flags & Flag.BROKEN) !== 0) {
      this.#continue()
      return
    }
    try {
      this.service.protocol.onDrain?.(this)
      if ((this.flags & Flag.ESTABLISHED) !== 0) {
        this.#watch('onDrain', this.service.handler.onDrain?.(this))
      }
    } catch (error) {
      this.#fail('onDrain', error)
    }
    this.#continue()
  }

  #refuse(onSent: OnSent | undefined): boolean {
    if (onSent !== undefined) process.nextTick(() => this.#callOnSent(onSent, closedError()))
    return false
  }

  #shutdown(): void {
    this.flags |= Flag.SHUT_DONE
    this.transport.poller.shutdownWrite(this.slot)
    this.#closeIfDone()
  }

  // ---- the end -----------------------------------------------------------------------------------------------------

  /** Nothing can be written any more. What the peer has sent can still be read: its end or error comes that way. */
  #break(errno: number): void {
    if ((this.flags & Flag.BROKEN) === 0) {
      const error = systemError(errno)
      this.#extras().reason ??= { code: 'network-error', message: error.message, error }
    }
    this.#dropOutput()
    if ((this.flags & Flag.ENDED) !== 0) this.#closeIfDone()
    else this.#updateReading()
  }

  #dropOutput(): void {
    this.flags = (this.flags | Flag.BROKEN | Flag.AFTER_FLUSH) & ~Flag.AWAITS_ROOM
    this.outStart = 0
    this.outEnd = 0
    this.#dropBacklog()
    this.transport.markDirty(this)
  }

  /** An async callback may reject, though nothing waits for it. */
  #watch(where: string, returned: unknown): void {
    if (isThenable(returned)) {
      Promise.resolve(returned).catch((error) => this.#fail(where, error))
    }
  }

  /** A callback threw or rejected: logged, and this connection is closed. */
  #fail(where: string, error: unknown): void {
    const { loop } = this
    const cause = toError(error)
    if ((this.flags & Flag.CLOSED) !== 0) {
      const level = isConsequence(error) ? 'debug' : 'error'
      loop.logger[level](
        { err: cause, peer: this.peerAddr },
        `${where} failed after the connection was closed`,
      )
    } else if (error instanceof ProtocolError) {
      this.transport.counters.add(CELL.protocolErrors, 1)
      loop.logger.info({ peer: this.peerAddr, reason: cause.message }, 'the peer broke the protocol')
      this.beginClose({ code: 'protocol-error', message: cause.message, error: cause })
    } else {
      this.transport.counters.add(CELL.handlerErrors, 1)
      loop.logger.error({ err: cause, peer: this.peerAddr }, `${where} failed; its connection is closed`)
      this.beginClose({ code: 'handler-error', message: `${where} failed: ${cause.message}`, error: cause })
    }
  }

  #finishClose(): void {
    if ((this.flags & Flag.CLOSED) !== 0) return
    const extra = this.#extras()
    const reason = extra.reason ?? CLOSED_HERE
    const graceful = (this.flags & (Flag.ENDED | Flag.BROKEN | Flag.CONNECTING)) === 0
    const wasOpen = (this.flags & Flag.CONNECTING) === 0
    extra.peerAddr ??= this.transport.poller.peerAddr(this.slot)
    this.flags |= Flag.CLOSED
    extra.timer?.stop()
    this.#dropInput()
    this.transport.release(this, graceful, reason)
    this.slot = -1
    this.#settleSent()
    this.#settleDrained()
    if (wasOpen) this.#callOnClose(reason)
    const { opening } = extra
    extra.opening = undefined
    opening?.reject(
      new RingloopError(
        ErrorCode.CONNECT,
        `the connection ended before it was ready: ${reason.message}`,
        reason.error,
      ),
    )
  }

  #callOnEnd(): void {
    try {
      this.service.protocol.onEnd?.(this)
    } catch (error) {
      this.#fail('the protocol’s onEnd', error)
    }
  }

  #callOnClosing(reason: CloseReason): void {
    this.flags |= Flag.TOLD
    try {
      this.service.protocol.onClosing?.(this, reason)
    } catch (error) {
      this.loop.logger.error({ err: error, peer: this.peerAddr }, 'the protocol’s onClosing failed')
    }
  }

  #callOnClose(reason: CloseReason): void {
    const { protocol, handler } = this.service
    try {
      protocol.onClose?.(this, reason)
    } catch (error) {
      this.#fail('the protocol’s onClose', error)
    }
    if ((this.flags & Flag.ESTABLISHED) === 0) return
    try {
      this.#watch('onClose', handler.onClose?.(this, reason))
    } catch (error) {
      this.#fail('onClose', error)
    }
  }

  #settleDrained(): void {
    const waiting = this.#extra?.drained
    if (waiting === undefined) return
    this.#extra!.drained = undefined
    for (const resolve of waiting) resolve()
  }

  /** Closing, but the peer does not take the rest: not for ever. */
  #timeClose(): void {
    if ((this.flags & Flag.CLOSING) === 0 || this.#extras().closeTimed) return
    this.#extras().closeTimed = true
    this.#armTimer(this.service.closeTimeout)
  }

  #armIdleTimer(): void {
    this.#armTimer(this.idleTime)
  }

  #armTimer(ms: number): void {
    const extra = this.#extras()
    if (ms === 0) {
      extra.timer?.stop()
      return
    }
    extra.timer ??= new ConnectionTimer(this)
    this.loop.wheel.add(extra.timer, ms)
  }

  #extras(): Extra {
    this.#extra ??= new Extra()
    return this.#extra
  }
}

/** A handler was told that its connection has ended, and passed that on: nobody's fault. */
function isConsequence(error: unknown): boolean {
  return error instanceof RingloopError && error.code === ErrorCode.CLOSED
}

function isThenable(value: unknown): boolean {
  return (
    typeof value === 'object' && value !== null && typeof (value as PromiseLike<unknown>).then === 'function'
  )
}

function closedError(): Error {
  return new RingloopError(ErrorCode.CLOSED, 'the connection was closed before the bytes were sent')
}
