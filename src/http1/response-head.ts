/**
 * Heads of answers (RFC 9112, section 4; RFC 9110, sections 6.4 and 15): the one writer for all that answer HTTP, so that
 * nothing which a client sent and a handler passes on can write a field of its own. Called on any thread, keeps nothing.
 */
import { STATUS_CODES } from 'node:http'
import { ErrorCode, RingloopError } from '../errors.js'
import { isFieldName, isFieldValue, isStatus, listOf } from './fields.js'

/** A list makes one line for each; `undefined` none. */
export type HeaderValue = string | number | readonly string[] | undefined

/** An object, or pairs: a `Map`, a `Headers`. */
export type HeaderFields =
  | Readonly<Record<string, HeaderValue>>
  | Iterable<readonly [name: string, value: HeaderValue]>

/** What {@link wholeResponse} writes. */
export interface WholeResponse {
  /** 200 to 599. */
  readonly status: number
  /** `Content-Length` is filled in, whatever is said of it here; to the options of a `Connection` comes `close`. */
  readonly headers?: HeaderFields | undefined
  readonly body?: string | Uint8Array | undefined
}

const NO_CONTENT = 204
const RESET_CONTENT = 205
const NOT_MODIFIED = 304

/** What a header name means here; other fields are only sent. */
const SPECIAL: ReadonlySet<string> = new Set([
  'content-length',
  'content-type',
  'transfer-encoding',
  'connection',
  'date',
])

/** The length of a body in chunks, and of one that ends with its connection. */
export const CHUNKED = -1
export const UNKNOWN = -2

/** The head of one answer. Throws `ERR_RINGLOOP_PACKET` for what cannot be part of it. */
export class ResponseHead {
  /** The `Content-Length` that was given; {@link UNKNOWN} without one. */
  length: number = UNKNOWN
  /** The `Connection` that was given says `close`. */
  close = false
  /** Whatever was asked, there is no body: 204, 205, 304. */
  readonly bodyless: boolean
  readonly #status: number
  #lines: string
  /** Of `Connection`, but for what is the writer's to say. */
  #options = ''
  #hasDate = false
  #hasType = false

  /** `status`: 200 to 599. */
  constructor(status: number, headers: HeaderFields | undefined) {
    this.#lines = statusLine(status)
    this.#status = status
    this.bodyless = status === NO_CONTENT || status === RESET_CONTENT || status === NOT_MODIFIED
    if (headers === undefined) return
    if (Symbol.iterator in headers) {
      for (const pair of headers as Iterable<unknown>) {
        if (!isPair(pair)) throw unsendable('a header that is no pair of a name and a value')
        this.#add(pair[0], pair[1])
      }
    } else {
      for (const name of Object.keys(headers)) this.#add(name, headers[name])
    }
  }

  /**
   * All of it with the empty line: what was given, and what follows from the answer. `length` is of the body, in bytes,
   * or one of the above; `date` a line with its end.
   */
  text(
    body: unknown,
    length: number,
    connection: '' | 'close' | 'keep-alive',
    date: string = dateLine(),
  ): string {
    let text = this.#lines
    if (!this.#hasDate) text += date
    if (!this.#hasType && !this.bodyless) text += typeLine(body)
    text += this.#framing(length)
    const options = joined(this.#options, connection)
    return options === '' ? `${text}\r\n` : `${text}Connection: ${options}\r\n\r\n`
  }

  #framing(length: number): string {
    // Only of 204 and 304 clients know without it that nothing follows.
    if (this.#status === RESET_CONTENT) return 'Content-Length: 0\r\n'
    if (this.bodyless || length === UNKNOWN) return ''
    return length === CHUNKED ? 'Transfer-Encoding: chunked\r\n' : `Content-Length: ${length}\r\n`
  }

  #add(name: string, value: HeaderValue): void {
    const meaning = checkName(name)
    if (value === undefined) return
    switch (meaning) {
      case 'content-length':
        if (!/^\d{1,15}$/.test(String(value))) throw unsendable(`the content-length ${value}`)
        this.length = Number(value)
        return
      case 'transfer-encoding':
        throw unsendable('a transfer-encoding, which is chosen by the body,')
      case 'content-type':
        this.#hasType = true
        break
      case 'date':
        this.#hasDate = true
    }
    if (Array.isArray(value)) for (const each of value) this.#addLine(name, meaning, each)
    else this.#addLine(name, meaning, typeof value === 'number' ? String(value) : value)
  }

  #addLine(name: string, meaning: string, value: unknown): void {
    if (!isFieldValue(value)) throw unsendable(`the value of the header ${name}`)
    if (meaning === 'connection') this.#addOptions(value)
    else this.#lines += `${name}: ${value}\r\n`
  }

  /** Whether the connection is kept is not only the handler's to say, so `keep-alive` is left out. */
  #addOptions(list: string): void {
    for (const option of listOf(list)) {
      if (!isFieldName(option)) throw unsendable(`the connection option ${JSON.stringify(option)}`)
      const lower = option.toLowerCase()
      if (lower === 'close') this.close = true
      else if (lower !== 'keep-alive') this.#options = joined(this.#options, option)
    }
  }
}

