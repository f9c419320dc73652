/** The options of servers, loops and connections: their defaults, and the checks that turn mistakes into sentences. */
import type { ConnectionOptions as TlsConnectOptions } from 'node:tls'
import type { ResourceLimits } from 'node:worker_threads'
import type { Broker } from './broker.js'
import { checkInteger, checkLimit } from './check-integer.js'
import { checkOptions, type OptionNames } from './check-options.js'
import type { SubscribeOptions } from './connection.js'
import { ErrorCode, RingloopError } from './errors.js'
import type { Handler } from './handler.js'
import type { LoggerOption } from './log.js'
import { unixPathProblem } from './loop/poller/endpoint.js'
import { type Endpoint, HANDSHAKE_TIMEOUT, MAX_LINGERING, type PollerOptions } from './loop/poller/poller.js'
import type { BroadcastOptions, LocalBroadcastOptions } from './loop.js'
import type { Protocol } from './protocol/protocol.js'
import type { DeadLoop } from './threads/dead-loop.js'
import type { LoadBalance } from './threads/load-balance.js'
import { checkTlsOptions, type ServerTlsOptions } from './tls-options.js'

/** `'host:port'`, `':port'` (every interface), `'[::1]:port'`, `{ host, port }`, or `{ path }` for a unix socket. */
export type Address = string | { readonly host?: string; readonly port: number } | { readonly path: string }

/**
 * `auto` is `native` where the addon can be loaded, else `net` with one warning. An option of `tls` that the native poller
 * does not know makes it `net` too.
 */
export type PollerOption = 'auto' | 'native' | 'net'

/** What each connection is held to. */
export interface ConnectionLimits {
  /** Above so many unsent bytes `send` returns `false` and the peer is not read. Default 1 MiB. */
  readonly highWaterMark?: number | undefined
  /** At so many unsent bytes reading goes on and `onDrain` is called. Default a quarter of the high one. */
  readonly lowWaterMark?: number | undefined
  /** Bytes in which a packet must complete, or the connection is closed. Default 16 MiB. */
  readonly maxReadBuffer?: number | undefined
  /** Milliseconds without a byte in or out until a connection is closed; 0 (default) is never. */
  readonly idleTime?: number | undefined
  /** Milliseconds that a closing connection may take none of its last bytes until they are dropped. Default 30 s. */
  readonly closeTimeout?: number | undefined
  /**
   * Milliseconds that the TLS handshake, the protocol's own handshake and a promise of `onConnect` may each take, or the
   * connection is closed; 0 is for ever. Default 30 s. A protocol may have a shorter time of its own.
   */
  readonly handshakeTimeout?: number | undefined
  /**
   * A connection stays open when the peer has ended its side, until `c.end()` or `c.close()`; see `Handler.onEnd`. Default
   * `false`: it closes when everything has been handed over, answered and sent.
   */
  readonly allowHalfOpen?: boolean | undefined
  /** Send small packets at once (no Nagle). Default `true`. */
  readonly noDelay?: boolean | undefined
  /** Milliseconds of silence after which the system probes the peer; 0 (default) is never. */
  readonly keepAlive?: number | undefined
}

/** The options of a loop. `Data` is the type of `loop.data`. */
export interface LoopOptions<Data = unknown> {
  /** Default `auto`. */
  readonly poller?: PollerOption | undefined
  /** Default: pino to standard error from `info` up. */
  readonly logger?: LoggerOption | undefined
  /** Resolution of the timers in ms. Default 10. */
  readonly tick?: number | undefined
  /** Slots per level of the timing wheel, a power of two. Default 256. */
  readonly wheelSize?: number | undefined
  /** Any structured-cloneable value; handlers find it as `loop.data`. */
  readonly data?: Data
}

/** The options that every server takes, whatever serves it. */
export interface ServerOptions<Data = unknown> extends LoopOptions<Data>, ConnectionLimits {
  /** Where to listen. Default `':1388'`. */
  readonly address?: Address | undefined
  /** Every loop listens by itself on the same port and the kernel balances. Linux. Default `false`. */
  readonly reusePort?: boolean | undefined
  /** Open accepted connections, all loops together; more are closed at accept. Default no limit. */
  readonly maxConnections?: number | undefined
  /** Connections that the kernel holds until they are accepted. Default 1024. */
  readonly backlog?: number | undefined
  /**
   * Bytes that the kernel keeps for each accepted TCP connection until they are read (`SO_RCVBUF`; Linux doubles it). A fixed
   * one of 32 KiB helps clients that send from small buffers over loopback, and bounds what one connection can send over a
   * long way. The native addon must listen. Default: the system's, which grows as needed.
   */
  readonly receiveBuffer?: number | undefined
  /** Brings topics to other machines: `new RedisBroker(…)`, `new NatsBroker(…)`, or your own. Default: this process alone. */
  readonly broker?: Broker | undefined
  /** Milliseconds in which the broker's engine has to answer; then publications reject until it does. Default 5 s. */
  readonly brokerTimeout?: number | undefined
  /** Speak TLS: the options of `tls.createServer`, and more. See docs/tls.md. */
  readonly tls?: ServerTlsOptions | undefined
}

