/**
 * A client of one IIP server: it spreads requests over channels and connections by itself. Connections are made when they
 * are needed, and made again, with growing pauses, when they are lost. All methods are to be called on the thread that
 * made it.
 */
import Denque from 'denque'
import {
  type Address,
  type ByteSource,
  ByteStream,
  type CloseReason,
  type Connection,
  type ConnectOptions,
  checkLimit,
  checkOptions,
  ErrorCode,
  EventLoop,
  type LoggerOption,
  type Loop,
  type OptionNames,
  type PollerOption,
  RingloopError,
  type Timer,
} from '../../index.js'
import type { IipBody } from './body.js'
import {
  Call,
  checkRequestOptions,
  NO_OPTIONS,
  type RequestData,
  type RequestOptions,
} from './client-call.js'
import {
  type ClientChannel,
  type ClientConnection,
  type ClientLimits,
  ClientProtocol,
  connectionOf,
  type Pool,
} from './client-connection.js'
import { IipError, IipErrorCode } from './errors.js'
import { framePath } from './frame.js'
import { ParsedPath, SysPath } from './path.js'

const MIB = 1024 * 1024
/** Paths are turned into bytes once, unless there are more than so many of them. */
const MAX_CACHED_PATHS = 1024
const EMPTY_OBJECT: Buffer = Buffer.from('{}')

export interface IipClientOptions {
  readonly address: Address
  /** Default 4. */
  readonly maxConnections?: number
  /** Default 10, as in Go. A server that allows fewer gets fewer. */
  readonly maxChannelsPerConn?: number
  /** Requests on their way on one channel that is shared; more wait. Default 128. */
  readonly maxPipeline?: number
  /** Of each request that does not say so itself, in ms; 0 is never. Default 30 s. */
  readonly timeout?: number
  /** To connect, and to get a channel, in ms. Default 3 s. */
  readonly connectTimeout?: number
  /** Bytes of a response that is wanted whole; a longer one rejects its request. Default 64 MiB. */
  readonly maxResponseBytes?: number
  /** Unread bytes of streamed responses above which their connection is not read. Default 1 MiB. */
  readonly maxUnreadBytes?: number
  /** Milliseconds of the first pause after a connection failed; it doubles with each failure. Default 100. */
  readonly minReconnectDelay?: number
  /** Default 5 s. */
  readonly maxReconnectDelay?: number
  /** The options of `tls.connect`, or `true`. The server's certificate is verified unless told otherwise. */
  readonly tls?: ConnectOptions['tls']
  /** The loop that it runs on, such as `connection.loop` in a handler. Default: one of its own in this thread. */
  readonly loop?: Loop
  /** Of its own loop. */
  readonly poller?: PollerOption
  /** Of its own loop. */
  readonly logger?: LoggerOption
}

/** Those that a balancer has, too. */
export const SHARED_OPTIONS: OptionNames<Omit<IipClientOptions, 'address'>> = {
  maxConnections: true,
  maxChannelsPerConn: true,
  maxPipeline: true,
  timeout: true,
  connectTimeout: true,
  maxResponseBytes: true,
  maxUnreadBytes: true,
  minReconnectDelay: true,
  maxReconnectDelay: true,
  tls: true,
  loop: true,
  poller: true,
  logger: true,
}

const OPTIONS = { ...SHARED_OPTIONS, address: true } as const satisfies OptionNames<IipClientOptions>

interface Settings extends ClientLimits {
  readonly maxConnections: number
  readonly maxPipeline: number
  readonly timeout: number
  readonly minReconnectDelay: number
  readonly maxReconnectDelay: number
}

