/**
 * A client of several servers that do the same. It chooses one for each request, leaves out those that fail, and asks
 * them again after a pause. All methods are to be called on the thread that made it.
 */
import {
  checkFunction,
  checkLimit,
  checkOptions,
  ErrorCode,
  type Logger,
  type Loop,
  type OptionNames,
  RingloopError,
  type Timer,
} from '../../index.js'
import { Backend, type BackendLimits, type BackendStatus } from './backend.js'
import type { IipBody } from './body.js'
import { checkString } from './check-value.js'
import { endPause, IipClient, type IipClientOptions, SHARED_OPTIONS, streamAndTell } from './client.js'
import {
  checkRequestOptions,
  NO_OPTIONS,
  REQUEST_OPTIONS,
  type RequestData,
  type RequestOptions,
} from './client-call.js'
import { loopOf } from './client-loop.js'
import { IipError, IipErrorCode, IipRemoteError } from './errors.js'
import { type CheckedProbe, checkProbe, type HealthProbe } from './health-probe.js'
import { parsePath, parseQuery } from './path.js'
import { RetryBudget } from './retry-budget.js'
import { TryLimit } from './try-limit.js'

/** What a strategy of one's own may look at. */
export interface BalancedRequest {
  readonly path: string
  readonly clientIp: string
  /** Parsed anew each time. */
  readonly query: URLSearchParams
}

/**
 * `min-pending`: the fewest pending requests for its weight · `round-robin`, `random`: in turn, or by chance, as often as
 * its weight says · `ip-hash`, `uri-param`: by the FNV-1 hash of `clientIp` or of a parameter of the query, as in Go · a
 * function: returns the address of the server; `undefined` leaves the choice to `min-pending`.
 */
export type BalanceStrategy =
  | 'min-pending'
  | 'round-robin'
  | 'random'
  | 'ip-hash'
  | 'uri-param'
  | ((request: BalancedRequest, backends: readonly BackendStatus[]) => string | undefined)

/** How requests are tried again that failed on one server. */
export interface RetryOptions {
  /**
   * The share of requests that may be sent a second time, of those in the last 10 to 20 s; 100 in that time are free.
   * What was not sent the first time does not count. Default 0.2; `Infinity` is no limit.
   */
  readonly budget?: number
  /**
   * Milliseconds for one try of a `safe` request, as long as there is another server to try and the budget has a retry
   * left; 0 (default), or where that is not so, is all the time that the request has.
   */
  readonly perTryTimeout?: number
}

export interface IipBalancerOptions extends Omit<IipClientOptions, 'address' | 'onDrain'> {
  /** `'host:port#weight,host:port#weight'`, weights from 1 to 100. Bad entries are left out; see {@link IipBalancer.badEntries}. */
  readonly servers: string
  /** Default `min-pending`. */
  readonly strategy?: BalanceStrategy
  /** For `uri-param`: which parameter. */
  readonly paramKey?: string
  /** So many failures one after another pause a server. Default 5. */
  readonly maxFailures?: number
  /** Milliseconds until a paused server is tried by one request again, and used if that succeeds. Default 5 s. */
  readonly pause?: number
  /** Says whether an answer, or a failure, counts as a success. Default: an answer does. */
  readonly isHealthy?: (error: unknown, answer: Buffer | undefined) => boolean
  readonly probe?: HealthProbe
  readonly retry?: RetryOptions
}

export interface BalancedOptions extends RequestOptions {
  /** For `ip-hash`, and strategies of one's own. */
  readonly clientIp?: string
  /**
   * It does no harm if it is done twice: after a failure it is tried on another server. Default `false`: it is tried
   * again only if nothing of it was sent.
   */
  readonly safe?: boolean
}

const OPTIONS = {
  ...SHARED_OPTIONS,
  servers: true,
  strategy: true,
  paramKey: true,
  maxFailures: true,
  pause: true,
  isHealthy: true,
  probe: true,
  retry: true,
} as const satisfies OptionNames<IipBalancerOptions>

const RETRY = { budget: true, perTryTimeout: true } as const satisfies OptionNames<RetryOptions>

const BALANCED = {
  ...REQUEST_OPTIONS,
  clientIp: true,
  safe: true,
} as const satisfies OptionNames<BalancedOptions>

/** An entry of a server list that cannot be used. */
export interface BadEntry {
  readonly entry: string
  readonly reason: string
}

interface Entry {
  readonly address: string
  readonly weight: number
}

