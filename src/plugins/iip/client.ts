/**
 * A client of one IIP server: it spreads requests over channels and connections by itself. Connections are made when they
 * are needed, and made again, with growing pauses, when they are lost. All methods are to be called on the thread that
 * made it.
 */
import {
  type Address,
  type ByteSource,
  ByteStream,
  type ConnectOptions,
  checkFunction,
  checkLimit,
  checkOptions,
  ErrorCode,
  type LoggerOption,
  type Loop,
  type OptionNames,
  type PollerOption,
  parseAddress,
  RingBuffer,
  RingloopError,
} from '../../index.js'
import type { IipBody } from './body.js'
import { checkString } from './check-value.js'
import {
  Call,
  type CallDefaults,
  checkRequestOptions,
  checkSwitches,
  NO_OPTIONS,
  type RequestData,
  type RequestOptions,
} from './client-call.js'
import type { ClientChannel } from './client-channel.js'
import { loopOf } from './client-loop.js'
import { type ClientMiddleware, type ClientRequest, runMiddleware } from './client-middleware.js'
import { ClientPool, type PoolSettings } from './client-pool.js'
import { IipError, IipErrorCode } from './errors.js'
import { framePath } from './frame.js'
import { type CallTarget, type ChannelOwner, type IipChannel, OwnChannel } from './own-channel.js'
import { ParsedPath, SysPath } from './path.js'
import { traceCall } from './request-trace.js'

const MIB = 1024 * 1024
/** Paths are turned into bytes once, unless there are more than so many of them. */
const MAX_CACHED_PATHS = 1024
const EMPTY_OBJECT: Buffer = Buffer.from('{}')
const NO_DATA: Buffer = Buffer.alloc(0)

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
  /**
   * Where the server cannot be reached, a request waits for it until its time is over. Default `false`: it rejects at once
   * with `ERR_IIP_CONNECT`, also in the pauses between attempts to connect.
   */
  readonly waitForReady?: boolean
  /** Answers that stand for an error are data like any other, and do not reject. Default `false`. */
  readonly raw?: boolean
  /** A server says that it is going to stop: requests go to new connections from now on, those that it has it still answers. */
  readonly onDrain?: () => void
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
export const SHARED_OPTIONS: OptionNames<Omit<IipClientOptions, 'address' | 'onDrain'>> = {
  maxConnections: true,
  maxChannelsPerConn: true,
  maxPipeline: true,
  timeout: true,
  connectTimeout: true,
  maxResponseBytes: true,
  maxUnreadBytes: true,
  minReconnectDelay: true,
  maxReconnectDelay: true,
  waitForReady: true,
  raw: true,
  tls: true,
  loop: true,
  poller: true,
  logger: true,
}

const OPTIONS = {
  ...SHARED_OPTIONS,
  address: true,
  onDrain: true,
} as const satisfies OptionNames<IipClientOptions>

/** Who judges a server by a stream of it. */
export interface StreamWatch {
  /** The first packet of the answer is here. */
  begun(): void
  /** Called once; with the error, if it failed. */
  ended(error?: unknown): void
}

/** For a balancer: as `IipClient.stream`, which tells `watch` how it goes. */
export let streamAndTell: (
  client: IipClient,
  path: string,
  data: RequestData | undefined,
  options: RequestOptions,
  watch: StreamWatch,
) => IipBody

/** For a balancer, whose own pauses count: the client's pause after a failure is over, see {@link ClientPool.endPause}. */
export let endPause: (client: IipClient) => void

export class IipClient {
  static {
    endPause = (client) => client.#pool.endPause()
    streamAndTell = (client, path, data, options, watch) =>
      client.#stream(client.#pool, path, data, options, watch)
  }

