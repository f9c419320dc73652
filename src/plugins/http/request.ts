/** A request as a handler sees it, and what its head says about the bytes that follow (RFC 9112, section 6). */
import {
  CHUNKED,
  checkHost,
  elementsOf,
  type HeaderMap,
  HttpError,
  listOf,
  type RequestHead,
} from '../../http1/index.js'
import { allocateBuffer } from '../../index.js'
import type { HttpSettings } from './options.js'

/** How the body of a request comes, and what becomes of its connection. */
export interface Framing {
  /** Bytes, or `CHUNKED`. */
  readonly length: number
  readonly keepAlive: boolean
  /** The client waits for `100 Continue` before it sends the body. */
  readonly expectsContinue: boolean
  /** HTTP/1.1, kept alive, not HEAD: an answer needs nothing special. */
  readonly plain: boolean
}

/** On memory that no handler can transfer away from the others. */
const NO_BODY = allocateBuffer(0)

/** One request. It belongs to the handler and may be kept. */
export interface HttpRequest {
  readonly head: RequestHead
  /** The whole body; empty where there is none and where it is streamed. */
  readonly body: Buffer
  /** With `streamBody`: the body as it comes. What is not read of it is thrown away once the request is answered. */
  readonly stream: AsyncIterable<Buffer> | undefined
  readonly method: string
  /** As sent; see `path` and `query`. */
  readonly target: string
  /** The target up to the `?`, percent-encoded as sent. */
  readonly path: string
  /** What comes after the `?`, for `new URLSearchParams(request.query)`; `''` without one. */
  readonly query: string
  readonly version: '1.1' | '1.0'
  /** Host and port that are asked for: of the target, where it has them, else the `Host` field; HTTP/1.0 may say nothing. */
  readonly host: string | undefined
  readonly headers: HeaderMap
  /**
   * Aborted when the client leaves before it has its whole answer, and whenever else the connection ends before; its
   * `reason` is an `ERR_RINGLOOP_CLOSED`. Made when it is first asked for.
   */
  readonly signal: AbortSignal
  /** The body as UTF-8. */
  text(): string
  /** The body as JSON. Throws an `HttpError` 400 where it is none. */
  json(): unknown
}

/** Until the head has been looked at. */
const UNREAD: Framing = { length: 0, keepAlive: false, expectsContinue: false, plain: false }

/** A request and how it came. */
export class IncomingRequest implements HttpRequest {
  readonly head: RequestHead
  body: Buffer = NO_BODY
  stream: AsyncIterable<Buffer> | undefined = undefined
  framing: Framing = UNREAD
  /** The reason alone where the client has left and nobody has asked for the signal. */
  #left: AbortController | Error | undefined = undefined

  constructor(head: RequestHead) {
    this.head = head
  }

  get method(): string {
    return this.head.method
  }

  get target(): string {
    return this.head.target
  }

  get path(): string {
    return this.head.path
  }

  get query(): string {
    return this.head.query
  }

  get version(): '1.1' | '1.0' {
    return this.head.version
  }

  get host(): string | undefined {
    return this.head.host
  }

  get headers(): HeaderMap {
    return this.head.headers
  }

  get signal(): AbortSignal {
    const left = this.#left
    if (left instanceof AbortController) return left.signal
    const controller = new AbortController()
    if (left !== undefined) controller.abort(left)
    this.#left = controller
    return controller.signal
  }

  /** The answer is wanted no longer. */
  leave(reason: Error): void {
    if (this.#left instanceof AbortController) this.#left.abort(reason)
    else this.#left ??= reason
  }

  text(): string {
    return this.body.toString()
  }

  json(): unknown {
    try {
      return JSON.parse(this.body.toString())
    } catch {
      throw new HttpError(400, 'the body is not JSON')
    }
  }
}

const DIGITS = /^\d+$/
const NEEDS_LENGTH: ReadonlySet<string> = new Set(['POST', 'PUT', 'PATCH'])

/** Throws {@link HttpError}: 400 for what could be read in two ways, 411, 413, 417, 501. */
export function framingOf(head: RequestHead, settings: HttpSettings): Framing {
  const { headers, method, version } = head
  checkHost(head)
  if (method === 'CONNECT') throw new HttpError(501, 'CONNECT is not served here')
  const isLatest = version === '1.1'
  const keepAlive = keepsAlive(headers.get('connection'), isLatest)
  const length = bodyLength(head, settings)
  const expectsContinue = isLatest && expects(headers.get('expect'))
  return {
    length,
    keepAlive,
    expectsContinue: expectsContinue && length !== 0,
    plain: isLatest && keepAlive && method !== 'HEAD',
  }
}

function keepsAlive(connection: string | undefined, isLatest: boolean): boolean {
  if (connection === undefined) return isLatest
  if (connection === 'keep-alive') return true
  const options = listOf(connection.toLowerCase())
  if (options.includes('close')) return false
  return isLatest || options.includes('keep-alive')
}

function bodyLength({ headers, method, version }: RequestHead, settings: HttpSettings): number {
  const coding = headers.get('transfer-encoding')
  const text = headers.get('content-length')
  if (coding !== undefined) {
    if (text !== undefined) throw new HttpError(400, 'both Transfer-Encoding and Content-Length')
    if (version === '1.0') throw new HttpError(400, 'a Transfer-Encoding in HTTP/1.0')
    checkCoding(coding)
    return CHUNKED
  }
  if (text === undefined) {
    if (settings.requireLength && NEEDS_LENGTH.has(method)) throw new HttpError(411, 'no Content-Length')
    return 0
  }
  // Where it is repeated there is a comma in it.
  if (!DIGITS.test(text)) throw new HttpError(400, 'no valid Content-Length')
  const length = Number(text)
  if (length > settings.maxBodyBytes) throw tooLarge(settings.maxBodyBytes)
  return length
}

function checkCoding(value: string): void {
  const codings = elementsOf(value.toLowerCase())
  if (codings.length === 1 && codings[0] === 'chunked') return
  const last = codings.indexOf('chunked')
  const isMalformed = codings.includes('') || (last !== -1 && last < codings.length - 1)
  if (isMalformed) throw new HttpError(400, 'no valid Transfer-Encoding')
  throw new HttpError(501, 'a Transfer-Encoding other than chunked')
}

function expects(expect: string | undefined): boolean {
  if (expect === undefined) return false
  if (expect.toLowerCase() === '100-continue') return true
  throw new HttpError(417, 'an Expect other than 100-continue')
}

export function tooLarge(limit: number): HttpError {
  return new HttpError(413, `the body is longer than maxBodyBytes (${limit})`)
}
