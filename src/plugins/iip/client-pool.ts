/**
 * The connections of a client: calls are spread over their channels, connections are made when they are needed, and made
 * again, with growing pauses, when they are lost. The client's thread only.
 *
 *     submit ─▶ #waiting ─▶ idle channel ▸ new channel ▸ new connection ▸ behind others ─▶ ClientConnection.send
 */
import Denque from 'denque'
import type { Address, CloseReason, Connection, ConnectOptions, Loop, Timer } from '../../index.js'
import type { Call } from './client-call.js'
import type { ClientChannel } from './client-channel.js'
import type { ClientConnection, ClientLimits, Pool } from './client-connection.js'
import { ClientProtocol, connectionOf } from './client-protocol.js'
import { IipError, IipErrorCode } from './errors.js'
import type { CallTarget } from './own-channel.js'

/** Milliseconds for which a connection that is being made is worth waiting for, rather than queueing behind others. */
const SOON = 100
/** Milliseconds for the last bytes of a connection for whose answers nobody waits. */
const CLOSE_TIMEOUT = 1000

export interface PoolSettings extends ClientLimits {
  readonly address: Address
  readonly tls: ConnectOptions['tls']
  readonly maxConnections: number
  readonly maxPipeline: number
  readonly minReconnectDelay: number
  readonly maxReconnectDelay: number
  /** See `IipClientOptions.onDrain`. */
  readonly onDrain: () => void
}

/** Somebody who wants a channel for himself; `call` settles when he has it. */
export interface Taker {
  readonly call: Call
  take(channel: ClientChannel): void
}

type MakeError = () => Error

export class ClientPool implements Pool, CallTarget {
  readonly #settings: PoolSettings
  readonly #loop: Loop
  readonly #protocol: ClientProtocol
  readonly #connections: ClientConnection[] = []
  #connecting = 0
  /** In ms of `performance.now()`. */
  #connectingSince = 0
  /** Calls that no channel could take yet. */
  readonly #waiting: Denque<Call> = new Denque()
  readonly #takers: Denque<Taker> = new Denque()
  #failures = 0
  /** Of the last attempt to connect. */
  #failure: IipError | undefined = undefined
  #retryAt = 0
  #retryTimer: Timer | undefined = undefined
  #closed = false

  constructor(loop: Loop, settings: PoolSettings) {
    this.#loop = loop
    this.#settings = settings
    this.#protocol = new ClientProtocol(settings, this)
  }

  /** Open connections. */
  get size(): number {
    return this.#connections.length
  }

  submit(call: Call): void {
    if (this.#waiting.length === 0 && this.#takers.length === 0) {
      const channel = this.#choose()
      if (channel?.connection.send(channel, call) === true) return
    }
    this.#waiting.push(call)
    this.changed()
  }

  submitTaker(taker: Taker): void {
    this.#takers.push(taker)
    this.changed()
  }

  /** The pause after a failure is over: what is submitted next makes an attempt to connect at once. */
  endPause(): void {
    if (!this.#isServed) this.#retryAt = 0
  }

  /** Closes every connection; what is pending fails, what waits with `error`. */
  close(error: MakeError): void {
    this.#closed = true
    this.#retryTimer?.stop()
    this.#rejectWaiting(error, () => true)
    for (const connection of [...this.#connections]) connection.close()
  }

  // ---- who is served -----------------------------------------------------------------------------------------------

  /** Gives what waits to the channels that can take it; asks for more of them where that is not enough. */
  changed(): void {
    if (this.#closed) return
    this.#serveTakers()
    this.#serveWaiting()
    const missing = this.#waiting.length + this.#takers.length
    if (missing === 0) return
    this.#grow(missing)
    if (this.#isDown) this.#rejectWaiting(() => this.#downError(), impatient)
  }

  #serveTakers(): void {
    while (this.#takers.length > 0) {
      const taker = this.#takers.peekFront()!
      const channel = taker.call.settled ? undefined : this.#idleChannel()
      if (channel === undefined && !taker.call.settled) return
      this.#takers.shift()
      if (channel !== undefined) taker.take(channel)
    }
  }

  #serveWaiting(): void {
    while (this.#waiting.length > 0) {
      const { settled } = this.#waiting.peekFront()!
      const channel = settled ? undefined : this.#choose()
      if (channel === undefined && !settled) return
      const call = this.#waiting.shift()!
      if (channel?.connection.send(channel, call) === false) this.#waiting.unshift(call)
    }
  }

  #idleChannel(): ClientChannel | undefined {
    const channel = this.#leastBusy(false, 1)
    return channel ?? (this.#willHaveMore ? undefined : this.#leastBusy(true, 1))
  }

  /** An idle channel, else the one with the fewest requests, unless there will be another one in a moment. */
  #choose(): ClientChannel | undefined {
    const { maxPipeline } = this.#settings
    const best = this.#leastBusy(false, maxPipeline)
    if (best !== undefined && best.pending.length === 0) return best
    if (this.#willHaveMore) return undefined
    return best ?? this.#leastBusy(true, maxPipeline)
  }

  /** Of the connections that are read, or of those that are not, which are the last resort. */
  #leastBusy(isHeldBack: boolean, below: number): ClientChannel | undefined {
    let best: ClientChannel | undefined
    let fewest = below
    for (const connection of this.#connections) {
      if (connection.isHeldBack !== isHeldBack || !connection.serves) continue
      const { channels } = connection
      for (let i = 0; i < channels.length; i++) {
        const channel = channels[i]!
        const { length } = channel.pending
        if (length >= fewest || channel.taken || !channel.usable) continue
        if (length === 0) return channel
        best = channel
        fewest = length
      }
    }
    return best
  }

  get #willHaveMore(): boolean {
    for (const connection of this.#connections) {
      if (!connection.isHeldBack && (connection.hasRoom || connection.opening > 0)) return true
    }
    if (this.#connecting > 0) return performance.now() - this.#connectingSince < SOON
    return this.#hasSlot && this.#retryAt <= performance.now()
  }

  // ---- more channels, more connections -----------------------------------------------------------------------------

  #grow(missing: number): void {
    let open = missing
    for (const connection of [...this.#connections]) {
      if (connection.isStuck) connection.close()
      if (connection.isHeldBack) continue
      open -= connection.opening
      for (; open > 0 && connection.hasRoom; open--) this.#openChannel(connection)
    }
    const { maxChannelsPerConn } = this.#settings
    open -= this.#connecting * maxChannelsPerConn
    for (; open > 0 && this.#mayConnect(); open -= maxChannelsPerConn) void this.#connect()
  }

  #openChannel(connection: ClientConnection): void {
    connection.openChannel().then(
      () => this.#channelOpened(),
      (error) => this.#channelFailed(connection, error),
    )
  }

  #channelOpened(): void {
    this.#failures = 0
    this.changed()
  }

  /** Without any channel the connection is of no use, and its end, which follows at once, is the failure. */
  #channelFailed(connection: ClientConnection, error: Error): void {
    if (connection.closed) return
    if (!connection.hasChannel) {
      connection.abort({ code: 'closed', message: `it got no channel: ${error.message}`, error })
      return
    }
    this.#loop.logger.warn({ err: error }, 'no further channel on an IIP connection')
    this.changed()
  }