/** The options of a server for a handler object: one loop, in the thread that made the server. */
export interface HandlerServerOptions<Ctx = undefined, Out = Uint8Array | string, Data = unknown>
  extends ServerOptions<Data> {
  /**
   * How packets are cut and answers packed. Default: bytes as they come. It must be there where the handler is not for
   * plain bytes.
   */
  readonly protocol?: Protocol<Ctx, Out> | undefined
  /** A handler object is served by one loop: several loops need a module. */
  readonly numLoops?: 1 | undefined
  /** Only with a module. */
  readonly loadBalance?: never
  /** Only with a module. */
  readonly onLoopDied?: never
  /** Only with a module. */
  readonly execArgv?: never
  /** Only with a module. */
  readonly resourceLimits?: never
}

/** The options of a server for a module: loops in threads. */
export interface ModuleServerOptions<Data = unknown> extends ServerOptions<Data> {
  /** Loops, each in a thread of its own. Default `availableParallelism()`. */
  readonly numLoops?: number | undefined
  /** Which loop gets a new connection. Default `round-robin`. */
  readonly loadBalance?: LoadBalance | undefined
  /**
   * Called in the server's thread when a loop's thread has ended unasked, and again for each try to replace it that
   * failed. It is logged and replaced whatever this does; what it throws or rejects with is logged.
   */
  readonly onLoopDied?: ((loop: DeadLoop) => unknown) | undefined
  /** Node's flags for the loops' threads, instead of those that the process was started with. */
  readonly execArgv?: readonly string[] | undefined
  /** Bounds of each thread's memory, as for a `Worker`. A loop that exceeds them dies and is replaced. */
  readonly resourceLimits?: ResourceLimits | undefined
  /** It is the module's export `protocol`. */
  readonly protocol?: never
}

/** The options of `connect`. `State` is the type of `c.context`. */
export interface ConnectOptions<Ctx = undefined, Out = Uint8Array | string, State = unknown>
  extends ConnectionLimits {
  readonly handler: Handler<Ctx, Out, State>
  /**
   * How packets are cut and sends packed. Default: bytes as they come. It must be there where the handler is not for
   * plain bytes.
   */
  readonly protocol?: Protocol<Ctx, Out> | undefined
  /** Speak TLS: the options of `tls.connect`, or `true` for its defaults. The certificate is verified unless told otherwise. */
  readonly tls?: TlsConnectOptions | true | undefined
  /** Milliseconds for the connect, the protocol's handshake and a promise of `onConnect`. Default 10 s. */
  readonly timeout?: number | undefined
  /** Ends it while it is not through: `connect` rejects with the signal's reason as `cause`. */
  readonly signal?: AbortSignal | undefined
}

/** Of `stop`. */
export interface StopOptions {
  /** Milliseconds for connections with an answer pending or bytes unsent. Default 0. */
  readonly drain?: number | undefined
}

const LIMITS = {
  highWaterMark: true,
  lowWaterMark: true,
  maxReadBuffer: true,
  idleTime: true,
  closeTimeout: true,
  handshakeTimeout: true,
  allowHalfOpen: true,
  noDelay: true,
  keepAlive: true,
} as const satisfies OptionNames<ConnectionLimits>

const LOOP = {
  poller: true,
  logger: true,
  tick: true,
  wheelSize: true,
  data: true,
} as const satisfies OptionNames<LoopOptions>

/** What only the threads of a module need. */
const THREADS = { loadBalance: true, execArgv: true, resourceLimits: true, onLoopDied: true } as const

const SERVER = {
  ...LOOP,
  ...LIMITS,
  ...THREADS,
  address: true,
  reusePort: true,
  maxConnections: true,
  backlog: true,
  receiveBuffer: true,
  tls: true,
  broker: true,
  brokerTimeout: true,
  numLoops: true,
  protocol: true,
} as const satisfies OptionNames<HandlerServerOptions> & OptionNames<ModuleServerOptions>

const CONNECT = {
  ...LIMITS,
  handler: true,
  protocol: true,
  tls: true,
  timeout: true,
  signal: true,
} as const satisfies OptionNames<ConnectOptions>