  readonly #defaults: CallDefaults
  readonly #loop: Loop
  readonly #ownsLoop: boolean
  readonly #address: Address
  readonly #pool: ClientPool
  readonly #middleware: ClientMiddleware[] = []
  readonly #owner: ChannelOwner = {
    request: (target, path, data, options) => this.#request(target, path, data, options),
    stream: (target, path, data, options) => this.#stream(target, path, data, options),
  }
  #pending = 0
  readonly #countSettled = (): void => {
    this.#pending--
  }
  #paths = new Map<string, Buffer>()
  #closing: Promise<void> | undefined

  /** Throws `ERR_RINGLOOP_OPTION`. Does not connect yet. */
  constructor(options: IipClientOptions) {
    checkOptions('IipClient', options, OPTIONS)
    parseAddress(options.address)
    this.#address = options.address
    this.#defaults = defaultsOf(options)
    const settings = settingsOf(options)
    this.#ownsLoop = options.loop === undefined
    this.#loop = loopOf(options)
    this.#pool = new ClientPool(this.#loop, settings)
  }

  /**
   * Resolves with the response. Requests go out as soon as a channel is free: an idle one, a new one, or, where there can
   * be no more, behind others on the one with the fewest. No `data` is sent as `{}`, as in Go.
   *
   * Rejects with an {@link IipError}, with the signal's reason, or, for a path, data or options that cannot be used, with
   * `ERR_RINGLOOP_OPTION`. An answer of the server's that is an error rejects with an {@link IipRemoteError}; see `raw`.
   */
  request(path: string, data?: RequestData, options: RequestOptions = NO_OPTIONS): Promise<Buffer> {
    return this.#request(this.#pool, path, data, options)
  }

  /**
   * Like {@link request}, but the response is read as it comes: its iteration rejects where `request` would. Leaving it
   * early ends the stream: the server is asked to forget its channel.
   */
  stream(path: string, data?: RequestData, options: RequestOptions = NO_OPTIONS): IipBody {
    return this.#stream(this.#pool, path, data, options)
  }

  /**
   * A channel of one's own: its requests are handled and answered in the order in which they were made, and none of
   * others is in between. Waits where all are in use. Give it back with `close`.
   */
  channel(options: RequestOptions = NO_OPTIONS): Promise<IipChannel> {
    return new Promise((resolve, reject) => {
      checkRequestOptions(options)
      const call = new Call(NO_DATA, EMPTY_OBJECT, undefined, ignore, reject)
      this.#begin(call, options)
      const take = (channel: ClientChannel): void => {
        call.finish(NO_DATA)
        resolve(new OwnChannel(channel, this.#owner, () => this.#pool.changed()))
      }
      if (!call.settled) this.#pool.submitTaker({ call, take })
    })
  }

  /**
   * Runs `middleware` around every request and stream that is made from now on, also on channels of one's own; those that
   * were added first outermost. Throws `ERR_RINGLOOP_OPTION`.
   */
  use(middleware: ClientMiddleware): this {
    if (typeof middleware !== 'function') throw optionError('middleware must be a function')
    this.#middleware.push(middleware)
    return this
  }

  /** Open connections. */
  get connections(): number {
    return this.#pool.size
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
    this.#pool.close(clientClosed)
    if (this.#ownsLoop) await this.#loop.stop()
  }

  #request(
    target: CallTarget,
    path: string,
    data: RequestData | undefined,
    options: RequestOptions,
  ): Promise<Buffer> {
    if (this.#middleware.length === 0) return this.#send(target, path, data, options)
    const request: ClientRequest = { path, data, options, streamed: false }
    return runMiddleware(this.#middleware, request, () =>
      this.#send(target, request.path, request.data, request.options),
    )
  }

  #send(
    target: CallTarget,
    path: string,
    data: RequestData | undefined,
    options: RequestOptions,
  ): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#submit(target, this.#call(path, data, options, undefined, resolve, reject), path, options)
    })
  }

  #stream(
    target: CallTarget,
    path: string,
    data: RequestData | undefined,
    options: RequestOptions,
    watch: StreamWatch | undefined = undefined,
  ): IipBody {
    const source = new StreamSource()
    // How much may wait is bounded by the connection, for all of its streams together.
    const body = new ByteStream(source, Number.POSITIVE_INFINITY)
    const request: ClientRequest = { path, data, options, streamed: true }
    const send = (): Promise<Buffer> =>
      new Promise((resolve, reject) => {
        const call = this.#call(request.path, request.data, request.options, body, resolve, reject)
        source.attach(call)
        if (watch !== undefined) call.onBegun = () => watch.begun()
        this.#submit(target, call, request.path, request.options)
      })
    runMiddleware(this.#middleware, request, send).then(
      (answer) => {
        if (source.call === undefined) writeAll(body, answer)
        watch?.ended()
      },
      (error) => {
        body.fail(error)
        watch?.ended(error)
      },
    )
    return body
  }

  /** Throws `ERR_RINGLOOP_OPTION`. */
  #call(
    path: string,
    data: RequestData | undefined,
    options: RequestOptions,
    body: ByteStream | undefined,
    resolve: (data: Buffer) => void,
    reject: (error: unknown) => void,
  ): Call {
    checkRequestOptions(options)
    return new Call(this.#pathBytes(path), bytesOf(data), body, resolve, reject)
  }

  #submit(target: CallTarget, call: Call, path: string, options: RequestOptions): void {
    if (call.settled) return
    call.onSettled = this.#countSettled
    this.#pending++
    traceCall(call, this.#address, path)
    this.#begin(call, options)
    if (!call.settled) target.submit(call)
  }

  #begin(call: Call, options: RequestOptions): void {
    if (this.#closing !== undefined) call.fail(clientClosed())
    else call.begin(this.#loop, options, this.#defaults)
  }

  #pathBytes(path: string): Buffer {
    const known = this.#paths.get(path)
    if (known !== undefined) return known
    const bytes = pathBytes(path)
    if (this.#paths.size >= MAX_CACHED_PATHS) this.#paths = new Map()
    this.#paths.set(path, bytes)
    return bytes
  }
}

/** `path` with its NUL. Throws `ERR_RINGLOOP_OPTION` for one that cannot be asked for. */
export function pathBytes(path: string): Buffer {
  const bytes = framePath(checkString('a path', path))
  const parsed = new ParsedPath(bytes.subarray(0, -1))
  if (parsed.path === '') throw optionError(`nothing is left of the path '${path}' without host and query`)
  if (parsed.sys !== SysPath.NONE) throw optionError(`the path ${parsed.path} is the client's own business`)
  return bytes
}

/** An answer that did not come from the wire. */
function writeAll(body: ByteStream, answer: Buffer): void {
  const ring = new RingBuffer(Math.max(1, answer.length))
  ring.write(answer)
  body.write(ring, answer.length)
  body.end()
}

/** Where a streamed answer comes from: its call, once that is made. */
class StreamSource implements ByteSource {
  call: Call | undefined = undefined
  #left = false

  /** Throws `ERR_RINGLOOP_STATE` where one was made before. Where the reader has left already it is not sent. */
  attach(call: Call): void {
    if (this.call !== undefined) throw new RingloopError(ErrorCode.STATE, 'a stream is sent once')
    this.call = call
    if (this.#left) call.leave()
  }

  taken(bytes: number): void {
    this.call?.channel?.connection.taken(bytes)
  }

  cancel(): void {
    this.#left = true
    this.call?.leave()
  }
}

function ignore(): void {}

/** Throws `ERR_RINGLOOP_OPTION` for what cannot be sent. */
export function bytesOf(data: RequestData | undefined): Call['data'] {
  if (data === undefined) return EMPTY_OBJECT
  const bytes: unknown = typeof data === 'string' ? Buffer.from(data) : data
  if (bytes instanceof Uint8Array) {
    if (bytes.length > 0) return bytes
    throw optionError('a request cannot be empty: leave the data out to send {}')
  }
  if (isAsyncIterable(bytes)) return bytes
  throw optionError(`the data of a request must be bytes, a string or an async iterable, not ${typeof data}`)
}

function isAsyncIterable(value: unknown): value is AsyncIterable<Uint8Array | string> {
  const { [Symbol.asyncIterator]: iterate } = Object(value) as { [Symbol.asyncIterator]?: unknown }
  return typeof iterate === 'function'
}

function optionError(message: string): RingloopError {
  return new RingloopError(ErrorCode.OPTION, message)
}

function clientClosed(): IipError {
  return new IipError(IipErrorCode.CLOSED, 'the client is closed', false)
}

/** Throws `ERR_RINGLOOP_OPTION`. */
function settingsOf(options: IipClientOptions): PoolSettings {
  const number = (name: keyof IipClientOptions, fallback: number, min: number): number =>
    checkLimit(name, options[name], fallback, min)
  return {
    address: options.address,
    tls: checkTls(options.tls),
    maxConnections: number('maxConnections', 4, 1),
    maxChannelsPerConn: number('maxChannelsPerConn', 10, 1),
    maxPipeline: number('maxPipeline', 128, 1),
    channelTimeout: number('connectTimeout', 3000, 1),
    maxResponseBytes: number('maxResponseBytes', 64 * MIB, 1),
    maxUnreadBytes: number('maxUnreadBytes', MIB, 0),
    minReconnectDelay: number('minReconnectDelay', 100, 0),
    maxReconnectDelay: number('maxReconnectDelay', 5000, 0),
    onDrain: checkFunction('onDrain', options.onDrain) ?? ignore,
  }
}

function checkTls(tls: unknown): ConnectOptions['tls'] {
  if (tls === undefined || tls === true || (typeof tls === 'object' && tls !== null))
    return tls as ConnectOptions['tls']
  throw optionError('tls must be true or an object of options')
}

function defaultsOf(options: IipClientOptions): CallDefaults {
  checkSwitches(options)
  const { timeout, waitForReady = false, raw = false } = options
  return { timeout: checkLimit('timeout', timeout, 30_000, 0), waitForReady, raw }
}
