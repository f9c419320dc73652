/**
 * One connection: how it opens, ends and closes, what the poller reports of it and the loop orders. It belongs to one
 * loop from accept to close, and every method is to be called on that loop's thread. The lower layers, which send and
 * receive, are named in `connection-base.ts`; memory is owned only while something waits in them.
 *
 *     CONNECTING ─▶ OPEN ─▶ CLOSING (what is unsent still goes out) ─▶ CLOSED
 */
import type { ProtocolConnection, SubscribeOptions, Subscription } from '../connection.js'
import { type CloseCode, type CloseReason, ErrorCode, RingloopError, toError } from '../errors.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import { checkSince } from '../options.js'
import { errno } from '../system-error.js'
import { checkTopicName } from '../topic-name.js'
import { CLOSED_HERE, closeReason, neverReady, PEER_CLOSED } from './close-reason.js'
import type { ConnectionConfig } from './config.js'
import { isThenable, type PendingConnect, State } from './connection-base.js'
import { ConnectionTimer, type TimedConnection } from './connection-timer.js'
import type { ConnectionHost } from './host.js'
import { type Diversion, ReceiveSide } from './receive-side.js'

/** The bits of this layer. */
const Bit = {
  /** It came in through a listener; otherwise `connect` made it. */
  ACCEPTED: 1 << 8,
  /** The handler's onConnect has been called. */
  GREETED: 1 << 9,
  /** The protocol has heard that it is closing. */
  TOLD_CLOSING: 1 << 10,
  /** The handler has heard that the peer has ended its side. */
  TOLD_END: 1 << 11,
  /** It stays open when the peer has ended its side. */
  HALF_OPEN: 1 << 12,
  /** The peer has ended its side behind bytes that are not read, or is gone. */
  LEFT: 1 << 16,
  /** It has left, and this waits for the next turn to see what has settled. */
  LEAVING: 1 << 13,
  /** The loop drains. */
  DRAINING: 1 << 14,
  /** Its peer is to see a reset. */
  RESET: 1 << 15,
} as const

