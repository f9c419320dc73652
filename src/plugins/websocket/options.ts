/** The options of a `WebSocketProtocol`: their defaults, and the checks that turn mistakes into sentences. */
import { constants } from 'node:buffer'
import type { HeaderFields } from '../../http1/index.js'
import {
  type Connection,
  checkFunction,
  checkInteger,
  checkOptions,
  ErrorCode,
  type OptionNames,
  RingloopError,
} from '../../index.js'
import { isToken } from './extension-header.js'
import type { WebSocketOut } from './message.js'
import type { UpgradeRequest } from './upgrade-request.js'

/** An answer over plain HTTP, after which the connection is closed. */
export interface HttpAnswer {
  /** Default 200; of a refusal 403. */
  readonly status?: number
  /**
   * `Date` and `Content-Length` are filled in, whatever is said of the latter here; to the options of a `Connection` comes
   * `close`.
   */
  readonly headers?: HeaderFields
  readonly body?: string | Uint8Array
}

/** What may be sent as `permessage-deflate` (RFC 7692). */
export interface DeflateOptions {
  /** Bytes from which on a message is compressed. Default 1024. */
  readonly threshold?: number
  /** zlib's level, 1 (fast) to 9 (small). Default 3. */
  readonly level?: number
  /** zlib's memory level, 1 to 9. Default 8. */
  readonly memLevel?: number
  /** Messages of the server are compressed each by itself. Default `true`; `false` costs up to 32 KiB per connection. */
  readonly serverNoContextTakeover?: boolean
  /** Messages of the client are compressed each by itself. Default `true`; `false` costs up to 32 KiB per connection. */
  readonly clientNoContextTakeover?: boolean
  /** How far back the server's messages may refer, as a power of two: 8 to 15. Default 15. */
  readonly serverMaxWindowBits?: number
  /** The same for the client's messages, where the client can be told. Default 15. */
  readonly clientMaxWindowBits?: number
  /** Large messages that one loop has compressed or inflated in Node's threads at a time. Default 4. */
  readonly concurrency?: number
}

export interface HeartbeatOptions {
  /** Milliseconds of silence (and less than twice as many) after which the peer is sent a ping. */
  readonly interval: number
  /** Milliseconds that it has to send anything then, or it is closed. Default: the interval. */
  readonly timeout?: number
}

/** The client role: for `loop.connect`. */
export interface ClientOptions {
  /** Path and query. Default `/`. */
  readonly path?: string
  /** The `Host` header. Default: the address that was connected to. */
  readonly host?: string
  readonly headers?: Readonly<Record<string, string>>
  /** Subprotocols, the preferred one first. */
  readonly protocols?: readonly string[]
}

export interface WebSocketOptions {
  /** Bytes of a message, all its fragments together, after inflating. Beyond: close code 1009. Default 16 MiB. */
  readonly maxPayload?: number
  /** Default `false`. */
  readonly perMessageDeflate?: boolean | DeflateOptions
  /** A number is the interval; 0 or `false` (default) is none. */
  readonly heartbeat?: number | false | HeartbeatOptions
  /** Milliseconds for the handshake, `verify` included; then 408. Default 10 s. */
  readonly handshakeTimeout?: number
  /** Milliseconds that the peer has to answer a close frame. Default 10 s. */
  readonly closeHandshakeTimeout?: number
  /** Bytes of the request's head. Beyond: 431. Default 16 KiB. */
  readonly maxHeaderBytes?: number
  /** Field lines of the request's head. Beyond: 431. Default 100. */
  readonly maxHeaders?: number
  /**
   * Called for each correct opening request: `true` lets it in, `false` refuses it with 403, an answer with that. What
   * the client sends meanwhile waits. A throw or rejection is logged and answered with 500.
   */
  readonly verify?: (
    request: UpgradeRequest,
    c: Connection<WebSocketOut>,
  ) => boolean | HttpAnswer | Promise<boolean | HttpAnswer>
  /**
   * The subprotocols that are spoken here: the first one of the client's is taken that is in the list; or a function
   * that takes one. Without one in common there is none, and it is up to the client to go on.
   */
  readonly protocols?:
    | readonly string[]
    | ((offered: readonly string[], request: UpgradeRequest) => string | undefined)
  /** Answers a plain HTTP request; `undefined` is 426. The connection is closed after the answer. */
  readonly onRequest?: (
    request: UpgradeRequest,
    c: Connection<WebSocketOut>,
  ) => HttpAnswer | undefined | Promise<HttpAnswer | undefined>
  /** Makes this the protocol of a client. Then `verify`, `onRequest` and the top-level `protocols` have no use. */
  readonly client?: ClientOptions
}

/** `DeflateOptions` with everything filled in. */
export type DeflateSettings = Required<DeflateOptions>

/** `WebSocketOptions` with everything filled in. */
export interface WebSocketSettings {
  readonly maxPayload: number
  readonly deflate: DeflateSettings | undefined
  /** 0: none. */
  readonly heartbeatInterval: number
  readonly heartbeatTimeout: number
  readonly handshakeTimeout: number
  readonly closeHandshakeTimeout: number
  readonly maxHeaderBytes: number
  readonly maxHeaders: number
  readonly verify: WebSocketOptions['verify']
  readonly protocols: WebSocketOptions['protocols']
  readonly onRequest: WebSocketOptions['onRequest']
  readonly client: (Required<Omit<ClientOptions, 'host'>> & { readonly host: string | undefined }) | undefined
}

