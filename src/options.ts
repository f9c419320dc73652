/** The options of servers, loops and connections: their defaults, and the checks that turn mistakes into sentences. */
import type { ConnectionOptions as TlsConnectOptions, TlsOptions } from 'node:tls'
import type { ResourceLimits } from 'node:worker_threads'
import { checkOptions, type OptionNames } from './check-options.js'
import type { Service } from './connection/service.js'
import { ErrorCode, RingloopError } from './errors.js'
import type { Handler } from './handler.js'
import type { LoggerOption } from './log.js'
import type { Endpoint } from './loop/poller/poller.js'
import type { BroadcastOptions, LocalBroadcastOptions } from './loop.js'
import type { Protocol } from './protocol/protocol.js'
import type { LoadBalance } from './threads/load-balance.js'

/** `'host:port'`, `':port'` (every interface), `'[::1]:port'`, `{ host, port }`, or `{ path }` for a unix socket. */
export type Address = string | { readonly host?: string; readonly port: number } | { readonly path: string }

/** `auto` is `native` where the addon can be loaded, else `net` with one warning. TLS always uses `net`. */
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
  /** Speak TLS: the options of `tls.createServer`. Goes through the `net` poller. */
  readonly tls?: TlsOptions | undefined
  /** Serve Prometheus metrics, from `start` to the end of `stop`. Default no. */
  readonly metrics?: MetricsOptions | undefined
  /** Serve a page that shows what the loops do, from `start` to the end of `stop`. Default no. */
  readonly console?: ConsoleOptions | undefined
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
  /** Node's own flags for the threads, as `Worker` takes them. */
  readonly execArgv?: readonly string[] | undefined
  /** Limits of each thread's memory, as `Worker` takes them. */
  readonly resourceLimits?: ResourceLimits | undefined
  /** It is the module's export `protocol`. */
  readonly protocol?: never
}

/** The option `metrics`: Prometheus text from one endpoint in the server's thread. Needs the package `prom-client`. */
export interface MetricsOptions {
  /**
   * Where it is served, over HTTP. Without a host that is the loopback interface, unlike the server's own address: say
   * `0.0.0.0:9464` to be reached from elsewhere. Default `'127.0.0.1:9464'`.
   */
  readonly address?: Address
  /** Default `'/metrics'`. */
  readonly path?: string
  /**
   * A `Registry` of prom-client: ringloop's metrics are added to it for as long as the server runs, so that your own are
   * served beside them. Default: one of its own.
   */
  readonly registry?: MetricsRegistry
}

/** What is used of prom-client's `Registry`. */
export interface MetricsRegistry {
  readonly contentType: string
  registerMetric(metric: never): void
  removeSingleMetric(name: string): void
  metrics(): Promise<string>
}

