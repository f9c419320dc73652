/**
 * An HTTP/1.1 server in front of IIP backends: each HTTP request becomes an IIP request and each answer an HTTP response.
 * `node:http` does the HTTP. It belongs to the thread that made it.
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import {
  checkFunction,
  checkLimit,
  checkOptions,
  ErrorCode,
  type OptionNames,
  RingloopError,
} from '../../index.js'
import { IipBalancer, type IipBalancerOptions } from './balancer.js'
import { checkString } from './check-value.js'
import { badValue, goJson, IipError, IipErrorCode, NO_HANDLER, NO_RESPONSE } from './errors.js'
import { MAX_PATH } from './frame.js'
import { parsePath, parseQuery } from './path.js'
import type { IipRequest } from './request.js'

const HEADER_PARAM = '__http_hdr__'
const MIB = 1024 * 1024
const FAIL_PREFIX: Buffer = Buffer.from('{"code":-1,"message":"handler fail')
const EMPTY_OBJECT = '{}'

/** Names the backend for a request; `undefined` leaves it to the routes. `host` has no port. */
export type ChooseBackend = (host: string, uri: string, request: IncomingMessage) => string | undefined

export interface IipHttpAdapterOptions {
  /** Asked first for every request. */
  readonly chooseBackend?: ChooseBackend
  /** Bytes of a request's body; a longer one is answered with 413. Default 10 MiB. */
  readonly maxBodyBytes?: number
  /** Milliseconds for a request, from its body on; then it is answered with 504. Default 10 s. */
  readonly timeout?: number
  /**
   * The HTTP status for an answer. Default: 404 for the answer that there is no handler, 500 for the other error answers,
   * else 200. `() => 200` is what the Go implementation does.
   */
  readonly status?: (answer: Buffer) => number
}

const OPTIONS = {
  chooseBackend: true,
  maxBodyBytes: true,
  timeout: true,
  status: true,
} as const satisfies OptionNames<IipHttpAdapterOptions>

interface Route {
  readonly host: string
  readonly pattern: RegExp
  readonly backend: string
}

export class IipHttpAdapter {
  readonly #options: IipHttpAdapterOptions
  readonly #maxBodyBytes: number
  readonly #timeout: number
  readonly #backends = new Map<string, IipBalancer>()
  readonly #routes: Route[] = []
  #server: Server | undefined
  readonly #sockets = new Set<Socket>()
  /** Not yet answered. */
  readonly #open = new Set<ServerResponse>()

  /** Throws `ERR_RINGLOOP_OPTION`. */
  constructor(options: IipHttpAdapterOptions = {}) {
    checkOptions('IipHttpAdapter', options, OPTIONS)
    checkFunction('chooseBackend', options.chooseBackend)
    checkFunction('status', options.status)
    this.#options = options
    this.#maxBodyBytes = checkLimit('maxBodyBytes', options.maxBodyBytes, 10 * MIB, 0)
    this.#timeout = checkLimit('timeout', options.timeout, 10_000, 1)
  }

  /** Adds the servers that `alias` stands for, or replaces them. Throws `ERR_RINGLOOP_OPTION`. */
  backend(alias: string, options: IipBalancerOptions): this {
    const before = this.#backends.get(alias)
    this.#backends.set(alias, new IipBalancer(options))
    void before?.close()
    return this
  }

  /** Closes the connections to the servers of `alias`. `false`: there are none. */
  removeBackend(alias: string): boolean {
    const backend = this.#backends.get(alias)
    void backend?.close()
    return this.#backends.delete(alias)
  }

