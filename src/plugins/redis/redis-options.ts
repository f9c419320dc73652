/** The options of a `RedisBroker`, checked once and filled in. Pure; any thread. */
import type { RedisClientOptions } from '@redis/client'
import { checkInteger, checkOptions, ErrorCode, type OptionNames, RingloopError } from '../../index.js'

/** `username`, `password`, `database`, `name` and `socket` are those of `createClient` of `@redis/client`. */
export interface RedisBrokerOptions
  extends Pick<RedisClientOptions, 'username' | 'password' | 'database' | 'name' | 'socket'> {
  /**
   * Where it is: `redis://user:password@host:6379/0`, `rediss://…` over TLS, `unix:///path`. Default
   * `redis://127.0.0.1:6379`, unless `socket` says it.
   */
  readonly url?: string
  /** Begins the name of each channel and key: servers that have the same share their topics. Default `ringloop:`. */
  readonly prefix?: string
  /** Keeps messages for those who come back. Default: none are kept. */
  readonly history?: RedisHistoryOptions
  /** ms until Redis must have answered to a connection. Default 5000. */
  readonly connectTimeout?: number
  /** ms from one question whether Redis is still there to the next; where two follow without an answer it is gone. Default 10,000. */
  readonly pingInterval?: number
}

/** The same for all servers that share topics. */
export interface RedisHistoryOptions {
  /** Which topics: those whose names begin with it. Default: all. */
  readonly prefix?: string
  /** Messages that are kept of each topic, 1 to 10,000. Default 100. */
  readonly size?: number
  /** ms after the newest message of a topic until all of them are forgotten. Default 300,000. */
  readonly ttl?: number
  /**
   * ms for which the place of a topic outlives its messages, so that who comes back learns that it has missed none, or how many. Then
   * the topic begins anew. Default 86,400,000.
   */
  readonly positionTtl?: number
}

const OPTIONS = {
  url: true,
  username: true,
  password: true,
  database: true,
  name: true,
  socket: true,
  prefix: true,
  history: true,
  connectTimeout: true,
  pingInterval: true,
} as const satisfies OptionNames<RedisBrokerOptions>

const HISTORY_OPTIONS = {
  prefix: true,
  size: true,
  ttl: true,
  positionTtl: true,
} as const satisfies OptionNames<RedisHistoryOptions>

/** Node's timers go no further. */
const MAX_MS = 2 ** 31 - 1
/** What a read may give is bounded by this, and by its bytes. */
const MAX_SIZE = 10_000
/** A century, in ms. */
const MAX_TTL = 3_155_760_000_000

/** The options with everything filled in, but those that are for the client. */
export interface RedisSettings {
  readonly prefix: string
  readonly history: Required<RedisHistoryOptions> | undefined
  readonly connectTimeout: number
  readonly pingInterval: number
}

/** Throws `ERR_RINGLOOP_OPTION`. */
export function redisSettings(options: RedisBrokerOptions): RedisSettings {
  checkOptions('RedisBroker', options, OPTIONS)
  for (const name of ['url', 'username', 'password', 'name'] as const) checkString(name, options[name] ?? '')
  if (typeof (options.socket ?? {}) !== 'object') fail('socket must be an object')
  const { prefix = 'ringloop:', history } = options
  return {
    prefix: checkString('prefix', prefix),
    history: history === undefined ? undefined : historySettings(history),
    connectTimeout: checkInteger('connectTimeout', options.connectTimeout, 5000, 1, MAX_MS),
    pingInterval: checkInteger('pingInterval', options.pingInterval, 10_000, 1, MAX_MS),
  }
}

function historySettings(options: RedisHistoryOptions): Required<RedisHistoryOptions> {
  checkOptions('history', options, HISTORY_OPTIONS)
  const { prefix = '', size, ttl, positionTtl } = options
  return {
    prefix: checkString('history.prefix', prefix),
    size: checkInteger('history.size', size, 100, 1, MAX_SIZE),
    ttl: checkInteger('history.ttl', ttl, 300_000, 1, MAX_TTL),
    positionTtl: checkInteger('history.positionTtl', positionTtl, 86_400_000, 0, MAX_TTL),
  }
}

/** The value is not in the sentence: it may be a password. */
function checkString(name: string, value: unknown): string {
  if (typeof value === 'string') return value
  fail(`${name} must be a string, not ${value === null ? 'null' : typeof value}`)
}

function fail(message: string): never {
  throw new RingloopError(ErrorCode.OPTION, message)
}