const SUBSCRIBE = { since: true } as const satisfies OptionNames<SubscribeOptions>
const STOP = { drain: true } as const satisfies OptionNames<StopOptions>
const BROADCAST = { slow: true } as const satisfies OptionNames<BroadcastOptions>
const LOCAL_BROADCAST = { ...BROADCAST, filter: true } as const satisfies OptionNames<
  LocalBroadcastOptions<never>
>

const MAX_PORT = 65_535
/** Linux doubles it, in 32 bits. */
const MAX_RECEIVE_BUFFER = 2 ** 30 - 1

/** Throws `ERR_RINGLOOP_OPTION`. */
export function fail(message: string): never {
  throw new RingloopError(ErrorCode.OPTION, message)
}

/** Refuses options that no server has. */
export function checkServerOptions(options: object): void {
  checkOptions('a server', options, SERVER)
}

/** Refuses, for a handler object, what only threads need. */
export function checkNoThreadOptions(options: Pick<ModuleServerOptions, keyof typeof THREADS>): void {
  for (const name of Object.keys(THREADS) as (keyof typeof THREADS)[]) {
    if (options[name] === undefined) continue
    fail(`${name} is for the threads of a module: a handler object is served by one loop in this thread`)
  }
}

/** The part of `options` that each connection is held to: plain values that can be cloned. */
export function connectionLimits(options: ConnectionLimits): ConnectionLimits {
  const names = Object.keys(LIMITS) as (keyof ConnectionLimits)[]
  return Object.fromEntries(names.filter((n) => options[n] !== undefined).map((n) => [n, options[n]]))
}

export function checkLoopOptions(options: object): void {
  checkOptions('a loop', options, LOOP)
}

export function checkConnectOptions(options: object): void {
  checkOptions('connect', options, CONNECT)
}

export function checkBroadcastOptions(options: object): void {
  checkOptions('broadcast', options, BROADCAST)
}

export function checkPublishOptions(options: object): void {
  checkOptions('publish', options, BROADCAST)
}

export function checkLocalBroadcastOptions(options: object): void {
  checkOptions('broadcast', options, LOCAL_BROADCAST)
}

/** The option `since` of `subscribe`. */
export function checkSince(options: SubscribeOptions): string | undefined {
  checkOptions('subscribe', options, SUBSCRIBE)
  const { since } = options
  if (since !== undefined && typeof since !== 'string') fail(`since must be a string, not ${String(since)}`)
  return since
}

/** The option `broker`. */
export function checkBroker(broker: Broker | undefined): Broker | undefined {
  if (broker === undefined) return undefined
  const { name, start, stop, subscribe, unsubscribe, publish, history, read } = (broker ??
    {}) as Partial<Broker>
  const calls = [start, stop, subscribe, unsubscribe, publish]
  if (typeof name !== 'string' || calls.some((each) => typeof each !== 'function')) {
    fail('broker must be an object with a name and functions start, stop, subscribe, unsubscribe and publish')
  }
  if (history === undefined) return broker
  if (typeof history?.prefix === 'string' && typeof read === 'function') return broker
  return fail('a broker with history must have a string history.prefix and a function read')
}

/** The option `drain` of `stop`. */
export function drainTime(options: StopOptions): number {
  checkOptions('stop', options, STOP)
  return checkInteger('drain', options.drain, 0)
}

export function checkBoolean(name: string, value: unknown, fallback: boolean): boolean {
  if (value === undefined) return fallback
  if (typeof value !== 'boolean') fail(`${name} must be true or false, not ${String(value)}`)
  return value
}

export interface SocketSettings {
  readonly noDelay: boolean
  readonly keepAlive: number
}

export function socketSettings(limits: ConnectionLimits): SocketSettings {
  return {
    noDelay: checkBoolean('noDelay', limits.noDelay, true),
    keepAlive: checkInteger('keepAlive', limits.keepAlive, 0),
  }
}

export function checkSignal(signal: AbortSignal | undefined): AbortSignal | undefined {
  if (signal === undefined || signal instanceof AbortSignal) return signal
  return fail('signal must be an AbortSignal')
}

export function checkHandler<Ctx, Out, State>(handler: Handler<Ctx, Out, State>): Handler<Ctx, Out, State> {
  if (typeof handler?.onMessage === 'function') return handler
  return fail('a handler must be an object with a function onMessage')
}

export function checkProtocol<Ctx, Out>(protocol: Protocol<Ctx, Out>): Protocol<Ctx, Out> {
  if (typeof protocol?.unPacket === 'function' && typeof protocol.packet === 'function') return protocol
  return fail('a protocol must be an object with functions unPacket and packet')
}

/**
 * The parts of an address; where it names no host that is `defaultHost`, by default `''`. Throws `ERR_RINGLOOP_OPTION`.
 */
