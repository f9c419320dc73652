/**
 * The options of TLS: their types, their checks, and which of them the native poller can do. Plain values that can be
 * cloned into threads, but for what only the `net` poller knows. Pure.
 */
import { randomBytes } from 'node:crypto'
import type { ConnectionOptions, TlsOptions } from 'node:tls'
import { checkInteger } from './check-integer.js'
import { ErrorCode, RingloopError } from './errors.js'
import { MAX_HANDSHAKES } from './loop/poller/poller.js'

/** A certificate of its own for one name. */
export type NamedTlsOptions = Pick<TlsOptions, 'key' | 'cert' | 'passphrase'>

/** The options of `tls.createServer`, and what a server of loops needs beside. */
export interface ServerTlsOptions extends TlsOptions {
  /** By the name that a client asks for (SNI), which may be `*.example.org`: who asks for another gets `key` and `cert`. */
  readonly sni?: Readonly<Record<string, NamedTlsOptions>> | undefined
  /** Handshakes that may be under way at once on one loop; who comes then is closed. Default 16,384. */
  readonly maxHandshakes?: number | undefined
}

/** What both roles can have, natively too. */
const COMMON = [
  'key',
  'cert',
  'ca',
  'passphrase',
  'ciphers',
  'minVersion',
  'maxVersion',
  'ecdhCurve',
  'sigalgs',
  'ALPNProtocols',
  'rejectUnauthorized',
] as const

const NAMED: ReadonlySet<string> = new Set(['key', 'cert', 'passphrase'])

const SERVER: ReadonlySet<string> = new Set([
  ...COMMON,
  'sni',
  'honorCipherOrder',
  'requestCert',
  'sessionTimeout',
  'sessionIdContext',
  'ticketKeys',
  'handshakeTimeout',
  'maxHandshakes',
])

const CLIENT: ReadonlySet<string> = new Set([...COMMON, 'servername'])

/** The first option that the native poller does not know; `undefined` where it can do all. */
export function nonNativeOption(tls: ServerTlsOptions): string | undefined {
  return otherOption(tls, SERVER)
}

/** The same of `connect`. */
export function nonNativeConnectOption(tls: ConnectionOptions): string | undefined {
  return otherOption(tls, CLIENT)
}

function otherOption(tls: object, known: ReadonlySet<string>): string | undefined {
  return Object.entries(tls).find(([name, value]) => value !== undefined && !known.has(name))?.[0]
}

/** What a context of a client is made of: with the same values it is the same context. */
export function contextValues(tls: ConnectionOptions): readonly unknown[] {
  return COMMON.map((name) => tls[name])
}

/** Throws `ERR_RINGLOOP_OPTION` for what is none; ticket keys are the same for all loops, and new where none are given. */
export function checkTlsOptions(tls: ServerTlsOptions): ServerTlsOptions {
  if (typeof tls !== 'object' || tls === null) throw tlsError(`they must be an object, not ${String(tls)}`)
  checkInteger('tls.maxHandshakes', tls.maxHandshakes, MAX_HANDSHAKES, 1)
  checkInteger('tls.sessionTimeout', tls.sessionTimeout, 0, 0, MAX_SESSION_TIMEOUT)
  if (tls.handshakeTimeout !== undefined) checkInteger('tls.handshakeTimeout', tls.handshakeTimeout, 0)
  if (tls.sni !== undefined) checkNames(tls.sni)
  return { ...tls, ticketKeys: tls.ticketKeys ?? randomBytes(TICKET_KEYS) }
}

/** What a name cannot have of its own is refused: with the server's certificate or without a question it would be a trap. */
function checkNames(sni: unknown): void {
  if (typeof sni !== 'object' || sni === null) throw tlsError(`sni: it must be an object, not ${String(sni)}`)
  for (const [name, own] of Object.entries(sni)) {
    const length = Buffer.byteLength(name)
    if (length === 0 || length > MAX_NAME || name.includes('\0')) {
      throw tlsError(`sni: a name has 1 to ${MAX_NAME} bytes, and no NUL`)
    }
    if (typeof own !== 'object' || own === null) throw tlsError(`sni: '${name}' has no key and cert`)
    const other = otherOption(own, NAMED)
    if (other !== undefined) throw tlsError(`sni: '${name}' cannot have ${other} of its own`)
  }
}

/** What is not given stays; but ticket keys are new where none are given. Throws `ERR_RINGLOOP_OPTION`. */
export function replaceTlsOptions(before: ServerTlsOptions, tls: ServerTlsOptions): ServerTlsOptions {
  const { ticketKeys: _old, ...rest } = before
  return checkTlsOptions({ ...rest, ...tls })
}

/** As in `tls.createServer`. */
export const TICKET_KEYS = 48
const MAX_SESSION_TIMEOUT = 2 ** 31 - 1
/** Of the name of a host (RFC 1035, section 2.3.4). */
const MAX_NAME = 255

/** Options of TLS that cannot be used, and why. */
export function tlsError(reason: string, cause?: unknown): RingloopError {
  return new RingloopError(ErrorCode.OPTION, `the options in tls cannot be used: ${reason}`, cause)
}