/** The option `console`: a page with live plots, served by the server's thread. */
export interface ConsoleOptions {
  /**
   * Where the page is. Without a host that is the loopback interface, as with `metrics`: there is no password. Default
   * `'127.0.0.1:1389'`.
   */
  readonly address?: Address
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
  /** Milliseconds for the connect and the protocol's handshake. Default 10 s. */
  readonly timeout?: number | undefined
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
const THREADS = { loadBalance: true, execArgv: true, resourceLimits: true } as const

const SERVER = {
  ...LOOP,
  ...LIMITS,
  ...THREADS,
  address: true,
  reusePort: true,
  maxConnections: true,
  backlog: true,
  tls: true,
  metrics: true,
  console: true,
  numLoops: true,
  protocol: true,
} as const satisfies OptionNames<HandlerServerOptions> & OptionNames<ModuleServerOptions>

const CONNECT = {
  ...LIMITS,
  handler: true,
  protocol: true,
  tls: true,
  timeout: true,
} as const satisfies OptionNames<ConnectOptions>

const STOP = { drain: true } as const satisfies OptionNames<StopOptions>
const BROADCAST = { slow: true } as const satisfies OptionNames<BroadcastOptions>
const LOCAL_BROADCAST = { ...BROADCAST, filter: true } as const satisfies OptionNames<
  LocalBroadcastOptions<never>
>

const MIB = 1024 * 1024
const MAX_PORT = 65_535

function fail(message: string): never {
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

export function checkLoopOptions(options: object): void {
  checkOptions('a loop', options, LOOP)
}

export function checkConnectOptions(options: object): void {
  checkOptions('connect', options, CONNECT)
}

export function checkBroadcastOptions(options: object): void {
  checkOptions('broadcast', options, BROADCAST)
}

export function checkLocalBroadcastOptions(options: object): void {
  checkOptions('broadcast', options, LOCAL_BROADCAST)
}

/** The option `drain` of `stop`. */
export function drainTime(options: StopOptions): number {
  checkOptions('stop', options, STOP)
  return wholeNumber('drain', options.drain, 0)
}

/** An integer of at least `min`, or the default. */
export function wholeNumber(name: string, value: unknown, fallback: number, min = 0): number {
  if (value === undefined) return fallback
  if (!Number.isSafeInteger(value) || (value as number) < min) {
    fail(`${name} must be an integer, ${min} or more, not ${String(value)}`)
  }
  return value as number
}

/** As {@link wholeNumber}, and `Infinity` is no limit. */
function limit(name: string, value: unknown, fallback: number, min = 0): number {
  return value === Number.POSITIVE_INFINITY ? value : wholeNumber(name, value, fallback, min)
}

function bool(name: string, value: unknown, fallback: boolean): boolean {
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
    noDelay: bool('noDelay', limits.noDelay, true),
    keepAlive: wholeNumber('keepAlive', limits.keepAlive, 0),
  }
}

/** Checks the limits and puts everything that connections share into one object. */
export function createService<Ctx, Out>(
  handler: Handler<Ctx, Out, never>,
  protocol: Protocol<Ctx, Out>,
  limits: ConnectionLimits,
): Service<Ctx, Out> {
  const highWaterMark = limit('highWaterMark', limits.highWaterMark, MIB, 1)
  const lowWaterMark = limit('lowWaterMark', limits.lowWaterMark, Math.floor(highWaterMark / 4))
  if (lowWaterMark > highWaterMark) {
    fail(`lowWaterMark (${lowWaterMark}) must not be above highWaterMark (${highWaterMark})`)
  }
  return {
    // What is in `c.context` is the handler's own affair.
    handler: checkHandler(handler as Handler<Ctx, Out>),
    protocol: checkProtocol(protocol),
    highWaterMark,
    lowWaterMark,
    maxReadBuffer: limit('maxReadBuffer', limits.maxReadBuffer, 16 * MIB, 1),
    idleTime: wholeNumber('idleTime', limits.idleTime, 0),
    closeTimeout: wholeNumber('closeTimeout', limits.closeTimeout, 30_000, 1),
  }
}

export function checkHandler<Ctx, Out>(handler: Handler<Ctx, Out>): Handler<Ctx, Out> {
  if (typeof handler?.onMessage === 'function') return handler
  return fail('a handler must be an object with a function onMessage')
}

export function checkProtocol<Ctx, Out>(protocol: Protocol<Ctx, Out>): Protocol<Ctx, Out> {
  if (typeof protocol?.unPacket === 'function' && typeof protocol.packet === 'function') return protocol
  return fail('a protocol must be an object with functions unPacket and packet')
}

/** An address to listen on or to connect to; a missing host is `''`. */
export function parseAddress(address: Address): Endpoint {
  if (typeof address === 'string') return parseText(address)
  if (typeof address !== 'object' || address === null)
    fail(`address must be a string or an object, not ${String(address)}`)
  const { host = '', port: given, path } = address as { host?: unknown; port?: unknown; path?: unknown }
  // The address of a server has all three, `path` undefined for TCP.
  if ('path' in address && (path !== undefined || given === undefined)) {
    if (typeof path !== 'string' || path === '') fail('address.path must be the path of a unix socket')
    return { path }
  }
  if (typeof host !== 'string') fail(`address.host must be a string, not ${String(host)}`)
  return { host, port: port(given) }
}

function parseText(text: string): Endpoint {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]*)):(\d+)$/.exec(text)
  if (match === null) fail(`address must be 'host:port', ':port' or '[ipv6]:port', not '${text}'`)
  return { host: match[1] ?? match[2] ?? '', port: port(Number(match[3])) }
}