export class TcpConnection<Out = Uint8Array | string, Context = unknown>
  extends ReceiveSide<Out, Context>
  implements ProtocolConnection<Out>, TimedConnection
{
  constructor(
    host: ConnectionHost,
    config: ConnectionConfig<unknown, Out>,
    slot: number,
    id: number,
    isAccepted: boolean,
  ) {
    super(host, config, slot, id)
    this.bits = (isAccepted ? Bit.ACCEPTED : 0) | (config.allowHalfOpen ? Bit.HALF_OPEN : 0)
  }

  // ---- it opens ------------------------------------------------------------------------------------------------------

  /** It is accepted or connected: the first callbacks. */
  handleOpen(): void {
    const { protocol, idleTime } = this.config
    this.state = State.OPEN
    this.noteReading(true)
    this.host.lastActive[this.slot] = this.host.now
    const isShaking = protocol.handshake === true
    if (idleTime > 0) this.armTimer(idleTime)
    if (isShaking) this.timeHandshake()
    try {
      protocol.onConnect?.(this)
    } catch (error) {
      this.fail('the protocol’s onConnect', error)
      return
    }
    if (!isShaking) this.established()
  }

  established(): void {
    if (!this.connected || this.isGreeted) return
    this.bits |= Bit.GREETED
    this.noteGreeting()
    // What the peer's end has not been told is told now.
    if (this.hasEnded) this.host.out.afterFlush(this.slot)
    try {
      const greeting = this.config.handler.onConnect?.(this)
      if (isThenable(greeting)) {
        this.awaitGreeting(greeting)
        return
      }
    } catch (error) {
      this.fail('onConnect', error)
    }
    this.ready()
  }

  /** The handler's `onConnect` has been called. */
  get isGreeted(): boolean {
    return (this.bits & Bit.GREETED) !== 0
  }

  /** Packets wait for it, no longer than `handshakeTimeout`. */
  private awaitGreeting(greeting: PromiseLike<unknown>): void {
    this.holdForGreeting()
    if (this.extra?.timer?.isWatchingHandshake !== true) this.timeHandshake()
    // A thenable of the user's own might settle twice or throw; a promise does not.
    Promise.resolve(greeting)
      .catch((error) => this.fail('onConnect', error))
      .then(() => {
        this.ready()
        this.releaseGreeting()
        this.trim()
      })
  }

  private ready(): void {
    const { extra } = this
    // One that its own onConnect has closed was never ready: the end of the close rejects.
    if (extra === undefined || !this.connected) return
    this.endHandshake()
    extra.pendingConnect?.resolve()
    extra.pendingConnect = undefined
    this.trim()
  }

  private endHandshake(): void {
    const timer = this.extra?.timer
    if (timer?.isWatchingHandshake !== true) return
    timer.endHandshake()
    this.armTimer(this.idleTime)
  }

  /** Waits for the handshake of a `connect`. */
  setPendingConnect(pending: PendingConnect): void {
    this.extras().pendingConnect = pending
  }

  /** Its handshake is over, and it can be sent to: what is published reaches it. */
  get isReachable(): boolean {
    return this.canSend && this.isGreeted
  }

  /** And it was accepted: a broadcast reaches it. */
  get isReceiver(): boolean {
    return this.isReachable && this.isAccepted
  }

  get isAccepted(): boolean {
    return (this.bits & Bit.ACCEPTED) !== 0
  }

  // ---- one side of it ends -------------------------------------------------------------------------------------------

  /** The peer ended its side: what has come is still answered. */
  handleEnd(): void {
    if (this.noteEnd()) this.callProtocolOnEnd()
    this.finishIfDone()
  }

  /** The socket broke, or never got through. */
  handleError(code: number): void {
    this.breakWith(code)
    if (this.isConnecting) this.finishClose()
    else this.handleEnd()
  }

  /** The peer has ended its side, behind bytes that are not read. */
  handleLeft(): void {
    this.bits |= Bit.LEFT
    if ((this.bits & Bit.HALF_OPEN) === 0) this.callProtocolOnLeft()
    this.finishIfDone()
  }

  /** The socket broke while reading was off. */
  handleHangup(): void {
    const { hasEnded } = this
    // A peer that has ended and is gone altogether owes us nothing, unless something was still to be sent.
    if (hasEnded && this.writeBufferLength === 0) this.extras().reason ??= PEER_CLOSED
    if (hasEnded || this.writeBufferLength > 0) this.breakWith(errno.EPIPE)
    if (this.hasEnded) return
    this.noteReading(false)
    this.updateReading()
    this.handleLeft()
  }

  /** No more bytes will come: once all is handed over and answered the handler hears it, and the connection closes. */
  protected finishIfDone(): void {
    if (!this.connected) return
    if (!this.isDone) {
      if (this.isLeft) this.awaitSettled()
      return
    }
    if (this.mustTellEnd) {
      this.bits |= Bit.TOLD_END
      this.callOnEnd()
      if (!this.connected || !this.isDone) return
    }
    const staysOpen = (this.bits & Bit.HALF_OPEN) !== 0 && !this.hasStoppedSending && !this.isDrained
    if (!staysOpen) this.beginClose(PEER_CLOSED)
  }

  /** The peer has ended its side, which in this protocol says that it wants no answer any more. */
  private get isLeft(): boolean {
    if (!this.endsWithPeer) return false
    if (this.hasEnded) return this.isAnswering
    return (this.bits & Bit.LEFT) !== 0 && this.isHeldBack
  }

  private get endsWithPeer(): boolean {
    return this.config.protocol.endsWithPeer === true && (this.bits & Bit.HALF_OPEN) === 0
  }

  /** Promises that settle at once still answer: they have until the next round. */
  private awaitSettled(): void {
    if ((this.bits & Bit.LEAVING) !== 0) return
    this.bits |= Bit.LEAVING
    this.takeSettled()
    this.host.turns.push(this)
  }

  override takeTurn(): void {
    if ((this.bits & Bit.LEAVING) === 0) {
      super.takeTurn()
      return
    }
    this.bits &= ~Bit.LEAVING
    if (!this.connected || !this.isLeft) return
    if (this.takeSettled()) this.awaitSettled()
    else if (this.hasEnded) this.beginClose(PEER_CLOSED)
    else this.handleEnd() // nobody will read what is behind
  }

  /** A handler hears of a peer that has ended, not of one that broke; a diversion also of a loop that stops. */
  private get mustTellEnd(): boolean {
    if ((this.bits & Bit.TOLD_END) !== 0 || this.isBroken) return false
    return this.isDiverted || (this.hasEnded && this.isGreeted)
  }

  /** The loop stops, and nothing more is to come out of it. Of two that are piped each ends when the other has. */
  private get isDrained(): boolean {
    return (this.bits & Bit.DRAINING) !== 0 && !this.isDiverted
  }

  /**
   * From now on the bytes go to `diversion`, those first that wait already; no packet is handed over any more. It stays
   * open when the peer has ended its side.
   */
  divert(diversion: Diversion): void {
    // An end that the handler has been told is told to the diversion too.
    this.bits = (this.bits | Bit.HALF_OPEN) & ~Bit.TOLD_END
    this.endHandshake()
    this.startDiversion(diversion)
  }

  /** The end of a flush: what waited for that, and the close. */
  handleFlushed(): void {
    if (this.state === State.CLOSED) return
    this.flushQueue()
    if (this.state === State.CLOSED) return
    if (this.writeBufferLength > 0) this.timeClose()
    else if (this.isClosing) this.finishClose()
    else {
      this.finishShutdown()
      this.finishIfDone()
    }
  }

  // ---- it closes -----------------------------------------------------------------------------------------------------

  close(reason: CloseReason | CloseCode | Error = CLOSED_HERE): void {
    this.beginClose(closeReason(reason))
  }

  beginClose(reason: CloseReason): void {
    if (this.isConnecting) {
      this.abort(reason)
      return
    }
    if (!this.connected) return
    this.letPublicationsPass()
    const extra = this.extras()
    extra.reason ??= reason
    if ((this.bits & Bit.TOLD_CLOSING) === 0) this.callOnClosing(extra.reason)
    if (!this.connected) return
    this.state = State.CLOSING
    this.leaveTopics()
    // Bytes right before a reset hide it from some peers: libuv reads them, and then takes it for an end.
    if (this.endsWithReset) this.dropOutput()
    this.stopReceiving()
    this.host.out.afterFlush(this.slot)
  }

  /** Ends it, whatever is unsent: at once where nobody has heard of it yet, else at the next flush. */
  abort(given: CloseReason | CloseCode | Error = CLOSED_HERE): void {
    const reason = closeReason(given)
    if (this.state === State.CLOSED) return
    this.extras().reason ??= reason
    this.dropOutput()
    if (this.isConnecting) this.finishClose()
    else this.beginClose(reason)
  }

  /** The loop stops: reading ends, packets that are here are still answered, then it is closed; or its protocol keeps it. */
  drain(reason: CloseReason): void {
    if (this.isConnecting) {
      this.abort(reason)
      return
    }
    if (!this.connected || (this.bits & Bit.DRAINING) !== 0) return
    this.bits |= Bit.DRAINING
    const isKept = this.isGreeted && !this.isDiverted && this.callOnDraining()
    if (!this.connected) return
    if (!isKept) {
      this.stopReading()
      this.extras().reason ??= reason
    }
    this.finishIfDone()
  }

  get endsWithReset(): boolean {
    return (this.bits & Bit.RESET) !== 0
  }

  set endsWithReset(on: boolean) {
    this.bits = on ? this.bits | Bit.RESET : this.bits & ~Bit.RESET
  }

  private finishClose(): void {
    if (this.state === State.CLOSED) return
    const { host, slot } = this
    const extra = this.extras()
    const reason = extra.reason ?? CLOSED_HERE
    const wasOpen = !this.isConnecting
    const isGraceful = wasOpen && !this.hasEnded && !this.isBroken
    extra.peerAddr ??= host.poller.peerAddr(slot)
    extra.timer?.stop()
    this.dropInput()
    host.remove(this, isGraceful, reason)
    this.state = State.CLOSED
    this.slot = -1
    this.settleSends()
    extra.diversion?.closed(reason)
    if (wasOpen) this.callOnClose(reason)
    extra.topics = undefined
    const { pendingConnect } = extra
    extra.pendingConnect = undefined
    pendingConnect?.reject(neverReady(reason))
  }

  // ---- topics --------------------------------------------------------------------------------------------------------

  get topics(): ReadonlySet<string> {
    return this.extra?.topics ?? new Set()
  }

  subscribe(topic: string): boolean
  subscribe(topic: string, options: SubscribeOptions): Promise<Subscription>
  subscribe(topic: string, options?: SubscribeOptions): boolean | Promise<Subscription> {
    if (options === undefined) return this.joinTopic(topic)
    const since = checkSince(options)
    if (this.joinTopic(topic)) return this.host.topics.catchUp(topic, this, since)
    return Promise.resolve({ isNew: false, recovered: false, position: undefined })
  }

  private joinTopic(topic: string): boolean {
    if (this.extra?.topics?.has(topic) === true) return false
    if (!this.canSend) {
      checkTopicName(topic)
      return false
    }
    const name = this.host.topics.add(topic, this)
    const extra = this.extras()
    extra.topics ??= new Set()
    extra.topics.add(name)
    return true
  }

  unsubscribe(topic: string): boolean {
    this.letPublicationsPass()
    const topics = this.extra?.topics
    if (topics?.delete(topic) !== true) {
      checkTopicName(topic)
      return false
    }
    this.host.topics.remove(topic, this)
    if (topics.size === 0) this.extra!.topics = undefined
    this.trim()
    return true
  }

  publish(topic: string, out: Out, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    return this.host.topics.publish(topic, out, options, this)
  }

  /** It gets nothing any more. What it was subscribed to it remembers, for its `onClose`. */
  private leaveTopics(): void {
    const topics = this.extra?.topics
    if (topics === undefined) return
    for (const topic of topics) this.host.topics.remove(topic, this)
  }

  // ---- time ----------------------------------------------------------------------------------------------------------

  get idleTime(): number {
    return this.extra?.idleTime ?? this.config.idleTime
  }

  set idleTime(ms: number) {
    if (!Number.isFinite(ms) || ms < 0) {
      throw new RingloopError(
        ErrorCode.OPTION,
        `idleTime must be a number of milliseconds, 0 or more, not ${String(ms)}`,
      )
    }
    const extra = this.extras()
    extra.idleTime = ms
    if (this.connected && extra.timer?.isWatchingHandshake !== true) this.armTimer(ms)
  }

  get idleFor(): number {
    const { host, slot } = this
    return slot < 0 ? 0 : (host.readClock() - host.lastActive[slot]!) | 0
  }

  get isClosing(): boolean {
    return this.state === State.CLOSING
  }

  get patience(): number {
    return this.isClosing ? this.config.closeTimeout : this.idleTime
  }

  get isBusy(): boolean {
    return this.hasPending && !this.isBroken
  }

  get roundsToReadAll(): number {
    return this.host.roundsToReadAll
  }

  readClock(): number {
    return this.host.readClock()
  }

  handshakeIsLate(): void {
    const { handshakeTimeout } = this.config
    const message = `not ready within handshakeTimeout (${handshakeTimeout} ms)`
    this.beginClose({ code: 'handshake-timeout', message })
  }

  idleIsOver(): void {
    if (this.writeBufferLength > 0) this.dropOutput()
    this.beginClose({ code: 'idle', message: `no traffic for ${this.idleTime} ms` })
  }

  closeIsLate(): void {
    this.dropOutput()
    this.finishClose()
  }

  private timeHandshake(): void {
    const { handshakeTimeout } = this.config
    if (handshakeTimeout === 0) return
    this.armTimer(handshakeTimeout)
    this.extra!.timer!.startHandshake(handshakeTimeout)
  }

  /** Closing, but the peer does not take the rest: not for ever. */
  private timeClose(): void {
    if (!this.isClosing || this.extra?.timer?.isWatchingClose === true) return
    this.armTimer(this.config.closeTimeout)
    this.extra!.timer!.isWatchingClose = true
  }

  private armTimer(ms: number): void {
    const extra = this.extras()
    if (ms === 0) {
      extra.timer?.stop()
      extra.timer = undefined
      return
    }
    extra.timer ??= new ConnectionTimer(this)
    this.loop.addTimer(extra.timer, ms)
  }

  // ---- callbacks -----------------------------------------------------------------------------------------------------

  protected callOnDrain(): void {
    try {
      this.config.protocol.onDrain?.(this)
      if (this.isGreeted) this.watch('onDrain', this.config.handler.onDrain?.(this))
    } catch (error) {
      this.fail('onDrain', error)
    }
  }

  private callOnEnd(): void {
    const diversion = this.extra?.diversion
    if (diversion !== undefined) {
      diversion.end()
      return
    }
    try {
      const ending = this.config.handler.onEnd?.(this)
      if (!isThenable(ending)) return
      this.holdOpen()
      Promise.resolve(ending)
        .catch((error) => this.fail('onEnd', error))
        .then(() => this.releaseOpen())
    } catch (error) {
      this.fail('onEnd', error)
    }
  }

  private callProtocolOnEnd(): void {
    try {
      this.config.protocol.onEnd?.(this)
    } catch (error) {
      this.fail('the protocol’s onEnd', error)
    }
  }

  private callProtocolOnLeft(): void {
    try {
      this.config.protocol.onLeft?.(this)
    } catch (error) {
      this.fail('the protocol’s onLeft', error)
    }
  }

  private callOnDraining(): boolean {
    try {
      return this.config.protocol.onDraining?.(this) === true
    } catch (error) {
      this.fail('the protocol’s onDraining', error)
      return false
    }
  }

  private callOnClosing(reason: CloseReason): void {
    this.bits |= Bit.TOLD_CLOSING
    try {
      this.config.protocol.onClosing?.(this, reason)
    } catch (error) {
      this.logError('the protocol’s onClosing failed', toError(error))
    }
  }

  private callOnClose(reason: CloseReason): void {
    const { protocol, handler } = this.config
    try {
      protocol.onClose?.(this, reason)
    } catch (error) {
      this.fail('the protocol’s onClose', error)
    }
    if (!this.isGreeted) return
    try {
      this.watch('onClose', handler.onClose?.(this, reason))
    } catch (error) {
      this.fail('onClose', error)
    }
  }
}
