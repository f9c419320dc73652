/** What the options of a {@link NatsBroker} mean to the client of NATS. Pure; messages never show a password. */
import type { ConnectionOptions } from '@nats-io/transport-node'
import {
  checkFunction,
  checkInteger,
  checkOptions,
  ErrorCode,
  type OptionNames,
  RingloopError,
} from '../../index.js'
import type { NatsBrokerOptions } from './options.js'
import { isSubjectPrefix } from './subject.js'

const OPTIONS = {
  servers: true,
  prefix: true,
  connectTimeout: true,
  pingInterval: true,
  minReconnectDelay: true,
  maxReconnectDelay: true,
  name: true,
  user: true,
  pass: true,
  token: true,
  authenticator: true,
  tls: true,
} as const satisfies OptionNames<NatsBrokerOptions>

/** The options, checked. */
export interface NatsSettings {
  /** `host:port` of each, one at least. */
  readonly servers: readonly string[]
  readonly prefix: string
  readonly connectTimeout: number
  readonly minReconnectDelay: number
  readonly maxReconnectDelay: number
  /** For the client of NATS: everything but the server. */
  readonly connection: ConnectionOptions
}

const DEFAULT_SERVER = 'nats://127.0.0.1:4222'
const DEFAULT_PORT = '4222'
const MAX_PINGS_OUT = 2
/** The most that a timer of Node can wait. */
const MAX_MS = 2 ** 31 - 1

/** Throws `ERR_RINGLOOP_OPTION`. */
export function natsSettings(options: NatsBrokerOptions): NatsSettings {
  checkOptions('NatsBroker', options, OPTIONS)
  const { prefix = 'ringloop' } = options
  if (!isSubjectPrefix(prefix)) {
    fail(`prefix must be words of letters, digits, '-', '_' and '$' between dots, not ${String(prefix)}`)
  }
  const number = (name: keyof NatsBrokerOptions, fallback: number, min: number): number =>
    checkInteger(`NatsBroker.${name}`, options[name], fallback, min, MAX_MS)
  const urls = urlsOf(options.servers ?? DEFAULT_SERVER)
  const connectTimeout = number('connectTimeout', 5000, 1)
  return {
    servers: urls.map((url) => `${url.hostname}:${url.port || DEFAULT_PORT}`),
    prefix,
    connectTimeout,
    minReconnectDelay: number('minReconnectDelay', 100, 1),
    maxReconnectDelay: number('maxReconnectDelay', 5000, 1),
    connection: {
      ...credentialsOf(options, urls),
      ...tlsOf(options, urls),
      name: text(options, 'name') ?? 'ringloop',
      timeout: connectTimeout,
      pingInterval: number('pingInterval', 10_000, 1),
      maxPingOut: MAX_PINGS_OUT,
      noEcho: true,
      noAsyncTraces: true,
      // The client would keep what is published while it is away, and send it later.
      reconnect: false,
    },
  }
}

function urlsOf(servers: string | readonly string[]): URL[] {
  const list: readonly unknown[] = Array.isArray(servers) ? servers : [servers]
  if (list.length === 0) fail('servers must name one server at least')
  return list.map(urlOf)
}

function urlOf(server: unknown): URL {
  const url = typeof server === 'string' ? parsed(server) : undefined
  if (url !== undefined && url.hostname !== '' && ['nats:', 'tls:'].includes(url.protocol)) return url
  // It is not shown: it may have a password.
  fail(`servers must be a URL such as '${DEFAULT_SERVER}' or 'tls://user:password@host', or a list of them`)
}

function parsed(server: string): URL | undefined {
  const text = server.includes('://') ? server : `nats://${server}`
  return URL.canParse(text) ? new URL(text) : undefined
}

/** Those of the options, or else of the first URL that has some: a user alone is a token. */
function credentialsOf(options: NatsBrokerOptions, urls: readonly URL[]): ConnectionOptions {
  const [user, pass, token] = [text(options, 'user'), text(options, 'pass'), text(options, 'token')]
  const authenticator = checkFunction('NatsBroker.authenticator', options.authenticator)
  if (authenticator !== undefined) return { authenticator: authenticator as () => undefined }
  if (user !== undefined) return { user, ...(pass !== undefined && { pass }) }
  if (pass !== undefined) fail('pass needs a user')
  if (token !== undefined) return { token }
  const url = urls.find(({ username }) => username !== '')
  if (url === undefined) return {}
  const name = decoded(url.username)
  return url.password === '' ? { token: name } : { user: name, pass: decoded(url.password) }
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    fail("servers has a user or password with a stray '%': write it as '%25'")
  }
}

function tlsOf({ tls }: NatsBrokerOptions, urls: readonly URL[]): Pick<ConnectionOptions, 'tls'> {
  if (tls === undefined) return urls.some(({ protocol }) => protocol === 'tls:') ? { tls: {} } : {}
  if (tls === true) return { tls: {} }
  if (typeof tls !== 'object' || tls === null) fail('tls must be the options of tls.connect, or true')
  return { tls: tls as NonNullable<ConnectionOptions['tls']> }
}

function text(options: NatsBrokerOptions, name: 'name' | 'user' | 'pass' | 'token'): string | undefined {
  const value = options[name]
  if (value === undefined || (typeof value === 'string' && value !== '')) return value
  fail(`${name} must be a string that is not empty`)
}

function fail(message: string): never {
  throw new RingloopError(ErrorCode.OPTION, `NatsBroker.${message}`)
}