  /** Those that are about to close are not counted. */
  get #hasSlot(): boolean {
    let count = this.#connecting
    for (const connection of this.#connections) if (connection.serves) count++
    return count < this.#settings.maxConnections
  }

  #mayConnect(): boolean {
    if (!this.#hasSlot || (this.#failures > 0 && this.#isTrying)) return false
    const wait = this.#retryAt - performance.now()
    if (wait <= 0) return true
    if (this.#retryTimer?.active !== true) {
      this.#retryTimer = this.#loop.runAfter(Math.ceil(wait), () => this.changed())
    }
    return false
  }

  async #connect(): Promise<void> {
    const { address, tls, channelTimeout } = this.#settings
    if (this.#connecting++ === 0) this.#connectingSince = performance.now()
    try {
      const c: Connection<Call> = await this.#loop.connect<undefined, Call>(address, {
        handler: { onMessage() {} },
        protocol: this.#protocol,
        highWaterMark: Number.POSITIVE_INFINITY,
        timeout: channelTimeout,
        closeTimeout: CLOSE_TIMEOUT,
        ...(tls !== undefined && { tls }),
      })
      this.#connecting--
      this.#connected(c)
    } catch (error) {
      this.#connecting--
      this.#failed(IipErrorCode.CONNECT, (error as Error).message, error)
    }
  }

  #connected(c: Connection<Call>): void {
    if (!c.connected) return
    if (this.#closed) {
      c.close()
      return
    }
    this.#connections.push(connectionOf(c))
    this.changed()
  }

  connectionClosed(connection: ClientConnection, reason: CloseReason): void {
    const at = this.#connections.indexOf(connection)
    if (at >= 0) this.#connections.splice(at, 1)
    if (connection.useful) {
      this.#failures = 0
      this.#retryAt = 0
      this.changed()
    } else {
      const message = `the connection ended before it was of use: ${reason.message}`
      this.#failed(IipErrorCode.CLOSED, message, reason.error)
    }
  }

  draining(): void {
    this.#loop.queueInLoop(this.#settings.onDrain)
    this.changed()
  }

  /** The next attempt comes after a pause. Where there is no other connection, waiting calls need not wait. */
  #failed(code: IipErrorCode, message: string, cause: unknown): void {
    const { minReconnectDelay, maxReconnectDelay } = this.#settings
    const pause = Math.min(maxReconnectDelay, minReconnectDelay * 2 ** Math.min(this.#failures, 30))
    this.#failures++
    // Clients that lost the same server at the same time do not all come back at the same time.
    this.#retryAt = performance.now() + pause * (0.75 + Math.random() / 4)
    this.#failure = new IipError(code, message, false, cause)
    if (!this.#isServed) this.#rejectWaiting(() => new IipError(code, message, false, cause), impatient)
    this.changed()
  }

  /** A connection is being made, or waits for its first channel: after a failure one at a time is. */
  get #isTrying(): boolean {
    return this.#connecting > 0 || this.#connections.some(({ serves, hasChannel }) => serves && !hasChannel)
  }

  /** There is a connection, or there may be one in a moment. */
  get #isServed(): boolean {
    return this.#connecting > 0 || this.#connections.some((connection) => connection.serves)
  }

  /** The last attempt failed, and the next one comes after a pause. */
  get #isDown(): boolean {
    return !this.#isServed && this.#retryAt > performance.now()
  }

  #downError(): IipError {
    const { message, cause } = this.#failure!
    const why = `the next attempt to connect comes after a pause; the last one: ${message}`
    return new IipError(IipErrorCode.CONNECT, why, false, cause ?? this.#failure)
  }

  #rejectWaiting(error: MakeError, mayFail: (call: Call) => boolean): void {
    for (let left = this.#waiting.length; left > 0; left--) {
      const call = this.#waiting.shift()!
      if (mayFail(call)) call.fail(error())
      else this.#waiting.push(call)
    }
    for (let left = this.#takers.length; left > 0; left--) {
      const taker = this.#takers.shift()!
      if (mayFail(taker.call)) taker.call.fail(error())
      else this.#takers.push(taker)
    }
  }
}

function impatient(call: Call): boolean {
  return !call.waitForReady
}
