/**
 * What every part of a connection needs: who it is, where it is in its life, and how a callback's fault ends it.
 *
 * A connection is one object in layers, so that an idle one is one small allocation, and each layer is a room of its own:
 *
 *     connection-base   identity, state, faults
 *     send-side         what goes out: packing, gathering, the queue of a slow reader
 *     receive-side      what comes in: reasons not to read, packets, holds
 *     tcp-connection    open, end, close; what the poller reports and the loop orders
 *
 * A layer calls those below it, and those above it through the abstract methods that it names. Methods are `private`, not
 * `#`: for each class with `#` methods every object carries a word more. The loop's thread only.
 */
import type { OnSent, ProtocolConnection, SubscribeOptions, Subscription } from '../connection.js'
import type { CloseCode, CloseReason } from '../errors.js'
import { ErrorCode, ProtocolError, RingloopError, toError } from '../errors.js'
import type { BroadcastOptions, BroadcastResult, Loop } from '../loop.js'
import type { BroadcastPacker, Packed, Packet, Protocol } from '../protocol/protocol.js'
import type { TlsInfo } from '../tls-info.js'
import type { ConnectionConfig } from './config.js'
import type { ConnectionTimer } from './connection-timer.js'
import type { ConnectionHost } from './host.js'
import type { Diversion } from './receive-side.js'
import type { SendQueue } from './send-queue.js'

/** The life of a connection: each state is entered once at most, in this order. */
export const State = {
  /** Made by `connect`, not yet through. */
  CONNECTING: 0 as number,
  OPEN: 1 as number,
  /** The reason to close has come: nothing is read or handed over, what is unsent still goes out. */
  CLOSING: 2 as number,
  CLOSED: 3 as number,
} as const

/** What is asked of `connect` when it is through, or fails. */
export interface PendingConnect {
  resolve(): void
  reject(error: Error): void
}

/** What few connections need, so that the others need no room for it. */
export class Extra {
  values: Map<unknown, unknown> | undefined = undefined
  peerAddr: string | undefined = undefined
  localAddr: string | undefined = undefined
  tls: TlsInfo | undefined = undefined
  /** The send side's. */
  queue: SendQueue | undefined = undefined
  /** The receive side's: calls of `holdPackets` without their `releasePackets`. */
  held = 0
  diversion: Diversion | undefined = undefined
  /** Packets that took no byte, of which the last turn was full. */
  freePackets = 0
  /** A packet that was cut before the handler was ready for it. */
  waitingPacket: Packet<unknown> | undefined = undefined
  /** The connection's own. */
  pendingConnect: PendingConnect | undefined = undefined
  reason: CloseReason | undefined = undefined
  timer: ConnectionTimer | undefined = undefined
  idleTime: number | undefined = undefined
  /** What it is subscribed to; of one that has closed what it was, until its `onClose`. */
  topics: Set<string> | undefined = undefined

  /** Nothing of it is needed any more. */
  get isEmpty(): boolean {
    return (
      this.timer === undefined &&
      this.held === 0 &&
      this.freePackets === 0 &&
      this.waitingPacket === undefined &&
      this.values === undefined &&
      this.queue === undefined &&
      this.diversion === undefined &&
      this.pendingConnect === undefined &&
      this.reason === undefined &&
      this.idleTime === undefined &&
      this.topics === undefined &&
      this.peerAddr === undefined &&
      this.localAddr === undefined &&
      this.tls === undefined
    )
  }
}

export abstract class ConnectionBase<Out, Context> implements ProtocolConnection<Out> {
  readonly id: number
  context: Context = undefined as Context
  session: unknown = undefined
  readonly host: ConnectionHost
  /** The poller's number; -1 when it has been given back. */
  slot: number
  protected readonly config: ConnectionConfig<unknown, Out>
  protected state: number = State.CONNECTING
  /** Bits of the layers' own; each names its in its file. */
  protected bits = 0
  protected extra: Extra | undefined = undefined

  constructor(host: ConnectionHost, config: ConnectionConfig<unknown, Out>, slot: number, id: number) {
    this.host = host
    this.config = config
    this.slot = slot
    this.id = id
  }

  get loop(): Loop {
    return this.host.loop
  }

  get protocol(): Protocol<unknown, Out> {
    return this.config.protocol
  }

  get connected(): boolean {
    return this.state === State.OPEN
  }

  /** `connect` has not got through. */
  get isConnecting(): boolean {
    return this.state === State.CONNECTING
  }

  get peerAddr(): string {
    const known = this.extra?.peerAddr
    if (known !== undefined) return known
    if (this.slot < 0) return ''
    const addr = this.host.poller.peerAddr(this.slot)
    this.extras().peerAddr = addr
    return addr
  }

  get localAddr(): string {
    const known = this.extra?.localAddr
    if (known !== undefined) return known
    if (this.slot < 0) return ''
    const addr = this.host.poller.localAddr(this.slot)
    this.extras().localAddr = addr
    return addr
  }

