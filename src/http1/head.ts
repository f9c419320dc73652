/**
 * The head of an HTTP/1.x request (RFC 9112, sections 2–5), for the HTTP plugin and the WebSocket handshake. A parser
 * belongs to one connection and remembers only how far it has looked; a head that it returns owns its memory.
 */
import { ProtocolError } from '../errors.js'
import type { RingBuffer } from '../ringbuffer/ring-buffer.js'
import { checkStatus } from './response-head.js'

/** What a head may take. */
export interface HeadLimits {
  /** Bytes from the request line to the empty line. Beyond: 414 while in the request line, else 431. */
  readonly maxHeaderBytes: number
  /** Field lines. Beyond: 431. */
  readonly maxHeaders: number
}

/** A request that is answered with `status` and after which the connection is closed. */
export class HttpError extends ProtocolError {
  readonly status: number

  /** Throws `ERR_RINGLOOP_PACKET` for what is no status from 200 to 599. */
  constructor(status: number, message: string) {
    super(message)
    checkStatus(status)
    this.status = status
  }
}

const TAB = 0x09
const LF = 0x0a
const CR = 0x0d
const SPACE = 0x20
const ASTERISK = 0x2a
const SLASH = 0x2f
const ZERO = 0x30
const NINE = 0x39
const COLON = 0x3a

/** RFC 9112, section 2.2: some clients send an empty line too many; so many are skipped. */
const MAX_EMPTY_LINES = 4
const MAX_METHOD_LENGTH = 32
const VERSION_LENGTH = 'HTTP/1.1'.length
const INCOMPLETE = -1
const NO_BYTES = new DataView(new ArrayBuffer(0))

/** What a byte may be part of. */
const TOKEN = 1
const VALUE = 2
const TARGET = 4
const KINDS: Uint8Array = byteKinds()
const LOWER: Uint8Array = lowerCase()