function port(value: unknown): number {
  if (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_PORT)
    return value as number
  return fail(`the port must be an integer from 0 to ${MAX_PORT}, not ${String(value)}`)
}

const POLLERS: readonly unknown[] = ['auto', 'native', 'net']

export function checkPoller(value: PollerOption | undefined): PollerOption {
  if (value === undefined) return 'auto'
  if (!POLLERS.includes(value)) fail(`poller must be 'auto', 'native' or 'net', not '${String(value)}'`)
  return value
}

const STRATEGIES: readonly unknown[] = ['round-robin', 'least-connection', 'source-hash']

/** Everything of `ServerOptions` that is not per connection, checked. */
export interface ListenSettings extends SocketSettings {
  readonly endpoint: Endpoint
  readonly loadBalance: LoadBalance
  readonly reusePort: boolean
  readonly maxConnections: number
  readonly backlog: number
  readonly poller: PollerOption
  readonly tls: TlsOptions | undefined
}

export function listenSettings(
  options: ServerOptions & Pick<ModuleServerOptions, 'loadBalance'>,
): ListenSettings {
  const loadBalance = options.loadBalance ?? 'round-robin'
  if (typeof loadBalance !== 'function' && !STRATEGIES.includes(loadBalance)) {
    fail(`loadBalance must be one of ${STRATEGIES.join(', ')} or a function, not '${String(loadBalance)}'`)
  }
  const poller = checkPoller(options.poller)
  if (options.tls !== undefined && poller === 'native') {
    fail("tls goes through the net poller: leave out poller, or set it to 'net'")
  }
  const endpoint = parseAddress(options.address ?? ':1388')
  const reusePort = bool('reusePort', options.reusePort, false)
  if (reusePort && 'path' in endpoint) fail('reusePort is for TCP: a unix socket has no port')
  return {
    ...socketSettings(options),
    endpoint,
    loadBalance,
    reusePort,
    maxConnections: limit('maxConnections', options.maxConnections, Number.POSITIVE_INFINITY, 1),
    backlog: wholeNumber('backlog', options.backlog, 1024, 1),
    poller: options.tls === undefined ? poller : 'net',
    tls: options.tls,
  }
}

export interface MetricsSettings {
  readonly endpoint: Endpoint
  readonly path: string
  readonly registry: MetricsRegistry | undefined
}

export function metricsSettings(options: MetricsOptions): MetricsSettings {
  checkObject('metrics', options)
  const { path = '/metrics', registry } = options
  if (typeof path !== 'string' || !path.startsWith('/')) {
    fail(`metrics.path must be a string that begins with '/', not ${String(path)}`)
  }
  if (registry !== undefined && typeof registry?.registerMetric !== 'function') {
    fail('metrics.registry must be a Registry of prom-client')
  }
  return { endpoint: localEndpoint(options.address ?? ':9464'), path, registry }
}

export interface ConsoleSettings {
  readonly endpoint: Endpoint
}

export function consoleSettings(options: ConsoleOptions): ConsoleSettings {
  checkObject('console', options)
  return { endpoint: localEndpoint(options.address ?? ':1389') }
}

function checkObject(name: string, value: unknown): void {
  if (typeof value !== 'object' || value === null) fail(`${name} must be an object, not ${String(value)}`)
}

/** Loopback unless a host is named. */
function localEndpoint(address: Address): Endpoint {
  const endpoint = parseAddress(address)
  return 'path' in endpoint || endpoint.host !== '' ? endpoint : { ...endpoint, host: '127.0.0.1' }
}