const MAX_WEIGHT = 100
const NONE: ReadonlySet<Backend> = new Set()
const STRATEGIES: readonly unknown[] = ['min-pending', 'round-robin', 'random', 'ip-hash', 'uri-param']
const ADDRESS = /^(?:\[[^\]]+\]|[^:[\]\s]*):(\d+)$/

export class IipBalancer {
  /** What of `servers` could not be used, and why. */
  readonly badEntries: readonly BadEntry[]
  readonly #options: IipBalancerOptions
  readonly #strategy: BalanceStrategy
  readonly #limits: BackendLimits
  readonly #timeout: number
  readonly #budget: RetryBudget
  readonly #perTryTimeout: number
  readonly #loop: Loop
  readonly #ownsLoop: boolean
  readonly #logger: Logger
  #backends: Backend[] = []
  /** Each backend as often as its weight says, evenly mixed. */
  #turns: Backend[] = []
  #turn = -1
  readonly #probes: Timer | undefined
  #closed = false

  /** Throws `ERR_RINGLOOP_OPTION`, also where no entry of `servers` can be used. */
  constructor(options: IipBalancerOptions) {
    checkOptions('IipBalancer', options, OPTIONS)
    const { strategy = 'min-pending', paramKey, probe, retry = {} } = options
    checkOptions('retry', retry, RETRY)
    const checkedProbe = probe === undefined ? undefined : checkProbe(probe)
    checkFunction('isHealthy', options.isHealthy)
    if (paramKey !== undefined) checkString('paramKey', paramKey)
    if (typeof strategy !== 'function' && !STRATEGIES.includes(strategy)) {
      throw optionError(`strategy must be one of ${STRATEGIES.join(', ')} or a function, not '${strategy}'`)
    }
    if (strategy === 'uri-param' && paramKey === undefined) throw optionError('uri-param needs a paramKey')
    const { entries, bad } = parseServers(options.servers)
    if (entries.length === 0) throw optionError(`no entry of servers can be used: ${badText(bad)}`)
    this.#options = options
    this.#strategy = strategy
    this.#limits = {
      maxFailures: checkLimit('maxFailures', options.maxFailures, 5, 1),
      pause: checkLimit('pause', options.pause, 5000, 0),
    }
    this.#timeout = checkLimit('timeout', options.timeout, 30_000, 0)
    this.#budget = new RetryBudget(shareOf(retry.budget))
    this.#perTryTimeout = checkLimit('retry.perTryTimeout', retry.perTryTimeout, 0, 0)
    this.badEntries = bad
    this.#ownsLoop = options.loop === undefined
    this.#loop = loopOf(options)
    this.#logger = this.#loop.logger
    if (bad.length > 0) this.#logger.warn({ bad }, `entries of the server list are left out: ${badText(bad)}`)
    for (const entry of entries) this.#add(entry)
    if (checkedProbe === undefined) return
    this.#probes = this.#loop.runEvery(checkedProbe.interval, () => this.#probeAll(checkedProbe))
    this.#probes.unref()
  }

  /** The servers as they are now. */
  get backends(): readonly BackendStatus[] {
    return this.#backends.map((backend) => backend.status)
  }

  /** Adds `host:port#weight`; one that is there already gets the new weight. Throws `ERR_RINGLOOP_OPTION`. */
  addBackend(entry: string): void {
    const { entries, bad } = parseServers(entry)
    if (bad.length > 0 || entries.length !== 1) throw optionError(`not one server: ${badText(bad) || entry}`)
    this.#checkOpen()
    this.#add(entries[0]!)
  }

  /** Takes a server out; requests that it has are still answered. `false`: there is none with this address. */
  removeBackend(address: string): boolean {
    const backend = this.#backends.find((each) => each.address === address)
    if (backend === undefined) return false
    this.#set(this.#backends.filter((each) => each !== backend))
    void closeWhenDone(backend.client, this.#loop)
    return true
  }

  #add(entry: Entry): void {
    const known = this.#backends.find(({ address }) => address === entry.address)
    const client = known?.client ?? this.#newClient(entry.address)
    const backend = new Backend(entry.address, entry.weight, client, this.#limits)
    this.#set([...this.#backends.filter((each) => each !== known), backend])
  }

  #newClient(address: string): IipClient {
    const names = Object.keys(SHARED_OPTIONS) as (keyof typeof SHARED_OPTIONS)[]
    const shared = Object.fromEntries(names.map((name) => [name, this.#options[name]]))
    const onDrain = (): void => this.#backends.find((each) => each.address === address)?.drain()
    // The request that tries a server after its pause is not to be turned away by a longer one.
    const maxReconnectDelay = Math.min(this.#options.maxReconnectDelay ?? 5000, this.#limits.pause)
    return new IipClient({ ...shared, address, maxReconnectDelay, onDrain, loop: this.#loop })
  }

  #set(backends: Backend[]): void {
    this.#backends = backends
    this.#turns = interleave(backends)
  }

  /**
   * Resolves with the answer of one of the servers. Rejects as `IipClient.request` does, with the error of the last server
   * that was tried, and with `ERR_IIP_NO_BACKEND` where there is none.
   */
  async request(path: string, data?: RequestData, options: BalancedOptions = NO_OPTIONS): Promise<Buffer> {
    checkBalanced(options)
    const timeout = checkLimit('timeout', options.timeout, this.#timeout, 0)
    const deadline = timeout === 0 ? Number.POSITIVE_INFINITY : performance.now() + timeout
    const tried = new Set<Backend>()
    let failure: IipError | undefined
    let isPaid = false
    this.#budget.request()
    for (;;) {
      const backend = this.#choose(path, options.clientIp ?? '', tried)
      const left = Math.ceil(deadline - performance.now())
      if (backend === undefined || left <= 0) throw failure ?? this.#noBackend()
      if (!(isPaid || this.#mayTry(failure))) throw failure
      tried.add(backend)
      const limit = this.#limitOf(tried, data, options)
      try {
        return await this.#try(backend, tried, path, data, ofClient(options, left), limit)
      } catch (error) {
        if (!mayRepeat(error, data, options)) throw error
        failure = error
        isPaid = limit?.isOver === true
      } finally {
        limit?.stop()
      }
    }
  }

  /** For a try after which another may follow. */
  #limitOf(
    tried: ReadonlySet<Backend>,
    data: RequestData | undefined,
    { safe, signal }: BalancedOptions,
  ): TryLimit | undefined {
    if (this.#perTryTimeout === 0 || safe !== true || !isWhole(data)) return undefined
    if (tried.size >= this.#backends.length) return undefined
    return new TryLimit(this.#loop, this.#budget, this.#perTryTimeout, signal)
  }

  /** What was not sent makes no server do anything twice. */
  #mayTry(failure: IipError | undefined): boolean {
    return failure?.sent !== true || this.#budget.retry()
  }

  /**
   * A request goes to it; see {@link Backend.begin}. Where it tries the server, or no other is left, it makes an attempt to
   * connect: this may be the one that is back.
   */
  #begin(backend: Backend, tried: ReadonlySet<Backend>): boolean {
    const isTrial = backend.begin()
    const isOther = (each: Backend): boolean => each !== backend && !tried.has(each) && each.mayBeAsked
    if (isTrial || !this.#backends.some(isOther)) endPause(backend.client)
    return isTrial
  }

  async #try(
    backend: Backend,
    tried: ReadonlySet<Backend>,
    path: string,
    data: RequestData | undefined,
    options: RequestOptions,
    limit: TryLimit | undefined,
  ): Promise<Buffer> {
    const isTrial = this.#begin(backend, tried)
    try {
      const limited = limit === undefined ? options : { ...options, signal: limit.signal }
      const answer = await backend.client.request(path, data, limited)
      this.#count(backend, undefined, answer)
      return answer
    } catch (error) {
      this.#countError(backend, error, options)
      throw error
    } finally {
      if (isTrial) backend.tried()
    }
  }

  /** The answer of one server as it comes; never tried again. Throws `ERR_RINGLOOP_OPTION`. */
  stream(path: string, data?: RequestData, options: BalancedOptions = NO_OPTIONS): IipBody {
    checkBalanced(options)
    const backend = this.#choose(path, options.clientIp ?? '', NONE)
    if (backend === undefined) throw this.#noBackend()
    const { timeout = this.#timeout } = options
    let isTrial = this.#begin(backend, NONE)
    const endTrial = (): void => {
      if (isTrial) backend.tried()
      isTrial = false
    }
    return streamAndTell(backend.client, path, data, ofClient(options, timeout), {
      begun() {
        backend.succeeded()
        endTrial()
      },
      ended: (error) => {
        if (error === undefined) backend.succeeded()
        else this.#countError(backend, error, options)
        endTrial()
      },
    })
  }

  #noBackend(): IipError {
    const message = this.#closed ? 'the balancer is closed' : 'there is no backend to ask'
    return new IipError(IipErrorCode.NO_BACKEND, message, false)
  }

  // ---- health ------------------------------------------------------------------------------------------------------

  #count(backend: Backend, error: unknown, answer: Buffer | undefined): void {
    const { isHealthy } = this.#options
    const healthy = isHealthy === undefined ? !isBackendsFault(error) : isHealthy(error, answer)
    if (healthy) backend.succeeded()
    else this.#countFailure(backend, error)
  }

  /** Says nothing of the server: that the caller gave up, or asked for what cannot be. */
  #countError(backend: Backend, error: unknown, { signal }: BalancedOptions): void {
    const says = isBackendsFault(error) || error instanceof IipRemoteError
    if (says && signal?.aborted !== true) this.#count(backend, error, undefined)
  }

  #countFailure(backend: Backend, error: unknown, isCertain = false): void {
    if (!backend.failed(isCertain)) return
    this.#logger.warn({ err: error, backend: backend.address }, 'an IIP backend fails and is paused')
  }

  #probeAll(probe: CheckedProbe): void {
    for (const backend of this.#backends) void this.#probe(backend, probe)
  }

  async #probe(backend: Backend, { path, data, timeout, check }: CheckedProbe): Promise<void> {
    endPause(backend.client)
    try {
      const answer = await backend.client.request(path, data, { timeout, raw: true })
      if (check?.(answer) === false) throw new Error('the probe’s answer is not a healthy one')
      this.#count(backend, undefined, answer)
    } catch (error) {
      if (!this.#closed) this.#countFailure(backend, error, true)
    }
  }

  // ---- choosing ----------------------------------------------------------------------------------------------------

  /** A backend that was not tried; one that is paused only where there is no other. */
  #choose(path: string, clientIp: string, tried: ReadonlySet<Backend>): Backend | undefined {
    const isLeft = (backend: Backend): boolean => !tried.has(backend)
    const may = (backend: Backend): boolean => isLeft(backend) && backend.mayBeAsked
    return this.#choosePreferred(path, clientIp, may) ?? this.#choosePreferred(path, clientIp, isLeft)
  }

  #choosePreferred(path: string, clientIp: string, may: (backend: Backend) => boolean): Backend | undefined {
    const strategy = this.#strategy
    if (this.#turns.length === 0) return undefined
    if (typeof strategy === 'function') return this.#chooseByFunction(strategy, path, clientIp, may)
    switch (strategy) {
      case 'round-robin':
        return this.#inTurn(may)
      case 'random':
        return this.#from(Math.floor(Math.random() * this.#turns.length), may)
      case 'ip-hash':
        return this.#from(fnv1(clientIp) % this.#turns.length, may)
      case 'uri-param':
        return this.#from(fnv1(queryOf(path).get(this.#options.paramKey!) ?? '') % this.#turns.length, may)
      default:
        return this.#fewestPending(may)
    }
  }

  #chooseByFunction(
    strategy: Exclude<BalanceStrategy, string>,
    path: string,
    clientIp: string,
    may: (backend: Backend) => boolean,
  ): Backend | undefined {
    const request: BalancedRequest = {
      path,
      clientIp,
      get query() {
        return queryOf(path)
      },
    }
    const address = strategy(request, this.backends)
    const wanted = this.#backends.find((backend) => backend.address === address)
    if (address !== undefined && wanted === undefined)
      throw optionError(`the strategy chose '${address}', which is no backend`)
    return wanted !== undefined && may(wanted) ? wanted : this.#fewestPending(may)
  }

  #inTurn(may: (backend: Backend) => boolean): Backend | undefined {
    this.#turn = (this.#turn + 1) % this.#turns.length
    return this.#from(this.#turn, may)
  }

  /** The first that may be taken, beginning at a turn. */
  #from(start: number, may: (backend: Backend) => boolean): Backend | undefined {
    for (let i = 0; i < this.#turns.length; i++) {
      const backend = this.#turns[(start + i) % this.#turns.length]!
      if (may(backend)) return backend
    }
    return undefined
  }

  /** Where several have equally few they take turns. */
  #fewestPending(may: (backend: Backend) => boolean): Backend | undefined {
    let best: Backend | undefined
    let fewest = Number.POSITIVE_INFINITY
    this.#turn = (this.#turn + 1) % this.#turns.length
    for (let i = 0; i < this.#turns.length; i++) {
      const backend = this.#turns[(this.#turn + i) % this.#turns.length]!
      const load = backend.client.pending / backend.weight
      if (load >= fewest || !may(backend)) continue
      best = backend
      fewest = load
    }
    return best
  }

  #checkOpen(): void {
    if (this.#closed) throw new RingloopError(ErrorCode.STATE, 'the balancer is closed')
  }

  /** Closes every client; what is pending rejects. */
  async close(): Promise<void> {
    this.#closed = true
    this.#probes?.stop()
    const backends = this.#backends
    this.#set([])
    await Promise.all(backends.map(({ client }) => client.close()))
    if (this.#ownsLoop) await this.#loop.stop()
  }

  /** `await using`: as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

function checkBalanced(options: BalancedOptions): void {
  checkRequestOptions(options, BALANCED)
}

/** What of the options of a request is for the client that makes it. */
function ofClient(options: BalancedOptions, timeout: number): RequestOptions {
  const { clientIp: _ip, safe: _safe, ...ofRequest } = options
  return { ...ofRequest, timeout }
}

function isBackendsFault(error: unknown): error is IipError {
  return (
    error instanceof IipError && !(error instanceof IipRemoteError) && error.code !== IipErrorCode.TOO_LARGE
  )
}

function mayRepeat(
  error: unknown,
  data: RequestData | undefined,
  options: BalancedOptions,
): error is IipError {
  if (!isBackendsFault(error) || options.signal?.aborted === true) return false
  return isWhole(data) && (!error.sent || options.safe === true)
}

/** It can be sent more than once. */
function isWhole(data: unknown): data is Uint8Array | string | undefined {
  return data === undefined || typeof data === 'string' || data instanceof Uint8Array
}

/** Throws `ERR_RINGLOOP_OPTION`. */
function shareOf(budget: unknown): number {
  if (budget === undefined) return 0.2
  if (typeof budget === 'number' && budget >= 0) return budget
  throw optionError(`retry.budget must be a number, 0 or more, not ${String(budget)}`)
}

/** Its pending requests may still be answered. */
async function closeWhenDone(client: IipClient, loop: Loop): Promise<void> {
  while (client.pending > 0) await new Promise<void>((resolve) => loop.runAfter(50, resolve))
  await client.close()
}

/** Reads `host:port#weight,…`; an address that comes twice counts once, with the sum of its weights. Throws `ERR_RINGLOOP_OPTION`. */
export function parseServers(list: string): {
  readonly entries: readonly Entry[]
  readonly bad: readonly BadEntry[]
} {
  const weights = new Map<string, number>()
  const bad: BadEntry[] = []
  for (const part of checkString('servers', list).split(',')) {
    const entry = part.trim()
    const [address = '', weightText = '', ...more] = entry.split('#').map((text) => text.trim())
    const reason = entry === '' ? 'it is empty' : badReason(address, weightText, more.length)
    if (reason !== undefined) bad.push({ entry, reason })
    else weights.set(address, Math.min(MAX_WEIGHT, (weights.get(address) ?? 0) + Number(weightText)))
  }
  return { entries: [...weights].map(([address, weight]) => ({ address, weight })), bad }
}

function badReason(address: string, weight: string, more: number): string | undefined {
  if (more > 0 || weight === '') return 'it must have one # and a weight behind it'
  const port = Number(ADDRESS.exec(address)?.[1] ?? -1)
  if (port < 1 || port > 65_535) return 'its address must be host:port'
  if (!/^\d+$/.test(weight) || Number(weight) < 1 || Number(weight) > MAX_WEIGHT) {
    return `its weight must be an integer from 1 to ${MAX_WEIGHT}`
  }
  return undefined
}

function badText(bad: readonly BadEntry[]): string {
  return bad.map(({ entry, reason }) => `'${entry}': ${reason}`).join('; ')
}

/** Weights 3, 1, 2 of a, b, c give a b c a c a. */
function interleave(backends: readonly Backend[]): Backend[] {
  const turns: Backend[] = []
  for (let round = 0; backends.some(({ weight }) => weight > round); round++) {
    turns.push(...backends.filter(({ weight }) => weight > round))
  }
  return turns
}

/** FNV-1 with 32 bits, not FNV-1a. */
export function fnv1(text: string): number {
  let hash = 0x811c9dc5
  for (const byte of Buffer.from(text)) hash = Math.imul(hash, 0x01000193) ^ byte
  return hash >>> 0
}

function queryOf(path: string): URLSearchParams {
  return new URLSearchParams(parseQuery(parsePath(Buffer.from(path).toString('latin1')).query))
}

function optionError(message: string): RingloopError {
  return new RingloopError(ErrorCode.OPTION, message)
}