export class IipClient {
  readonly #options: IipClientOptions
  readonly #settings: Settings
  readonly #loop: Loop
  readonly #ownsLoop: boolean
  readonly #protocol: ClientProtocol
  readonly #connections: ClientConnection[] = []
  #connecting = 0
  /** Requests that no channel could take yet. */
  readonly #waiting: Denque<Call> = new Denque()
  /** Who waits for a channel of his own. */
  readonly #takers: Denque<{ call: Call; take: (channel: ClientChannel) => void }> = new Denque()
  #pending = 0
  readonly #countSettled = (): void => {
    this.#pending--
  }
  #paths = new Map<string, Buffer>()
  #failures = 0
  #retryAt = 0
  #retryTimer: Timer | undefined
  #closing: Promise<void> | undefined

  /** Throws `ERR_RINGLOOP_OPTION`. Does not connect yet. */
  constructor(options: IipClientOptions) {
    checkOptions('IipClient', options, OPTIONS)
    this.#options = options
    this.#settings = settingsOf(options)
    this.#ownsLoop = options.loop === undefined
    this.#loop = options.loop ?? new EventLoop(loopOptions(options))
    const pool: Pool = {
      changed: () => this.#pump(),
      connectionClosed: (connection, reason) => this.#lost(connection, reason),
    }
    this.#protocol = new ClientProtocol(this.#settings, pool)
  }

  /**
   * Resolves with the response. Requests go out as soon as a channel is free: an idle one, a new one, or, where there can
   * be no more, behind others on the one with the fewest. No `data` is sent as `{}`, as in Go.
   *
   * Rejects with an {@link IipError}, with the signal's reason, or, for a path, data or options that cannot be used, with
   * `ERR_RINGLOOP_OPTION`. A response that is an error of the server's is JSON data like any other.
   */
  request(path: string, data?: RequestData, options: RequestOptions = NO_OPTIONS): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const call = this.#call(path, data, options, undefined, resolve, reject)
      if (call !== undefined) this.#enqueue(call)
    })
  }

  /** Like {@link request}, but the response is read as it comes: its iteration rejects where `request` would. */
  stream(path: string, data?: RequestData, options: RequestOptions = NO_OPTIONS): IipBody {
    return streamed((body, reject) => {
      const call = this.#call(path, data, options, body, () => {}, reject)
      if (call !== undefined) this.#enqueue(call)
      return call
    })
  }

  /**
   * A channel of one's own: its requests are handled and answered in the order in which they were made, and none of
   * others is in between. Waits where all are in use. Give it back with `close`.
   */
  channel(options: RequestOptions = NO_OPTIONS): Promise<IipChannel> {
    return new Promise((resolve, reject) => {
      checkRequestOptions(options)
      const call = new Call(Buffer.alloc(0), EMPTY_OBJECT, undefined, () => {}, reject)
      if (this.#closing !== undefined) call.fail(clientClosed())
      else call.watch(this.#loop, options.timeout ?? this.#settings.timeout, options.signal)
      const take = (channel: ClientChannel): void => {
        channel.taken = true
        call.finish(EMPTY_OBJECT)
        resolve(new OwnChannel(channel, this.#makeCall, () => this.#pump()))
      }
      if (call.settled) return
      this.#takers.push({ call, take })
      this.#pump()
    })
  }

  /** Open connections. */
  get connections(): number {
    return this.#connections.length
  }

  /** Requests that wait to be sent, and those that were sent and not answered. */
  get pending(): number {
    return this.#pending
  }

  /** Closes every connection; what is pending rejects with `ERR_IIP_CLOSED`, as does every later call. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  /** `await using`: as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    this.#retryTimer?.stop()
    this.#rejectWaiting(clientClosed)
    for (const connection of [...this.#connections]) connection.close()
    if (this.#ownsLoop) await this.#loop.stop()
  }

  readonly #makeCall: MakeCall = (path, data, options, body, resolve, reject) =>
    this.#call(path, data, options, body, resolve, reject)

  /** `undefined`: it was rejected at once. */
  #call(
    path: string,
    data: RequestData | undefined,
    options: RequestOptions,
    body: ByteStream | undefined,
    resolve: (data: Buffer) => void,
    reject: (error: unknown) => void,
  ): Call | undefined {
    try {
      checkRequestOptions(options)
      const timeout = checkLimit('timeout', options.timeout, this.#settings.timeout, 0)
      const call = new Call(this.#pathBytes(path), bytesOf(data), body, resolve, reject)
      call.onSettled = this.#countSettled
      this.#pending++
      if (this.#closing !== undefined) call.fail(clientClosed())
      else call.watch(this.#loop, timeout, options.signal)
      return call.settled ? undefined : call
    } catch (error) {
      reject(error)
      body?.fail(error)
      return undefined
    }
  }

  #pathBytes(path: string): Buffer {
    const known = this.#paths.get(path)
    if (known !== undefined) return known
    const bytes = framePath(path)
    const parsed = new ParsedPath(bytes.subarray(0, -1))
    if (parsed.path === '') throw optionError(`nothing is left of the path '${path}' without host and query`)
    if (parsed.sys !== SysPath.NONE) throw optionError(`the path ${parsed.path} is the client's own business`)
    if (this.#paths.size >= MAX_CACHED_PATHS) this.#paths = new Map()
    this.#paths.set(path, bytes)
    return bytes
  }

  // ---- the pool ----------------------------------------------------------------------------------------------------

  #enqueue(call: Call): void {
    if (this.#waiting.length === 0 && this.#takers.length === 0) {
      const channel = this.#choose()
      if (channel !== undefined) {
        channel.connection.send(channel, call)
        return
      }
    }
    this.#waiting.push(call)
    this.#pump()
  }

  /** Gives what waits to the channels that can take it; asks for more of them where that is not enough. */
  #pump(): void {
    if (this.#closing !== undefined) return
    while (this.#takers.length > 0) {
      const taker = this.#takers.peekFront()!
      const channel = taker.call.settled ? undefined : this.#idleChannel()
      if (channel === undefined && !taker.call.settled) break
      this.#takers.shift()
      if (channel !== undefined) taker.take(channel)
    }
    while (this.#waiting.length > 0) {
      const channel = this.#waiting.peekFront()!.settled ? undefined : this.#choose()
      if (channel === undefined && !this.#waiting.peekFront()!.settled) break
      const call = this.#waiting.shift()!
      if (channel !== undefined) channel.connection.send(channel, call)
    }
    const missing = this.#waiting.length + this.#takers.length
    if (missing > 0) this.#grow(missing)
  }

  #idleChannel(): ClientChannel | undefined {
    for (const connection of this.#connections) {
      if (connection.retiring) continue
      for (const channel of connection.channels) {
        if (!channel.taken && channel.usable && channel.pending.length === 0) return channel
      }
    }
    return undefined
  }

  /** An idle channel, else the one with the fewest requests, unless there will be another one in a moment. */
  #choose(): ClientChannel | undefined {
    let best: ClientChannel | undefined
    let fewest = this.#settings.maxPipeline
    let more = false
    for (const connection of this.#connections) {
      if (connection.retiring) continue
      if (connection.hasRoom || connection.opening > 0) more = true
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
    return more ? undefined : best
  }

  #grow(missing: number): void {
    let open = missing
    for (const connection of [...this.#connections]) {
      if (connection.isStuck) connection.close()
      open -= connection.opening
      for (; open > 0 && connection.hasRoom; open--) this.#openChannel(connection)
    }
    open -= this.#connecting * this.#settings.maxChannelsPerConn
    for (; open > 0 && this.#mayConnect(); open -= this.#settings.maxChannelsPerConn) void this.#connect()
  }

  #openChannel(connection: ClientConnection): void {
    connection.openChannel().then(
      () => this.#pump(),
      (error) => this.#channelFailed(connection, error),
    )
  }

  /** The server does not answer, or refuses although it has given no channel at all. */
  #channelFailed(connection: ClientConnection, error: unknown): void {
    if (connection.closed) return
    if (connection.channels.length === 0) connection.close()
    this.#loop.logger.warn({ err: error }, 'no further channel on an IIP connection')
    this.#pump()
  }

  #mayConnect(): boolean {
    if (this.#connections.length + this.#connecting >= this.#settings.maxConnections) return false
    const wait = this.#retryAt - performance.now()
    if (wait <= 0) return true
    if (this.#retryTimer?.active !== true) {
      this.#retryTimer = this.#loop.runAfter(Math.ceil(wait), () => this.#pump())
    }
    return false
  }

  async #connect(): Promise<void> {
    const { address, tls, connectTimeout } = this.#options
    this.#connecting++
    try {
      const c: Connection<Call> = await this.#loop.connect<undefined, Call>(address, {
        handler: { onMessage() {} },
        protocol: this.#protocol,
        highWaterMark: Number.POSITIVE_INFINITY,
        timeout: connectTimeout ?? this.#settings.channelTimeout,
        ...(tls !== undefined && { tls }),
      })
      this.#connecting--
      this.#connected(c)
    } catch (error) {
      this.#connecting--
      this.#failed((sent) => new IipError(IipErrorCode.CONNECT, (error as Error).message, sent, error))
    }
  }

  #connected(c: Connection<Call>): void {
    if (!c.connected) return
    if (this.#closing !== undefined) {
      c.close()
      return
    }
    this.#connections.push(connectionOf(c))
    this.#pump()
  }

  #lost(connection: ClientConnection, reason: CloseReason): void {
    const at = this.#connections.indexOf(connection)
    if (at >= 0) this.#connections.splice(at, 1)
    if (connection.useful) {
      this.#failures = 0
      this.#retryAt = 0
      this.#pump()
    } else {
      const message = `the connection ended before it was of use: ${reason.message}`
      this.#failed((sent) => new IipError(IipErrorCode.CLOSED, message, sent, reason.error))
    }
  }

  /** The next attempt comes after a pause. Where there is no other connection, waiting requests need not wait. */
  #failed(error: (sent: boolean) => Error): void {
    const { minReconnectDelay, maxReconnectDelay } = this.#settings
    const pause = Math.min(maxReconnectDelay, minReconnectDelay * 2 ** Math.min(this.#failures, 30))
    this.#failures++
    // Clients that lost the same server at the same time do not all come back at the same time.
    this.#retryAt = performance.now() + pause * (0.75 + Math.random() / 4)
    if (this.#connections.length === 0 && this.#connecting === 0) this.#rejectWaiting(() => error(false))
    else this.#pump()
  }

  #rejectWaiting(error: () => Error): void {
    for (let call = this.#waiting.shift(); call !== undefined; call = this.#waiting.shift())
      call.fail(error())
    for (let taker = this.#takers.shift(); taker !== undefined; taker = this.#takers.shift())
      taker.call.fail(error())
  }
}

type MakeCall = (
  path: string,
  data: RequestData | undefined,
  options: RequestOptions,
  body: ByteStream | undefined,
  resolve: (data: Buffer) => void,
  reject: (error: unknown) => void,
) => Call | undefined

/** A channel that one caller has for himself; see {@link IipClient.channel}. */
export interface IipChannel {
  /** Its id on its connection. */
  readonly id: number

  /** `true` once it was closed or its connection has ended: every request rejects. */
  readonly closed: boolean

  /**
   * See {@link IipClient.request}. After one was given up (timeout or signal), later ones wait until its answer has come:
   * they would not be handled earlier anyway.
   */
  request(path: string, data?: RequestData, options?: RequestOptions): Promise<Buffer>

  /** See {@link IipClient.stream}. */
  stream(path: string, data?: RequestData, options?: RequestOptions): IipBody

  /** Gives it back. Requests that are pending are still answered. */
  close(): void
}

class OwnChannel implements IipChannel {
  readonly #channel: ClientChannel
  readonly #makeCall: MakeCall
  readonly #giveBack: () => void
  #closed = false

  constructor(channel: ClientChannel, makeCall: MakeCall, giveBack: () => void) {
    this.#channel = channel
    this.#makeCall = makeCall
    this.#giveBack = giveBack
  }

  get id(): number {
    return this.#channel.id
  }

  get closed(): boolean {
    return this.#closed || this.#channel.closed
  }

  request(path: string, data?: RequestData, options: RequestOptions = NO_OPTIONS): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const call = this.#makeCall(path, data, options, undefined, resolve, reject)
      if (call !== undefined) this.#send(call)
    })
  }

  stream(path: string, data?: RequestData, options: RequestOptions = NO_OPTIONS): IipBody {
    return streamed((body, reject) => {
      const call = this.#makeCall(path, data, options, body, () => {}, reject)
      if (call !== undefined) this.#send(call)
      return call
    })
  }

  #send(call: Call): void {
    if (this.closed) {
      call.fail(new IipError(IipErrorCode.CLOSED, 'the channel is closed', false))
      return
    }
    this.#channel.outbox.push(call)
    this.#channel.flush()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#channel.taken = false
    this.#giveBack()
  }
}