  get tls(): TlsInfo | undefined {
    const known = this.extra?.tls
    if (known !== undefined || this.slot < 0) return known
    const tls = this.host.poller.tlsInfo(this.slot)
    if (tls !== undefined) this.extras().tls = tls
    return tls
  }

  get(key: unknown): unknown {
    return this.extra?.values?.get(key)
  }

  set(key: unknown, value: unknown): void {
    const extra = this.extras()
    extra.values ??= new Map()
    extra.values.set(key, value)
  }

  delete(key: unknown): boolean {
    return this.extra?.values?.delete(key) ?? false
  }

  protected extras(): Extra {
    this.extra ??= new Extra()
    return this.extra
  }

  /** A handshake needs more than a connection that is at rest: the memory goes back. */
  protected trim(): void {
    if (this.extra?.isEmpty === true) this.extra = undefined
  }

  // ---- what the layers above add -------------------------------------------------------------------------------------

  abstract readonly readBufferLength: number
  abstract readonly writeBufferLength: number
  abstract idleTime: number
  abstract readonly idleFor: number
  abstract readonly paused: boolean
  abstract endsWithReset: boolean
  abstract send(out: Out, onSent?: OnSent): boolean
  abstract sendRaw(bytes: Packed, onSent?: OnSent): boolean
  abstract sendPacked(pack: BroadcastPacker<Out, unknown>): boolean
  abstract end(out?: Out, onSent?: OnSent): boolean
  abstract shutdownWrite(): void
  abstract drained(): Promise<boolean>
  abstract pause(): void
  abstract resume(): void
  abstract holdPackets(): void
  abstract releasePackets(): void
  abstract holdEnd(): void
  abstract releaseEnd(): void
  abstract unmaskFrames(): void
  abstract yield(): void
  abstract established(): void
  abstract abort(reason?: CloseReason | CloseCode | Error): void
  abstract readonly topics: ReadonlySet<string>
  abstract subscribe(topic: string): boolean
  abstract subscribe(topic: string, options: SubscribeOptions): Promise<Subscription>
  abstract unsubscribe(topic: string): boolean
  abstract publish(topic: string, out: Out, options?: BroadcastOptions): Promise<BroadcastResult>
  abstract close(reason?: CloseReason | CloseCode | Error): void

  // ---- faults --------------------------------------------------------------------------------------------------------

  /** Sends what is unsent, then closes. */
  abstract beginClose(reason: CloseReason): void

  /** A callback threw or rejected: logged, and this connection is closed. */
  fail(where: string, thrown: unknown): void {
    const { host } = this
    const error = toError(thrown)
    if (this.state === State.CLOSED || (this.state === State.CLOSING && isConsequence(error))) {
      this.logLate(where, error)
    } else if (error instanceof ProtocolError) {
      host.countProtocolError()
      this.logFault(error.message)
      this.beginClose({ code: 'protocol-error', message: error.message, error })
    } else {
      host.countHandlerError()
      this.logError(`${where} failed; its connection is closed`, error)
      this.beginClose({ code: 'handler-error', message: `${where} failed: ${error.message}`, error })
    }
  }

  private logLate(where: string, error: Error): void {
    const message = `${where} failed after the connection was closed`
    if (isConsequence(error)) this.host.loop.logger.debug(this.logged({ err: error }), message)
    else this.logError(message, error)
  }

  /** Peers can make a callback fail as often as they like: each kind is logged once a second at most. */
  protected logError(message: string, error: Error): void {
    const leftOut = this.host.errorLog.admitError(message, error)
    if (leftOut === undefined) return
    this.host.loop.logger.error(this.logged({ err: error, leftOut }), message)
  }

  /** The same of the faults of peers. */
  private logFault(reason: string): void {
    const leftOut = this.host.faultLog.admit(reason)
    if (leftOut === undefined) return
    this.host.loop.logger.info(this.logged({ reason, leftOut }), 'the peer broke the protocol')
  }

  /** An async callback may reject, though nothing waits for it. */
  protected watch(where: string, returned: unknown): void {
    if (isThenable(returned)) Promise.resolve(returned).catch((error) => this.fail(where, error))
  }

  /** The fields of a log line, and who it is about. */
  protected logged(fields: object): object {
    return { ...fields, connection: `${this.loop.id}:${this.id}`, peer: this.peerAddr || 'unix' }
  }
}

/** A handler was told that its connection has ended, and passed that on: nobody's fault. */
function isConsequence(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  if (error instanceof RingloopError) return error.code === ErrorCode.CLOSED
  // Of what Node does under an AbortSignal the signal's reason is the cause.
  return error.name === 'AbortError' && isConsequence(error.cause)
}

export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    typeof value === 'object' && value !== null && typeof (value as PromiseLike<unknown>).then === 'function'
  )
}