function byteKinds(): Uint8Array {
  const kinds = new Uint8Array(256)
  for (let byte = 0x21; byte < 0x7f; byte++) {
    const char = String.fromCharCode(byte)
    kinds[byte] = VALUE
    if (/[\w!#$%&'*+\-.^`|~]/.test(char)) kinds[byte]! |= TOKEN
    // Browsers leave some characters as they are that RFC 3986 wants encoded; these four they never do.
    if (!'"<>#'.includes(char)) kinds[byte]! |= TARGET
  }
  for (let byte = 0x80; byte < 256; byte++) kinds[byte] = VALUE
  kinds[TAB] = VALUE
  kinds[SPACE] = VALUE
  return kinds
}

function lowerCase(): Uint8Array {
  const lower = new Uint8Array(256)
  for (let byte = 0; byte < 256; byte++) lower[byte] = byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte
  return lower
}

/** Offsets into the string for each field line: name, its end, value, its end. */
const STRIDE = 4

/**
 * The field lines of a head, in their order. Values are read as Latin-1 and without the blanks around them. Made by a
 * {@link HeadParser}.
 */
export class HeaderMap implements Iterable<[name: string, value: string]> {
  readonly #text: string
  readonly #offsets: readonly number[]

  /** The parser makes them: four offsets into `text` for each field line. */
  constructor(text: string, offsets: readonly number[]) {
    this.#text = text
    this.#offsets = offsets
  }

  /** Field lines, repeated names counted each time. */
  get size(): number {
    return this.#offsets.length / STRIDE
  }

  has(name: string): boolean {
    return this.#find(name, 0) !== -1
  }

  /** The value; of a repeated field all values joined by `, ` (RFC 9110, section 5.3; `cookie` by `; `). */
  get(name: string): string | undefined {
    const first = this.#find(name, 0)
    if (first === -1) return undefined
    const value = this.#valueAt(first)
    if (this.#find(name, first + STRIDE) === -1) return value
    return this.getAll(name).join(LOWER[name.charCodeAt(0)] === 0x63 && name.length === 6 ? '; ' : ', ')
  }

  /** One value per field line. */
  getAll(name: string): string[] {
    const values: string[] = []
    for (let at = this.#find(name, 0); at !== -1; at = this.#find(name, at + STRIDE)) {
      values.push(this.#valueAt(at))
    }
    return values
  }

  /** Each field line, its name in lower case. */
  *[Symbol.iterator](): IterableIterator<[name: string, value: string]> {
    const offsets = this.#offsets
    for (let at = 0; at < offsets.length; at += STRIDE) {
      const name = this.#text.slice(offsets[at], offsets[at + 1]).toLowerCase()
      yield [name, this.#valueAt(at)]
    }
  }

  #valueAt(at: number): string {
    return this.#text.slice(this.#offsets[at + 2], this.#offsets[at + 3])
  }

  #find(name: string, from: number): number {
    const offsets = this.#offsets
    for (let at = from; at < offsets.length; at += STRIDE) {
      const start = offsets[at]!
      if (offsets[at + 1]! - start === name.length && this.#isAt(start, name)) return at
    }
    return -1
  }

  #isAt(start: number, name: string): boolean {
    const text = this.#text
    for (let i = 0; i < name.length; i++) {
      const code = name.charCodeAt(i)
      if (code > 0xff || LOWER[text.charCodeAt(start + i)] !== LOWER[code]) return false
    }
    return true
  }
}

/**
 * The request line and the header fields, made by a {@link HeadParser}. Never changes, and may be kept: requests that say
 * the same share one through a {@link HeadMemo}, which freezes it.
 */
export class RequestHead {
  /** As sent; methods are case-sensitive. */
  readonly method: string
  /** As sent: origin form (`/path?query`), absolute form, `host:port` of CONNECT, or `*` of OPTIONS. */
  readonly target: string
  /** A later minor version counts as 1.1. */
  readonly version: '1.1' | '1.0'
  readonly headers: HeaderMap

  constructor(method: string, target: string, version: '1.1' | '1.0', headers: HeaderMap) {
    this.method = method
    this.target = target
    this.version = version
    this.headers = headers
  }

  /** The target up to the `?`, percent-encoded as sent, without the scheme and host of an absolute form. */
  get path(): string {
    const start = this.#pathStart()
    const end = this.target.indexOf('?', start)
    return this.target.slice(start, end === -1 ? undefined : end) || '/'
  }

  /** What comes after the first `?`, percent-encoded as sent; `''` without one. */
  get query(): string {
    const at = this.target.indexOf('?')
    return at === -1 ? '' : this.target.slice(at + 1)
  }

  /**
   * Who is asked: the authority of an absolute target, beside which the `Host` field does not count (RFC 9112, section 3.2.2),
   * else that field. {@link checkHost} checks it.
   */
  get host(): string | undefined {
    const end = this.#pathStart()
    return end === 0 ? this.headers.get('host') : this.target.slice(this.target.indexOf('://') + 3, end)
  }

  /** The target is in absolute form. */
  get isAbsolute(): boolean {
    return this.#pathStart() > 0
  }

  #pathStart(): number {
    const { target } = this
    if (target.charCodeAt(0) === SLASH) return 0
    const scheme = target.indexOf('://')
    if (scheme === -1) return 0
    for (let at = scheme + 3; at < target.length; at++) {
      const char = target[at]
      if (char === '/' || char === '?') return at
    }
    return target.length
  }
}

/** Filled while one head is parsed; positions in the storage. */
const fields: number[] = []
let methodEnd = 0
let targetEnd = 0
let minor = 0

/**
 * Remembers the head that was last seen twice in a row: clients that ask for the same again send the same bytes, and
 * comparing them is several times faster than parsing. For all parsers of a thread that have the same limits.
 */
export class HeadMemo {
  /** Bytes of the head that {@link find} looks for. */
  length = 0
  #head: RequestHead | undefined
  #bytes: DataView = NO_BYTES
  #candidate = ''
  /** A window on the storage that was last looked at: the loop reads into the same one again and again. */
  #storage: Uint8Array | undefined
  #window: DataView = NO_BYTES

  find(storage: Buffer, start: number, end: number): RequestHead | undefined {
    const { length } = this
    if (length === 0 || end - start < length) return undefined
    if (storage !== this.#storage) {
      this.#storage = storage
      this.#window = new DataView(storage.buffer, storage.byteOffset, storage.length)
    }
    return isSame(this.#window, start, this.#bytes, length) ? this.#head : undefined
  }

  offer(text: string, head: RequestHead): void {
    if (text !== this.#candidate) {
      this.#candidate = text
      return
    }
    const bytes = new Uint8Array(Buffer.from(text, 'latin1'))
    this.#bytes = new DataView(bytes.buffer)
    Object.freeze(head.headers)
    Object.freeze(head)
    this.#head = head
    this.length = bytes.length
  }
}

function isSame(window: DataView, start: number, bytes: DataView, length: number): boolean {
  let at = 0
  for (; at <= length - 4; at += 4) if (window.getInt32(start + at) !== bytes.getInt32(at)) return false
  for (; at < length; at++) if (window.getInt8(start + at) !== bytes.getInt8(at)) return false
  return true
}

/**
 * Takes one head after another out of a connection's bytes. A head that arrives in many pieces is looked at once as it
 * comes and once when it is whole, so the work stays linear.
 */
export class HeadParser {
  readonly #limits: HeadLimits
  readonly #memo: HeadMemo | undefined
  /** Bytes in which the end of the head is known not to be. */
  #scanned = 0
  #emptyLines = 0

  constructor(limits: HeadLimits, memo?: HeadMemo) {
    this.#limits = limits
    this.#memo = memo
  }

  /** A part of a head has come, the rest has not. */
  get begun(): boolean {
    return this.#scanned > 0
  }

  /**
   * Takes the next head out of `buffer`, or returns `undefined` when it is not yet whole. Throws {@link HttpError}: 400
   * for what the grammar does not allow, 414, 431, 501 for a method that is too long, 505.
   */
  parse(buffer: RingBuffer): RequestHead | undefined {
    if (this.#scanned === 0) {
      this.#skipEmptyLines(buffer)
      if (buffer.isEmpty || (buffer.length === 1 && buffer.byteAt(0) === CR)) return undefined
    }
    if (buffer.contiguous < buffer.length) buffer.linearize()
    const { storage, start } = buffer
    const known = this.#memo?.find(storage, start, start + buffer.length)
    if (known !== undefined) {
      buffer.retrieve(this.#memo!.length)
      this.#scanned = 0
      this.#emptyLines = 0
      return known
    }
    const end = this.#findEnd(buffer, true)
    if (end === INCOMPLETE) return undefined
    const head = makeHead(storage, start, end, this.#memo)
    buffer.retrieve(end - start)
    this.#emptyLines = 0
    return head
  }

  /** As {@link parse}, for the field lines behind a chunked body (RFC 9112, section 7.1.2). */
  parseTrailers(buffer: RingBuffer): HeaderMap | undefined {
    if (buffer.isEmpty) return undefined
    if (buffer.contiguous < buffer.length) buffer.linearize()
    const { storage, start } = buffer
    const end = this.#findEnd(buffer, false)
    if (end === INCOMPLETE) return undefined
    const trailers = makeHeaders(storage.toString('latin1', start, end), start)
    buffer.retrieve(end - start)
    return trailers
  }

  #findEnd(buffer: RingBuffer, isRequest: boolean): number {
    const { storage, start } = buffer
    const { maxHeaderBytes } = this.#limits
    const tooLong = buffer.length > maxHeaderBytes
    const end = start + (tooLong ? maxHeaderBytes : buffer.length)
    let found = INCOMPLETE
    if (this.#scanned === 0 || tooLong || mayEnd(storage, start, start + this.#scanned, end)) {
      const at = isRequest ? parseRequestLine(storage, start, end) : start
      found = parseFields(storage, at, end, this.#limits.maxHeaders)
      if (found === INCOMPLETE && tooLong) throw limitError(storage, start, end, isRequest)
    }
    this.#scanned = found === INCOMPLETE ? buffer.length : 0
    return found
  }

  #skipEmptyLines(buffer: RingBuffer): void {
    while (buffer.length >= 2 && buffer.byteAt(0) === CR && buffer.byteAt(1) === LF) {
      this.#emptyLines++
      if (this.#emptyLines > MAX_EMPTY_LINES)
        throw new HttpError(400, 'too many empty lines before a request')
      buffer.retrieve(2)
    }
  }
}

/** Whether `storage[from…end)` has the empty line, or something that parsing will refuse. */
function mayEnd(storage: Buffer, start: number, from: number, end: number): boolean {
  for (let at = from; at < end; at++) {
    const byte = storage[at]!
    if ((KINDS[byte]! & VALUE) !== 0 || byte === CR) continue
    if (byte !== LF || storage[at - 1] !== CR || at - start < 2 || storage[at - 2] === LF) return true
  }
  return false
}

/** Where the empty line ends; fills the variables above. */
function parseFields(storage: Buffer, start: number, end: number, maxHeaders: number): number {
  let at = start
  fields.length = 0
  while (at !== INCOMPLETE) {
    if (at >= end) return INCOMPLETE
    if (storage[at] === CR) {
      if (at + 1 >= end) return INCOMPLETE
      if (storage[at + 1] === LF) return at + 2
      throw new HttpError(400, 'a CR without LF in the head')
    }
    if (fields.length === maxHeaders * STRIDE)
      throw new HttpError(431, `more than ${maxHeaders} header fields`)
    at = parseField(storage, at, end)
  }
  return INCOMPLETE
}

function parseRequestLine(storage: Buffer, start: number, end: number): number {
  let at = start
  while (at < end && (KINDS[storage[at]!]! & TOKEN) !== 0) at++
  if (at - start > MAX_METHOD_LENGTH) throw new HttpError(501, 'the method is not known here')
  if (at === end) return INCOMPLETE
  if (at === start || storage[at] !== SPACE) throw new HttpError(400, 'no valid method')
  methodEnd = at++
  while (at < end && (KINDS[storage[at]!]! & TARGET) !== 0) at++
  if (at === end) return INCOMPLETE
  if (at === methodEnd + 1 || storage[at] !== SPACE) throw new HttpError(400, 'no valid request target')
  targetEnd = at
  return parseVersion(storage, at + 1, end)
}

const HTTP_1 = Buffer.from('HTTP/1.')

function parseVersion(storage: Buffer, at: number, end: number): number {
  if (end - at < VERSION_LENGTH + 2) {
    for (let i = 0; at + i < end; i++) checkVersion(storage, at, i)
    return INCOMPLETE
  }
  for (let i = 0; i < HTTP_1.length; i++) {
    if (storage[at + i] === HTTP_1[i]) continue
    for (let j = i; j < VERSION_LENGTH + 2; j++) checkVersion(storage, at, j)
    throw new HttpError(505, 'this is not HTTP/1')
  }
  for (let i = HTTP_1.length; i < VERSION_LENGTH + 2; i++) checkVersion(storage, at, i)
  minor = storage[at + VERSION_LENGTH - 1]! - ZERO
  return at + VERSION_LENGTH + 2
}

/** The `i`-th byte of `HTTP/d.d` CR LF. */
function checkVersion(storage: Buffer, at: number, i: number): void {
  const byte = storage[at + i]!
  let right: boolean
  if (i === 5 || i === 7) right = byte >= ZERO && byte <= NINE
  else if (i < VERSION_LENGTH) right = byte === HTTP_1[i]
  else right = byte === (i === VERSION_LENGTH ? CR : LF)
  if (!right) throw new HttpError(400, 'no valid HTTP version')
}

/** Where the next line starts. */
function parseField(storage: Buffer, start: number, end: number): number {
  let at = start
  while (at < end && (KINDS[storage[at]!]! & TOKEN) !== 0) at++
  if (at === end) return INCOMPLETE
  if (at === start || storage[at] !== COLON) throw nameError(storage[at]!, at === start)
  const nameEnd = at++
  while (at < end && (storage[at] === SPACE || storage[at] === TAB)) at++
  const value = at
  while (at < end && (KINDS[storage[at]!]! & VALUE) !== 0) at++
  if (at === end) return INCOMPLETE
  if (storage[at] !== CR) throw valueError(storage[at]!)
  if (at + 1 === end) return INCOMPLETE
  if (storage[at + 1] !== LF) throw new HttpError(400, 'a CR without LF in the head')
  let valueEnd = at
  while (valueEnd > value && (storage[valueEnd - 1] === SPACE || storage[valueEnd - 1] === TAB)) valueEnd--
  fields.push(start, nameEnd, value, valueEnd)
  return at + 2
}

function nameError(byte: number, first: boolean): HttpError {
  if (byte === SPACE || byte === TAB) {
    return new HttpError(400, first ? 'a folded header line' : 'a blank before the colon of a header field')
  }
  if (byte === LF) return new HttpError(400, 'a LF without CR in the head')
  return new HttpError(400, 'no valid name of a header field')
}

function valueError(byte: number): HttpError {
  if (byte === LF) return new HttpError(400, 'a LF without CR in the head')
  return new HttpError(400, 'a control character in a header field')
}

function limitError(storage: Buffer, start: number, end: number, isRequest: boolean): HttpError {
  const inRequestLine = isRequest && storage.subarray(start, end).indexOf(LF) === -1
  const limit = `maxHeaderBytes (${end - start})`
  if (inRequestLine) return new HttpError(414, `the request line is longer than ${limit}`)
  return new HttpError(431, `the head is longer than ${limit}`)
}

function makeHead(storage: Buffer, start: number, end: number, memo: HeadMemo | undefined): RequestHead {
  const text = storage.toString('latin1', start, end)
  const method = methodName(storage, start, text)
  const target = text.slice(methodEnd - start + 1, targetEnd - start)
  checkForm(storage[methodEnd + 1]!, method, target)
  const head = new RequestHead(method, target, minor === 0 ? '1.0' : '1.1', makeHeaders(text, start))
  memo?.offer(text, head)
  return head
}

function makeHeaders(text: string, start: number): HeaderMap {
  const offsets: number[] = fields.slice()
  if (start > 0) for (let i = 0; i < offsets.length; i++) offsets[i]! -= start
  return new HeaderMap(text, offsets)
}

function methodName(storage: Buffer, start: number, text: string): string {
  const length = methodEnd - start
  const first = storage[start]!
  if (length === 3 && first === 0x47 && text.startsWith('GET')) return 'GET'
  return text.slice(0, length)
}

const ABSOLUTE_FORM = /^[a-z][a-z\d+.-]*:\/\/[^/?]/i

/** RFC 9112, section 3.2: which form a target may have. */
function checkForm(first: number, method: string, target: string): void {
  if (method === 'CONNECT' ? !target.includes('/') : first === SLASH) return
  if (first === ASTERISK && target.length === 1 && method === 'OPTIONS') return
  if (method === 'CONNECT' || !ABSOLUTE_FORM.test(target)) throw new HttpError(400, 'no valid request target')
}
