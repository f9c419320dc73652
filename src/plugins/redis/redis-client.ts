/**
 * A client of `@redis/client` as a broker needs it: one connection and no more, nothing kept for later. The server's thread
 * only.
 */
import { createClient, type RedisClientOptions, type RedisClientType } from '@redis/client'
import { ErrorCode, RingloopError } from '../../index.js'
import type { RedisBrokerOptions } from './redis-options.js'

const DEFAULT_URL = 'redis://127.0.0.1:6379'

export type RedisClient = RedisClientType
type RedisSocketOptions = NonNullable<RedisClientOptions['socket']>

/**
 * A client that is not connected yet, and whose socket `signal` destroys. Throws `ERR_RINGLOOP_OPTION`; what it says never has
 * a password in it.
 */
export function createRedisClient(
  options: RedisBrokerOptions,
  connectTimeout: number,
  signal?: AbortSignal,
): RedisClient {
  try {
    return newClient(options, connectTimeout, signal)
  } catch (error) {
    // The error underneath may have the URL in it, so it is not passed on.
    const why = (error as Error).message
    throw new RingloopError(
      ErrorCode.OPTION,
      `the options of RedisBroker cannot be used: ${why}; url is written redis://user:password@host:6379/0`,
    )
  }
}

/** Rejects all that waits, and closes the connection. In whatever state it is. */
export function destroyRedisClient(client: RedisClient): void {
  try {
    client.destroy()
  } catch {
    // Before 6.3 it throws, last of all, where the connection was closed by the other side.
  }
}

/** For messages: the path or host and port that the client connects to. */
export function addressOf(client: RedisClient): string {
  const socket: { path?: string | undefined; host?: string | undefined; port?: number | undefined } =
    client.options.socket ?? {}
  return socket.path ?? `${socket.host ?? 'localhost'}:${socket.port ?? 6379}`
}

function newClient(
  options: RedisBrokerOptions,
  connectTimeout: number,
  signal: AbortSignal | undefined,
): RedisClient {
  const { username, password, database, name, socket } = options
  const { url = socket === undefined ? DEFAULT_URL : undefined } = options
  // The sentence that the library has for it would tell the URL, and the password with it.
  if (url !== undefined && socket?.tls !== undefined) {
    throw new TypeError('socket.tls goes without url, a URL that begins with rediss:// is over TLS')
  }
  return createClient({
    ...(url !== undefined && { url }),
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
    ...(database !== undefined && { database }),
    ...(name !== undefined && { name }),
    // A copy, since the library writes into it.
    socket: { ...socket, connectTimeout, signal, reconnectStrategy: false } as RedisSocketOptions,
    RESP: 3,
    disableOfflineQueue: true,
    // A timer for each command, and it would only bound how long one waits to be written.
    commandOptions: { timeout: 0 },
    // It would change to another connection by itself.
    maintNotifications: 'disabled',
  })
}
