/**
 * Paths as IIP servers read them: what Go's url.Parse and url.ParseQuery make of them, byte for byte, and a cache of the
 * paths that were seen last. Strings in here hold one byte per character ("binary") until they are handed out as UTF-8.
 */

/** What a path asks of the protocol itself. */
export const SysPath = { NONE: 0, NEW_CHANNEL: 1, DELETE_CHANNEL: 2, DRAIN: 3 } as const

const SYS_PATHS: ReadonlyMap<string, number> = new Map([
  ['/sys/new_channel', SysPath.NEW_CHANNEL],
  ['/sys/delete_channel', SysPath.DELETE_CHANNEL],
  ['/sys/drain', SysPath.DRAIN],
])

/** A path that was parsed once; shared by all requests that name it with the same bytes. */
export class ParsedPath {
  /** The bytes as they came, without the NUL. */
  readonly raw: Buffer
  /** Decoded, without query and fragment: what handlers are looked up by. `''` where nothing is left. */
  readonly path: string
  /** `path` as bytes with a NUL behind it: what a response begins with. */
  readonly answer: Buffer
  /** One of {@link SysPath}. */
  readonly sys: number
  readonly #rawQuery: string

  constructor(raw: Buffer) {
    const { path, query } = parsePath(raw.toString('latin1'))
    this.raw = raw
    this.answer = Buffer.from(`${path}\0`, 'latin1')
    this.path = this.answer.toString('utf8', 0, this.answer.length - 1)
    this.sys = sysPath(path)
    this.#rawQuery = query
  }

  /** A new object for each call. */
  get query(): URLSearchParams {
    return new URLSearchParams(parseQuery(this.#rawQuery))
  }
}

/** What handlers are looked up by when somebody asks for `path`. */
export function decodedPath(path: string): string {
  return new ParsedPath(Buffer.from(path)).path
}

/** One of {@link SysPath}, of a decoded path. */
export function sysPath(path: string): number {
  return SYS_PATHS.get(path) ?? SysPath.NONE
}

const SLOTS = 256
/** Longer paths are parsed each time. */
const MAX_CACHED = 512

/** The last paths of a loop, found by their bytes without a string being made. */
export class PathCache {
  readonly #slots = new Array<ParsedPath | undefined>(SLOTS).fill(undefined)
  #last: ParsedPath | undefined = undefined

  /** What `storage[start…end)` says. */
  find(storage: Buffer, start: number, end: number): ParsedPath {
    const last = this.#last
    if (last !== undefined && same(last.raw, storage, start, end)) return last
    const slot = hash(storage, start, end) & (SLOTS - 1)
    let found = this.#slots[slot]
    if (found === undefined || !same(found.raw, storage, start, end)) {
      found = new ParsedPath(Buffer.from(storage.subarray(start, end)))
      if (end - start > MAX_CACHED) return found
      this.#slots[slot] = found
    }
    this.#last = found
    return found
  }
}

function same(raw: Buffer, storage: Buffer, start: number, end: number): boolean {
  if (raw.length !== end - start) return false
  for (let i = 0, at = start; at < end; i++, at++) if (raw[i] !== storage[at]) return false
  return true
}

function hash(storage: Buffer, start: number, end: number): number {
  let value = 0
  for (let at = start; at < end; at++) value = (Math.imul(value, 31) + storage[at]!) | 0
  return value ^ (value >>> 8)
}

interface PathAndQuery {
  readonly path: string
  readonly query: string
}

// Space and below, and DEL: net/url refuses them everywhere.
// biome-ignore lint/suspicious/noControlCharactersInRegex: those are the ones that are looked for
const CONTROL = /[\0-\x1f\x7f]/
const SCHEME = /^[A-Za-z][A-Za-z0-9+.-]*:/
/** User, host or [address], port: as far as net/url checks them. */
const AUTHORITY =
  /^(?:[\w\-.~!$&'()*+,;=:%@]*@)?(?:\[[^\]]*\]|(?:[\w\-.~!$&'()*+,;=<>"\x80-\xff]|%[89A-Fa-f][\dA-Fa-f])*)(?::\d*)?$/

/**
 * What is left of a path without scheme, host, query and fragment. Where Go's parser fails, and where `%00` would put a
 * NUL in the answer, it is the whole of what came, with an empty query.
 */
export function parsePath(raw: string): PathAndQuery {
  return tryParse(raw) ?? { path: raw, query: '' }
}

function tryParse(raw: string): PathAndQuery | undefined {
  if (CONTROL.test(raw)) return undefined
  const hashAt = raw.indexOf('#')
  if (hashAt >= 0 && decodeEscapes(raw.slice(hashAt + 1)) === undefined) return undefined
  const url = hashAt < 0 ? raw : raw.slice(0, hashAt)
  const scheme = SCHEME.exec(url)?.[0] ?? ''
  if (url.startsWith(':')) return undefined
  const rest = url.slice(scheme.length)
  const queryAt = rest.indexOf('?')
  const query = queryAt < 0 ? '' : rest.slice(queryAt + 1)
  const place = localPart(queryAt < 0 ? rest : rest.slice(0, queryAt), scheme)
  const path = place === undefined ? undefined : decodeEscapes(place)
  return path === undefined || path.includes('\0') ? undefined : { path, query }
}

/** Without the host. */
function localPart(place: string, scheme: string): string | undefined {
  if (!place.startsWith('/')) {
    if (scheme !== '') return ''
    return place.split('/', 1)[0]!.includes(':') ? undefined : place
  }
  if (!place.startsWith('//') || (scheme === '' && place.startsWith('///'))) return place
  const slash = place.indexOf('/', 2)
  const authority = slash < 0 ? place.slice(2) : place.slice(2, slash)
  if (!AUTHORITY.test(authority)) return undefined
  return slash < 0 ? '' : place.slice(slash)
}

const BAD_ESCAPE = /%(?![\dA-Fa-f]{2})/
const ESCAPE = /%([\dA-Fa-f]{2})/g

/** `undefined` where a `%` is not followed by two digits. */
function decodeEscapes(text: string): string | undefined {
  if (!text.includes('%')) return text
  if (BAD_ESCAPE.test(text)) return undefined
  return text.replace(ESCAPE, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)))
}

/** Pairs with a semicolon or a bad escape are left out; `+` is a space. */
export function parseQuery(query: string): [string, string][] {
  const pairs: [string, string][] = []
  for (const part of query.split('&')) {
    if (part === '' || part.includes(';')) continue
    const equals = part.indexOf('=')
    const key = queryText(equals < 0 ? part : part.slice(0, equals))
    const value = queryText(equals < 0 ? '' : part.slice(equals + 1))
    if (key !== undefined && value !== undefined) pairs.push([key, value])
  }
  return pairs
}

function queryText(text: string): string | undefined {
  const bytes = decodeEscapes(text.replaceAll('+', ' '))
  return bytes === undefined ? undefined : Buffer.from(bytes, 'latin1').toString()
}