export function parseAddress(address: Address, defaultHost = ''): Endpoint {
  if (typeof address === 'string') return parseString(address, defaultHost)
  if (typeof address !== 'object' || address === null)
    fail(`address must be a string or an object, not ${String(address)}`)
  const { host = '', port: given, path } = address as { host?: unknown; port?: unknown; path?: unknown }
  // The address of a server has all three, `path` undefined for TCP.
  if ('path' in address && (path !== undefined || given === undefined)) {
    if (typeof path !== 'string') fail(`address.path must be a string, not ${String(path)}`)
    const problem = unixPathProblem(path)
    return problem === undefined ? { path } : fail(`address.path: ${problem}`)
  }
  if (typeof host !== 'string') fail(`address.host must be a string, not ${String(host)}`)
  return { host: host || defaultHost, port: port(given) }
}

function parseString(text: string, defaultHost: string): Endpoint {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]*)):(\d+)$/.exec(text)
  if (match === null) fail(`address must be 'host:port', ':port' or '[ipv6]:port', not '${text}'`)
  return { host: match[1] ?? (match[2] || defaultHost), port: port(Number(match[3])) }
}

function port(value: unknown): number {
  if (value === undefined) fail('address must have a port, or the path of a unix socket')
  return checkInteger('the port', value, 0, 0, MAX_PORT)
}

const POLLERS: readonly unknown[] = ['auto', 'native', 'net']

export function checkPoller(value: PollerOption | undefined): PollerOption {
  if (value === undefined) return 'auto'
  if (!POLLERS.includes(value)) fail(`poller must be 'auto', 'native' or 'net', not '${String(value)}'`)
  return value
}

const STRATEGIES: readonly unknown[] = ['round-robin', 'least-connection', 'source-hash']

/** For the TLS handshake, a protocol's own, and a promise of `onConnect`. */
export function handshakeTimeout(limits: ConnectionLimits): number {
  return checkInteger('handshakeTimeout', limits.handshakeTimeout, HANDSHAKE_TIMEOUT)
}

/** Everything of `ServerOptions` that is not per connection, checked. */
export interface ListenSettings extends SocketSettings {
  readonly endpoint: Endpoint
  readonly loadBalance: LoadBalance
  readonly reusePort: boolean
  readonly maxConnections: number
  readonly backlog: number
  readonly receiveBuffer: number | undefined
  readonly poller: PollerOption
  readonly pollerOptions: PollerOptions
}

/** Node cannot set the receive buffer of a TCP socket. Throws `ERR_RINGLOOP_OPTION` where it would have to. */
export function checkReceiveBuffer(settings: ListenSettings, listener: 'native' | 'net'): void {
  if (settings.receiveBuffer === undefined || listener === 'native') return
  fail('receiveBuffer is set by the native addon alone: here Node listens, which cannot')
}

function receiveBuffer(options: ServerOptions, endpoint: Endpoint): number | undefined {
  if (options.receiveBuffer === undefined) return undefined
  if ('path' in endpoint) fail('receiveBuffer is for TCP: a unix socket has none of its own')
  return checkInteger('receiveBuffer', options.receiveBuffer, 0, 1, MAX_RECEIVE_BUFFER)
}

export function listenSettings(
  options: ServerOptions & Pick<ModuleServerOptions, 'loadBalance'>,
): ListenSettings {
  const loadBalance = options.loadBalance ?? 'round-robin'
  if (typeof loadBalance !== 'function' && !STRATEGIES.includes(loadBalance)) {
    fail(`loadBalance must be one of ${STRATEGIES.join(', ')} or a function, not '${String(loadBalance)}'`)
  }
  const poller = checkPoller(options.poller)
  const tls = options.tls === undefined ? undefined : checkTlsOptions(options.tls)
  const endpoint = parseAddress(options.address ?? ':1388')
  const reusePort = checkBoolean('reusePort', options.reusePort, false)
  if (reusePort && 'path' in endpoint) fail('reusePort is for TCP: a unix socket has no port')
  const maxConnections = checkLimit('maxConnections', options.maxConnections, Number.POSITIVE_INFINITY, 1)
  return {
    ...socketSettings(options),
    endpoint,
    loadBalance,
    reusePort,
    maxConnections,
    backlog: checkInteger('backlog', options.backlog, 1024, 1),
    receiveBuffer: receiveBuffer(options, endpoint),
    poller,
    pollerOptions: {
      tls,
      handshakeTimeout: tls?.handshakeTimeout ?? handshakeTimeout(options),
      maxLingering: Math.min(MAX_LINGERING, maxConnections),
    },
  }
}