function isPair(pair: unknown): pair is [name: string, value: HeaderValue] {
  return Array.isArray(pair) && pair.length === 2
}

/** Two lists as one. */
function joined(one: string, other: string): string {
  if (one === '' || other === '') return one + other
  return `${one}, ${other}`
}

/** Names that were checked already, as they were written, with what they mean: services use few. */
const checkedNames: Map<string, string> = new Map()
const MAX_CHECKED_NAMES = 512

function checkName(name: string): string {
  const known = checkedNames.get(name)
  if (known !== undefined) return known
  if (!isFieldName(name)) throw unsendable(`the header name ${JSON.stringify(name)}`)
  const lower = name.toLowerCase()
  const meaning = SPECIAL.has(lower) ? lower : ''
  if (checkedNames.size < MAX_CHECKED_NAMES) checkedNames.set(name, meaning)
  return meaning
}

/** `STATUS_LINES[200]`, made when first needed. */
const STATUS_LINES: string[] = []

/** With its line end. Throws `ERR_RINGLOOP_PACKET` for what is no status from 200 to 599. */
function statusLine(status: number): string {
  checkStatus(status)
  STATUS_LINES[status] ??= `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n`
  return STATUS_LINES[status]
}

/** Throws `ERR_RINGLOOP_PACKET` for what is no status from 200 to 599. */
export function checkStatus(status: number): void {
  if (!isStatus(status)) throw unsendable(`the status ${String(status)}`)
}

function dateLine(): string {
  return `Date: ${new Date().toUTCString()}\r\n`
}

/** Where nobody says what a string or bytes are. */
function typeLine(body: unknown): string {
  if (typeof body === 'string') return 'Content-Type: text/plain;charset=utf-8\r\n'
  return body instanceof Uint8Array ? 'Content-Type: application/octet-stream\r\n' : ''
}

/**
 * The bytes of an answer that is the last one of its connection. `method` is that of the request: HEAD gets the head alone.
 * Throws `ERR_RINGLOOP_PACKET` for what cannot stand in it.
 */
export function wholeResponse({ status, headers, body = '' }: WholeResponse, method = 'GET'): Buffer {
  if (typeof body !== 'string' && !(body instanceof Uint8Array))
    throw unsendable('a body that is no string and no bytes')
  const head = new ResponseHead(status, headers)
  const bytes = typeof body === 'string' ? Buffer.from(body) : body
  const text = Buffer.from(head.text(body, bytes.length, 'close'), 'latin1')
  return method === 'HEAD' || head.bodyless ? text : Buffer.concat([text, bytes])
}

/** The bytes of a plain answer that ends the connection. `method` is that of the request, where it is known. */
export function errorResponse(status: number, message = '', method?: string): Buffer {
  return wholeResponse({ status, body: message }, method)
}

/** Throws `ERR_RINGLOOP_PACKET` for what a handler may have taken for an answer: an object has a status, headers or a body. */
export function checkAnswer(given: unknown): void {
  if (typeof given !== 'object' || given === null) throw unsendable(`a ${typeof given}`)
  const { status, headers, body } = given as Partial<WholeResponse>
  if (status === undefined && headers === undefined && body === undefined) {
    throw unsendable('an object without status, headers and body')
  }
}

/** What a handler gave cannot be sent: its fault. */
export function unsendable(what: string): RingloopError {
  return new RingloopError(ErrorCode.PACKET, `${what} cannot be part of an HTTP answer`)
}