const OPTIONS = {
  maxPayload: true,
  perMessageDeflate: true,
  heartbeat: true,
  handshakeTimeout: true,
  closeHandshakeTimeout: true,
  maxHeaderBytes: true,
  maxHeaders: true,
  verify: true,
  protocols: true,
  onRequest: true,
  client: true,
} as const satisfies OptionNames<WebSocketOptions>

const DEFLATE = {
  threshold: true,
  level: true,
  memLevel: true,
  serverNoContextTakeover: true,
  clientNoContextTakeover: true,
  serverMaxWindowBits: true,
  clientMaxWindowBits: true,
  concurrency: true,
} as const satisfies OptionNames<DeflateOptions>

const HEARTBEAT = { interval: true, timeout: true } as const satisfies OptionNames<HeartbeatOptions>

const CLIENT = {
  path: true,
  host: true,
  headers: true,
  protocols: true,
} as const satisfies OptionNames<ClientOptions>

const MIB = 1024 * 1024

function fail(message: string): never {
  throw new RingloopError(ErrorCode.OPTION, message)
}

/** Throws `ERR_RINGLOOP_OPTION`. */
export function webSocketSettings(options: WebSocketOptions): WebSocketSettings {
  checkOptions('WebSocketProtocol', options, OPTIONS)
  const { heartbeat = 0 } = options
  if (typeof heartbeat === 'object') checkOptions('heartbeat', heartbeat, HEARTBEAT)
  const beat = typeof heartbeat === 'object' ? heartbeat : { interval: heartbeat === false ? 0 : heartbeat }
  const interval = checkInteger('heartbeat', beat.interval, 0)
  return {
    maxPayload: Math.min(checkInteger('maxPayload', options.maxPayload, 16 * MIB, 1), constants.MAX_LENGTH),
    deflate: checkDeflate(options.perMessageDeflate),
    heartbeatInterval: interval,
    heartbeatTimeout: checkInteger('heartbeat.timeout', beat.timeout, interval),
    handshakeTimeout: checkInteger('handshakeTimeout', options.handshakeTimeout, 10_000, 1),
    closeHandshakeTimeout: checkInteger('closeHandshakeTimeout', options.closeHandshakeTimeout, 10_000, 1),
    maxHeaderBytes: checkInteger('maxHeaderBytes', options.maxHeaderBytes, 16 * 1024, 1),
    maxHeaders: checkInteger('maxHeaders', options.maxHeaders, 100, 1),
    verify: checkFunction('verify', options.verify),
    protocols: checkProtocols(options.protocols),
    onRequest: checkFunction('onRequest', options.onRequest),
    client: options.client === undefined ? undefined : checkClient(options.client),
  }
}

function checkProtocols(protocols: WebSocketOptions['protocols']): WebSocketOptions['protocols'] {
  if (protocols === undefined || typeof protocols === 'function') return protocols
  return checkNames(protocols)
}

function checkNames(names: readonly string[]): readonly string[] {
  const wrong = names.find((name) => !isToken(name))
  return wrong === undefined ? names : fail(`the subprotocol '${wrong}' is not a token of HTTP`)
}

function checkDeflate(option: WebSocketOptions['perMessageDeflate']): DeflateSettings | undefined {
  if (option === undefined || option === false) return undefined
  const given = option === true ? {} : option
  checkOptions('perMessageDeflate', given, DEFLATE)
  return {
    threshold: checkInteger('perMessageDeflate.threshold', given.threshold, 1024),
    level: checkInteger('perMessageDeflate.level', given.level, 3, 1, 9),
    memLevel: checkInteger('perMessageDeflate.memLevel', given.memLevel, 8, 1, 9),
    serverNoContextTakeover: given.serverNoContextTakeover ?? true,
    clientNoContextTakeover: given.clientNoContextTakeover ?? true,
    serverMaxWindowBits: checkInteger(
      'perMessageDeflate.serverMaxWindowBits',
      given.serverMaxWindowBits,
      15,
      8,
      15,
    ),
    clientMaxWindowBits: checkInteger(
      'perMessageDeflate.clientMaxWindowBits',
      given.clientMaxWindowBits,
      15,
      8,
      15,
    ),
    concurrency: checkInteger('perMessageDeflate.concurrency', given.concurrency, 4, 1),
  }
}

/** Visible Latin-1, with blanks in header values only. */
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/
const TARGET = /^\/[\x21-\x7e]*$/

function checkClient(client: ClientOptions): NonNullable<WebSocketSettings['client']> {
  checkOptions('client', client, CLIENT)
  const { path = '/', host, headers = {}, protocols = [] } = client
  if (!TARGET.test(path)) fail(`client.path must begin with / and be percent-encoded, not '${path}'`)
  for (const [name, value] of Object.entries({ ...headers, host: host ?? '' })) {
    if (!isToken(name) || !HEADER_VALUE.test(value)) fail(`client.headers: '${name}' cannot be sent`)
  }
  return { path, host, headers, protocols: checkNames(protocols) }
}