  /**
   * Sends requests for a host (no port; an IPv6 address without brackets) to a backend where `pattern` matches the URI,
   * query included. A pattern that matches all of the URI is preferred to one that matches a part; else the earlier.
   * Throws `ERR_RINGLOOP_OPTION`.
   */
  route(host: string, pattern: RegExp, backend: string): this {
    if (!(pattern instanceof RegExp)) throw badValue(`a pattern must be a RegExp, not ${typeof pattern}`)
    this.#routes.push({
      host: checkString('a host', host).toLowerCase(),
      pattern: new RegExp(pattern, pattern.flags.replace(/[gy]/g, '')),
      backend: checkString('a backend', backend),
    })
    return this
  }

  /** Takes back every {@link route} of the host with this pattern. `false`: there is none. */
  removeRoute(host: string, pattern: RegExp): boolean {
    const rest = this.#routes.filter(
      (each) => each.host !== host.toLowerCase() || each.pattern.source !== pattern.source,
    )
    const removed = rest.length < this.#routes.length
    this.#routes.splice(0, this.#routes.length, ...rest)
    return removed
  }

  /** Listens; for a server of one's own, HTTPS for example, pass {@link handle} to it instead. Resolves with the address. */
  async listen(port: number, host?: string): Promise<AddressInfo> {
    if (this.#server !== undefined) throw new RingloopError(ErrorCode.STATE, 'the adapter listens already')
    const server = createServer(this.handle)
    this.#server = server
    server.on('connection', (socket) => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
    server.listen(port, host)
    await once(server, 'listening')
    return server.address() as AddressInfo
  }

  /** Stops listening, lets requests end whose headers are here, and closes the backends. */
  async close(): Promise<void> {
    const server = this.#server
    if (server?.listening === true) {
      const closed = once(server, 'close')
      const busy = new Set<Socket>()
      for (const response of this.#open) {
        endsConnection(response)
        busy.add(response.req.socket)
      }
      server.close()
      // node:http waits for one that has sent half a header.
      for (const socket of this.#sockets) if (!busy.has(socket)) socket.destroy()
      await closed
    }
    await Promise.all([...this.#backends.values()].map((backend) => backend.close()))
  }

  /** `await using`: as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Answers one HTTP request. */
  readonly handle = (request: IncomingMessage, response: ServerResponse): void => {
    if (this.#server?.listening === false) endsConnection(response)
    this.#open.add(response)
    response.once('close', () => this.#open.delete(response))
    this.#answer(request, response).catch((error) => {
      if (!response.headersSent && !response.destroyed) end(response, statusOf(error), '')
      else response.destroy()
    })
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if ((request.headersDistinct.host?.length ?? 0) > 1) return end(response, 400, 'more than one Host')
    const uri = withoutFragment(request.url ?? '/')
    const alias = this.#find(hostOf(request), uri, request)
    const backend = alias === undefined ? undefined : this.#backends.get(alias)
    if (backend === undefined) return end(response, 501, 'no route')
    const path = withHeaders(uri, request)
    if (path.length > MAX_PATH) return end(response, 431, 'the URI and the headers are too long for IIP')
    const body = await readBody(request, this.#maxBodyBytes)
    if (body === undefined) return refuseBody(response)
    const gone = new AbortController()
    response.once('close', () => gone.abort())
    const answer = await backend.request(path, body.length === 0 ? EMPTY_OBJECT : body, {
      timeout: this.#timeout,
      signal: gone.signal,
      clientIp: request.socket.remoteAddress ?? '',
      raw: true,
      safe: request.method === 'GET' || request.method === 'HEAD',
    })
    end(response, this.#options.status?.(answer) ?? defaultStatus(answer), answer)
  }

  #find(host: string, uri: string, request: IncomingMessage): string | undefined {
    const chosen = this.#options.chooseBackend?.(host, uri, request)
    if (chosen !== undefined) return chosen
    if (isSystem(uri)) return undefined
    let partly: string | undefined
    for (const each of this.#routes) {
      const match = each.host === host ? each.pattern.exec(uri)?.[0] : undefined
      if (match === uri) return each.backend
      if (match !== undefined) partly ??= each.backend
    }
    return partly
  }
}

/** Statistics are nobody's business outside, unless a route function says so. */
function isSystem(uri: string): boolean {
  return parsePath(uri).path.startsWith('/sys/')
}

function end(response: ServerResponse, status: number, body: Buffer | string): void {
  if (response.destroyed) return
  response.writeHead(status, {
    'Content-Type': contentType(body),
    'Content-Length': Buffer.byteLength(body),
    'X-Content-Type-Options': 'nosniff',
  })
  response.end(body)
}

/** Never HTML: what a backend sends back may have come from anybody. */
function contentType(body: Buffer | string): string {
  const text = body.toString()
  if (typeof body !== 'string' && !Buffer.from(text).equals(body)) return 'application/octet-stream'
  return /^\s*[[{]/.test(text) ? 'application/json' : 'text/plain; charset=utf-8'
}

/** The rest of the body is not read: the connection cannot be used for another request. */
function refuseBody(response: ServerResponse): void {
  endsConnection(response)
  end(response, 413, 'the body is too long')
}

function endsConnection(response: ServerResponse): void {
  if (!response.headersSent) response.setHeader('Connection', 'close')
}

function statusOf(error: unknown): number {
  if (error instanceof RingloopError) return 400
  if (!(error instanceof IipError)) return 500
  return error.code === IipErrorCode.TIMEOUT ? 504 : 502
}

function defaultStatus(answer: Buffer): number {
  if (answer.equals(NO_HANDLER)) return 404
  const failed = answer.equals(NO_RESPONSE) || answer.subarray(0, FAIL_PREFIX.length).equals(FAIL_PREFIX)
  return failed ? 500 : 200
}

function hostOf(request: IncomingMessage): string {
  const host = (request.headers.host ?? '').toLowerCase()
  return host.startsWith('[') ? host.slice(1, host.indexOf(']')) : host.replace(/:\d*$/, '')
}

/** `undefined`: it is longer than `limit`. Rejects when the peer leaves. */
async function readBody(request: IncomingMessage, limit: number): Promise<Buffer | undefined> {
  if (Number(request.headers['content-length'] ?? 0) > limit) return undefined
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    length += chunk.length
    if (length > limit) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks, length)
}

/** Servers cut it off, and whatever stands behind it. */
function withoutFragment(uri: string): string {
  const at = uri.indexOf('#')
  return at < 0 ? uri : uri.slice(0, at)
}

/** The URI with the headers behind it. A parameter of that name that the peer made up is taken out. */
function withHeaders(uri: string, request: IncomingMessage): string {
  const clean = withoutParam(uri)
  const header = Buffer.from(goJson(headersOf(request)))
    .toString('base64')
    .replaceAll('+', '-')
    .replaceAll('/', '_')
  return `${clean}${clean.includes('?') ? '&' : '?'}${HEADER_PARAM}=${header}`
}

function withoutParam(uri: string): string {
  const at = uri.indexOf('?')
  if (at < 0) return uri
  const isOurs = (part: string): boolean => parseQuery(part)[0]?.[0] === HEADER_PARAM
  const parts = uri.slice(at + 1).split('&')
  return parts.some(isOurs) ? `${uri.slice(0, at)}?${parts.filter((part) => !isOurs(part)).join('&')}` : uri
}

/** What Go's server takes out of the headers: the host, and what is of the HTTP connection alone. */
const NOT_PASSED: ReadonlySet<string> = new Set(['host', 'trailer', 'transfer-encoding'])

/** With Go's spelling and in Go's order. */
function headersOf(request: IncomingMessage): Record<string, readonly string[]> {
  const entries = Object.entries(request.headersDistinct)
    .filter(([name]) => !NOT_PASSED.has(name))
    .map(([name, values]) => [canonical(name), values ?? []] as const)
    .sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(entries)
}

function canonical(name: string): string {
  return name.replace(/(^|-)([a-z])/g, (_, before: string, letter: string) => before + letter.toUpperCase())
}

/**
 * In a handler behind an adapter: the HTTP request's headers by their canonical names, `X-Request-Id`. `undefined` where
 * there are none. They are as trustworthy as whoever may connect to this server.
 */
export function httpHeaders(request: IipRequest): Record<string, readonly string[]> | undefined {
  const text = request.query.get(HEADER_PARAM)
  if (text === null) return undefined
  try {
    return JSON.parse(Buffer.from(text, 'base64url').toString()) as Record<string, readonly string[]>
  } catch {
    return undefined
  }
}
