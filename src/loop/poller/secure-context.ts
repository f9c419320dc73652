/**
 * TLS contexts of the addon, made of the options that Node has for them. What is copied of a key is wiped at once; OpenSSL
 * keeps what it needs until the last connection with the context has ended. The thread of the addon's pollers only.
 */
import { createHash, hkdfSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import tls, { type ConnectionOptions } from 'node:tls'
import {
  contextValues,
  TICKET_KEYS as GIVEN_TICKET_KEYS,
  type ServerTlsOptions,
  tlsError,
} from '../../tls-options.js'
import { ContextBytes, ContextNumber, type NativeAddon, TICKET_KEYS, Verify } from './native-addon.js'

type CommonOptions = Pick<
  ServerTlsOptions,
  'key' | 'cert' | 'ca' | 'passphrase' | 'ciphers' | 'minVersion' | 'maxVersion' | 'ecdhCurve' | 'sigalgs'
> & { readonly ALPNProtocols?: ServerTlsOptions['ALPNProtocols'] | undefined }

/** The numbers of the wire (RFC 8446, section 4.2.1). */
const VERSIONS: Readonly<Record<string, number>> = {
  TLSv1: 0x0301,
  'TLSv1.1': 0x0302,
  'TLSv1.2': 0x0303,
  'TLSv1.3': 0x0304,
}
/** As in Node. */
const SESSION_TIMEOUT_S = 300
const MAX_PROTOCOL_NAME = 255
/** Contexts for `connect` that are kept; a program has few sets of options. */
const MAX_CLIENT_CONTEXTS = 16

/** Why there is no TLS with this addon; `undefined` where there is. */
export function nativeTlsProblem(addon: NativeAddon): string | undefined {
  const context = addon.createContext(false)
  if (typeof context === 'string') return context
  addon.dropContext(context)
  return undefined
}

/** One context while it is made. */
class ContextBuilder {
  readonly id: number
  readonly #addon: NativeAddon

  constructor(addon: NativeAddon, isServer: boolean) {
    const id = addon.createContext(isServer)
    if (typeof id === 'string' || id < 0) throw tlsError(typeof id === 'string' ? id : 'out of memory')
    this.#addon = addon
    this.id = id
  }

  bytes(option: string, what: number, bytes: Uint8Array): void {
    check(option, this.#addon.setContext(this.id, what, bytes))
  }

  /** What is secret is given as a copy, which is wiped. */
  secret(option: string, what: number, copy: Uint8Array): void {
    try {
      this.bytes(option, what, copy)
    } finally {
      copy.fill(0)
    }
  }

  text(option: string, what: number, value: string | undefined): void {
    if (value !== undefined) this.bytes(option, what, bytesOf(option, value))
  }

  number(option: string, what: number, value: number): void {
    check(option, this.#addon.setContextNumber(this.id, what, value))
  }

  name(name: string, other: number): void {
    if (this.#addon.addContextName(this.id, name, other) < 0) throw tlsError('out of memory')
  }

  seal(): void {
    check('key', this.#addon.sealContext(this.id))
  }
}

function check(option: string, problem: string | undefined): void {
  if (problem !== undefined) throw tlsError(`${option}: ${problem}`)
}

function bytesOf(option: string, value: unknown): Uint8Array {
  if (typeof value === 'string') return Buffer.from(value)
  if (value instanceof Uint8Array) return value
  throw tlsError(`${option}: it must be text or bytes, not ${typeof value}`)
}

function copyOf(option: string, value: unknown): Uint8Array {
  return typeof value === 'string' ? Buffer.from(value) : Buffer.from(bytesOf(option, value))
}

function listOf(value: unknown): readonly unknown[] {
  if (value === undefined || value === null) return []
  return Array.isArray(value) ? value : [value]
}

/**
 * A context for accepted sockets; to be given back with `dropContext`. Throws `ERR_RINGLOOP_OPTION` with OpenSSL's words,
 * and keeps nothing then.
 */
export function serverContext(addon: NativeAddon, options: ServerTlsOptions): number {
  return build(addon, true, (context) => {
    const { sni = {}, ...rest } = options
    addCommon(context, rest)
    addServer(context, rest)
    for (const [name, own] of Object.entries(sni).sort(starsLast)) {
      addName(addon, context, name, { ...rest, ...own })
    }
  })
}

/** The first name that fits is taken. */
function starsLast([one]: readonly [string, unknown], [other]: readonly [string, unknown]): number {
  return Number(one.startsWith('*.')) - Number(other.startsWith('*.'))
}

function addName(addon: NativeAddon, context: ContextBuilder, name: string, options: ServerTlsOptions): void {
  const other = serverContext(addon, options)
  try {
    context.name(name, other)
  } finally {
    addon.dropContext(other)
  }
}

function build(addon: NativeAddon, isServer: boolean, fill: (context: ContextBuilder) => void): number {
  const context = new ContextBuilder(addon, isServer)
  try {
    fill(context)
    context.seal()
    return context.id
  } catch (error) {
    addon.dropContext(context.id)
    throw error
  }
}

function addCommon(context: ContextBuilder, options: CommonOptions): void {
  addVersions(context, options)
  addCiphers(context, options.ciphers ?? tls.DEFAULT_CIPHERS)
  const { ecdhCurve = tls.DEFAULT_ECDH_CURVE } = options
  if (ecdhCurve !== 'auto') context.text('ecdhCurve', ContextBytes.GROUPS, ecdhCurve)
  context.text('sigalgs', ContextBytes.SIGALGS, options.sigalgs)
  for (const cert of listOf(options.cert)) context.bytes('cert', ContextBytes.CERT, bytesOf('cert', cert))
  for (const key of listOf(options.key)) addKey(context, key, options.passphrase)
  if (options.ALPNProtocols !== undefined) {
    context.bytes('ALPNProtocols', ContextBytes.ALPN, protocolList(options.ALPNProtocols))
  }
}

function addVersions(context: ContextBuilder, options: CommonOptions): void {
  const { minVersion = tls.DEFAULT_MIN_VERSION, maxVersion = tls.DEFAULT_MAX_VERSION } = options
  context.number('minVersion', ContextNumber.MIN_VERSION, versionNumber('minVersion', minVersion))
  context.number('maxVersion', ContextNumber.MAX_VERSION, versionNumber('maxVersion', maxVersion))
}

function versionNumber(option: string, name: string): number {
  const number = VERSIONS[name]
  if (number === undefined) throw tlsError(`${option}: there is no version '${name}'`)
  return number
}

/** Node has those of TLS 1.3 and the others in one list. */
function addCiphers(context: ContextBuilder, ciphers: unknown): void {
  if (typeof ciphers !== 'string') throw tlsError(`ciphers: it must be text, not ${typeof ciphers}`)
  const all = ciphers.split(':')
  const suites = all.filter((name) => name.startsWith('TLS_'))
  const others = all.filter((name) => !name.startsWith('TLS_'))
  context.text('ciphers', ContextBytes.CIPHER_SUITES, suites.join(':'))
  if (others.length > 0) context.text('ciphers', ContextBytes.CIPHERS, others.join(':'))
  else context.number('ciphers', ContextNumber.MIN_VERSION, VERSIONS['TLSv1.3']!)
}

/** A key is text or bytes, or an object with its own passphrase. */
function addKey(context: ContextBuilder, key: unknown, passphrase: string | undefined): void {
  const { pem, passphrase: own } =
    typeof key === 'object' && key !== null && 'pem' in key
      ? (key as { readonly pem: unknown; readonly passphrase?: string })
      : { pem: key, passphrase: undefined }
  const phrase = own ?? passphrase
  if (phrase !== undefined)
    context.secret('passphrase', ContextBytes.PASSPHRASE, copyOf('passphrase', phrase))
  context.secret('key', ContextBytes.KEY, copyOf('key', pem))
}

/** Each name behind a byte with its length (RFC 7301, section 3.1). Bytes are such a list already. */
function protocolList(protocols: NonNullable<CommonOptions['ALPNProtocols']>): Uint8Array {
  if (!Array.isArray(protocols)) return bytesOf('ALPNProtocols', protocols)
  const names = protocols.map((name: unknown) => bytesOf('ALPNProtocols', name))
  const wrong = names.find(({ length }) => length === 0 || length > MAX_PROTOCOL_NAME)
  if (wrong !== undefined) throw tlsError(`ALPNProtocols: a name has 1 to ${MAX_PROTOCOL_NAME} bytes`)
  return Buffer.concat(names.flatMap((name) => [Uint8Array.of(name.length), name]))
}

function addServer(context: ContextBuilder, options: ServerTlsOptions): void {
  const { requestCert = false, rejectUnauthorized, honorCipherOrder = true, ticketKeys } = options
  context.number('honorCipherOrder', ContextNumber.CIPHER_ORDER, honorCipherOrder ? 1 : 0)
  const { sessionTimeout = SESSION_TIMEOUT_S } = options
  context.number('sessionTimeout', ContextNumber.TIMEOUT, sessionTimeout)
  context.bytes('sessionIdContext', ContextBytes.SESSION_CONTEXT, sessionContext(options))
  if (ticketKeys !== undefined)
    context.secret('ticketKeys', ContextBytes.TICKETS, expandTicketKeys(ticketKeys))
  if (!requestCert) return
  context.number(
    'requestCert',
    ContextNumber.VERIFY,
    rejectUnauthorized === false ? Verify.OPTIONAL : Verify.REQUIRED,
  )
  addTrusted(context, options.ca)
}

/** OpenSSL wants more of them than Node gives. */
function expandTicketKeys(keys: unknown): Uint8Array {
  const given = bytesOf('ticketKeys', keys)
  if (given.length !== GIVEN_TICKET_KEYS) {
    throw tlsError(`ticketKeys: they must be ${GIVEN_TICKET_KEYS} bytes, not ${given.length}`)
  }
  return new Uint8Array(hkdfSync('sha256', given, '', 'ringloop ticket keys', TICKET_KEYS))
}

/** A session is not to be resumed where its client would have been asked for another certificate. */
function sessionContext({
  sessionIdContext,
  ca,
  requestCert,
  rejectUnauthorized,
}: ServerTlsOptions): Uint8Array {
  const hash = createHash('sha256')
  hash.update(JSON.stringify([sessionIdContext, requestCert, rejectUnauthorized]))
  for (const each of listOf(ca)) hash.update(bytesOf('ca', each))
  return hash.digest()
}

function addTrusted(context: ContextBuilder, ca: unknown): void {
  for (const each of ca === undefined ? defaultAuthorities() : listOf(ca)) {
    context.bytes('ca', ContextBytes.CA, bytesOf('ca', each))
  }
}

let authorities: readonly string[] | undefined

/** Those that Node trusts: from 22.15 on it says which, before that they are its own and those of NODE_EXTRA_CA_CERTS. */
function defaultAuthorities(): readonly string[] {
  authorities ??= tlsAuthorities() ?? [...tls.rootCertificates, ...extraAuthorities()]
  return authorities
}

function tlsAuthorities(): readonly string[] | undefined {
  const { getCACertificates } = tls as { readonly getCACertificates?: (type: string) => readonly string[] }
  return getCACertificates?.('default')
}

function extraAuthorities(): readonly string[] {
  const file = process.env.NODE_EXTRA_CA_CERTS
  if (file === undefined || file === '') return []
  try {
    return [readFileSync(file, 'utf8')]
  } catch {
    return [] // Node has warned of it
  }
}

/** The contexts for `connect` of one poller: making one costs milliseconds, for the many certificates that are trusted. */
export class ClientContexts {
  readonly #addon: NativeAddon
  /** The last used at the end. */
  readonly #made: { readonly values: readonly unknown[]; readonly id: number }[] = []

  constructor(addon: NativeAddon) {
    this.#addon = addon
  }

  /** The poller's, until `close`. Throws `ERR_RINGLOOP_OPTION`. */
  get(given: ConnectionOptions): number {
    const options = { ...given, rejectUnauthorized: rejectsUnauthorized(given) }
    const values = contextValues(options)
    const found = this.#made.findIndex((each) => each.values.every((value, i) => value === values[i]))
    const entry =
      found < 0 ? { values, id: clientContext(this.#addon, options) } : this.#made.splice(found, 1)[0]!
    this.#made.push(entry)
    if (this.#made.length > MAX_CLIENT_CONTEXTS) this.#addon.dropContext(this.#made.shift()!.id)
    return entry.id
  }

  close(): void {
    for (const { id } of this.#made.splice(0)) this.#addon.dropContext(id)
  }
}

/** As in Node: only `false` is no, and the variable is read each time. */
function rejectsUnauthorized({ rejectUnauthorized }: ConnectionOptions): boolean {
  return rejectUnauthorized === undefined
    ? process.env.NODE_TLS_REJECT_UNAUTHORIZED !== '0'
    : rejectUnauthorized !== false
}

function clientContext(addon: NativeAddon, options: ConnectionOptions): number {
  return build(addon, false, (context) => {
    addCommon(context, options as CommonOptions)
    context.number(
      'rejectUnauthorized',
      ContextNumber.VERIFY,
      options.rejectUnauthorized === false ? Verify.OPTIONAL : Verify.REQUIRED,
    )
    addTrusted(context, options.ca)
  })
}
