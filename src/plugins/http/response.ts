/** Answers: what a handler may return, and the bytes of it (RFC 9112, sections 4–6). Headers are checked for line ends. */
import { STATUS_CODES } from 'node:http'
import { isFieldName, isFieldValue, isStatus } from '../../http1/index.js'
import { ErrorCode, RingloopError } from '../../index.js'
import type { HttpClock } from './clock.js'
import type { IncomingRequest } from './request.js'

/** A part of a streamed body; a string is sent as UTF-8. */
export type BodyPart = Uint8Array | string

export type HeaderValue = string | number | readonly string[]

export interface HttpResponse {
  /** 200 to 599. Default 200. */
  readonly status?: number
  /**
   * A list makes one line for each. `Content-Length`, `Content-Type`, `Date` and `Connection` are filled in;
   * `connection: 'close'` ends the connection, `content-length` is for a stream whose length is known and for answers
   * to HEAD.
   */
  readonly headers?: Readonly<Record<string, HeaderValue>>
  /** A stream is sent in chunks, as fast as the client takes them. */
  readonly body?: Uint8Array | string | AsyncIterable<BodyPart>
}

/** A string and bytes are the body of a `200` with a fitting `Content-Type`, a stream one of unknown type. */
export type HttpOutput = string | Uint8Array | HttpResponse | AsyncIterable<BodyPart>

/** How an answer is sent. */
export interface Plan {
  readonly head: string
  readonly body: Uint8Array | string
  readonly stream: AsyncIterable<BodyPart> | undefined
  readonly chunked: boolean
  /** Bytes that the stream has to have; -1 if unknown. */
  readonly length: number
  readonly close: boolean
}

const TEXT_TYPE = 'Content-Type: text/plain;charset=utf-8\r\n'
const BYTES_TYPE = 'Content-Type: application/octet-stream\r\n'
const UNKNOWN = -1
const NO_CONTENT = 204
const NOT_MODIFIED = 304

/** Throws `ERR_RINGLOOP_PACKET` for what cannot be an answer. */
export function planResponse(
  out: HttpOutput,
  request: IncomingRequest,
  mustClose: boolean,
  clock: HttpClock,
): Plan {
  const response = asResponse(out)
  const { status = 200, body = '' } = response
  if (!isStatus(status)) throw invalid(`the status ${String(status)}`)
  const fields = new Fields(response)
  const isLatest = request.version === '1.1'
  const isHead = request.method === 'HEAD'
  const stream = isStream(body) ? body : undefined
  const bodyless = status === NO_CONTENT || status === NOT_MODIFIED
  const length = lengthOf(body, fields, isHead || bodyless)
  const chunked = stream !== undefined && length === UNKNOWN && isLatest && !bodyless
  const untilClose = stream !== undefined && length === UNKNOWN && !isLatest && !bodyless && !isHead
  const close = mustClose || fields.close || !request.framing.keepAlive || untilClose
  let head = statusLine(status) + fields.lines
  if (!fields.hasDate) head += clock.date
  if (!fields.hasType && !bodyless) head += contentType(response.body)
  if (chunked) head += 'Transfer-Encoding: chunked\r\n'
  else if (length !== UNKNOWN && !bodyless) head += `Content-Length: ${length}\r\n`
  if (close) head += 'Connection: close\r\n'
  else if (!isLatest) head += 'Connection: keep-alive\r\n'
  head += '\r\n'
  if (stream === undefined) {
    const sent = isHead || bodyless ? '' : (body as Uint8Array | string)
    return { head, body: sent, stream, chunked, length, close }
  }
  if (!isHead && !bodyless) return { head, body: '', stream, chunked, length, close }
  endIterator(stream[Symbol.asyncIterator]())
  return { head, body: '', stream: undefined, chunked, length, close }
}

/** Whatever that ends in is nobody's any more. */
export function endIterator(iterator: AsyncIterator<unknown> | undefined): void {
  iterator?.return?.().catch(() => {})
}

function asResponse(out: HttpOutput): HttpResponse {
  if (typeof out === 'string' || out instanceof Uint8Array) return { body: out }
  if (typeof out !== 'object' || out === null) throw invalid(`a ${typeof out}`)
  if (isStream(out)) return { body: out }
  const { status, headers, body } = out
  if (status === undefined && headers === undefined && body === undefined) {
    throw invalid('an object without status, headers and body')
  }
  return out
}

function contentType(body: HttpResponse['body']): string {
  if (typeof body === 'string') return TEXT_TYPE
  return body instanceof Uint8Array ? BYTES_TYPE : ''
}

function isStream(value: object | string): value is AsyncIterable<BodyPart> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value
}

function lengthOf(body: HttpResponse['body'] & {}, fields: Fields, withoutBody: boolean): number {
  if (typeof body !== 'string' && !(body instanceof Uint8Array)) {
    if (isStream(body)) return fields.length
    throw invalid('a body that is no string, no bytes and no stream')
  }
  const length = typeof body === 'string' ? Buffer.byteLength(body) : body.length
  if (fields.length === UNKNOWN || fields.length === length) return length
  if (withoutBody && length === 0) return fields.length
  throw invalid(`a content-length of ${fields.length} for a body of ${length} bytes`)
}

/** `STATUS_LINES[200]`, made when first needed. */
const STATUS_LINES: string[] = []

function statusLine(status: number): string {
  STATUS_LINES[status] ??= `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n`
  return STATUS_LINES[status]
}

/** What a header name means here; other fields are only sent. */
const SPECIAL: ReadonlySet<string> = new Set([
  'content-length',
  'content-type',
  'transfer-encoding',
  'connection',
  'date',
])

/** Names that were checked already, as they were written, with what they mean: services use few. */
const checkedNames: Map<string, string> = new Map()
const MAX_CHECKED_NAMES = 512

function checkName(name: string): string {
  const known = checkedNames.get(name)
  if (known !== undefined) return known
  if (!isFieldName(name)) throw invalid(`the header name ${JSON.stringify(name)}`)
  const lower = name.toLowerCase()
  const meaning = SPECIAL.has(lower) ? lower : ''
  if (checkedNames.size < MAX_CHECKED_NAMES) checkedNames.set(name, meaning)
  return meaning
}

/** The header fields of a response as lines, and what was found among them. */
class Fields {
  lines = ''
  length = UNKNOWN
  close = false
  hasDate = false
  hasType = false

  constructor({ headers }: HttpResponse) {
    if (headers === undefined) return
    for (const name of Object.keys(headers)) this.#add(name, headers[name]!)
  }

  #add(name: string, value: HeaderValue): void {
    switch (checkName(name)) {
      case 'content-length':
        if (!/^\d{1,15}$/.test(String(value))) throw invalid(`the content-length ${value}`)
        this.length = Number(value)
        return
      case 'transfer-encoding':
        throw invalid('a transfer-encoding, which is chosen by the body,')
      case 'connection':
        if (String(value).toLowerCase() === 'close') this.close = true
        return
      case 'content-type':
        this.hasType = true
        break
      case 'date':
        this.hasDate = true
    }
    if (typeof value === 'object') for (const each of value) this.#addLine(name, each)
    else this.#addLine(name, String(value))
  }

  #addLine(name: string, value: string): void {
    if (!isFieldValue(value)) throw invalid(`the value of the header ${name}`)
    this.lines += `${name}: ${value}\r\n`
  }
}

function invalid(what: string): RingloopError {
  return new RingloopError(ErrorCode.PACKET, `${what} cannot be part of an HTTP answer`)
}