/** Makes a body and the call that fills it. */
function streamed(begin: (body: ByteStream, reject: (error: unknown) => void) => Call | undefined): IipBody {
  let call: Call | undefined
  const source: ByteSource = { taken: (bytes) => call?.bodyOwner?.taken?.(bytes) }
  // How much may wait is bounded by the connection, for all of its streams together.
  const body = new ByteStream(source, Number.POSITIVE_INFINITY)
  call = begin(body, () => {})
  return body
}

function bytesOf(data: RequestData | undefined): Call['data'] {
  if (data === undefined) return EMPTY_OBJECT
  const bytes = typeof data === 'string' ? Buffer.from(data) : data
  if (bytes instanceof Uint8Array && bytes.length === 0) {
    throw optionError('a request cannot be empty: leave the data out to send {}')
  }
  return bytes
}

function optionError(message: string): RingloopError {
  return new RingloopError(ErrorCode.OPTION, message)
}

function clientClosed(): IipError {
  return new IipError(IipErrorCode.CLOSED, 'the client is closed', false)
}

function settingsOf(options: IipClientOptions): Settings {
  const number = (name: keyof IipClientOptions, fallback: number, min: number): number =>
    checkLimit(name, options[name], fallback, min)
  return {
    maxConnections: number('maxConnections', 4, 1),
    maxChannelsPerConn: number('maxChannelsPerConn', 10, 1),
    maxPipeline: number('maxPipeline', 128, 1),
    timeout: number('timeout', 30_000, 0),
    channelTimeout: number('connectTimeout', 3000, 1),
    maxResponseBytes: number('maxResponseBytes', 64 * MIB, 1),
    maxUnreadBytes: number('maxUnreadBytes', MIB, 0),
    minReconnectDelay: number('minReconnectDelay', 100, 0),
    maxReconnectDelay: number('maxReconnectDelay', 5000, 0),
  }
}

function loopOptions({ poller, logger }: IipClientOptions): ConstructorParameters<typeof EventLoop>[0] {
  return { ...(poller !== undefined && { poller }), ...(logger !== undefined && { logger }) }
}
