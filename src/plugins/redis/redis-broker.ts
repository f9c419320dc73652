/** Brings topics to other processes over Redis. It owns one connection at a time. The server's thread only. */
import {
  type Broker,
  type BrokerHost,
  type BrokerPosition,
  ErrorCode,
  type KeptMessages,
  RingloopError,
} from '../../index.js'
import { addressOf, createRedisClient, destroyRedisClient } from './redis-client.js'
import { type ConnectionOwner, RedisConnection } from './redis-connection.js'
import { RedisHistory } from './redis-history.js'
import { type RedisBrokerOptions, type RedisSettings, redisSettings } from './redis-options.js'

/** ms until the first attempt to connect again; each further one takes twice as long, up to the second. */
const MIN_DELAY_MS = 50
const MAX_DELAY_MS = 2000

/**
 * Given to a server as its option `broker`; one for each server. The constructor throws `ERR_RINGLOOP_OPTION`; `start` rejects
 * with `ERR_RINGLOOP_CONNECT` and a sentence that says what to change. Needs the package `@redis/client` and Redis 7.0 or later.
 */
export class RedisBroker implements Broker {
  readonly name = 'redis'
  readonly history: { readonly prefix: string } | undefined
  readonly #options: RedisBrokerOptions
  readonly #settings: RedisSettings
  readonly #address: string
  readonly #owner: ConnectionOwner
  readonly #wanted: Set<string> = new Set()
  #host: BrokerHost | undefined
  #connection: RedisConnection | undefined
  #isStopped = false
  #retry: NodeJS.Timeout | undefined
  /** Attempts to connect again that have failed, one after the other, and what the last one said. */
  #failures = 0
  #complaint = ''

  constructor(options: RedisBrokerOptions = {}) {
    this.#settings = redisSettings(options)
    this.#options = { ...options }
    this.history = this.#settings.history && { prefix: this.#settings.history.prefix }
    const client = createRedisClient(options, this.#settings.connectTimeout)
    this.#address = addressOf(client)
    destroyRedisClient(client)
    this.#owner = {
      wanted: this.#wanted,
      joined: (topics) => this.#host!.joined(topics),
      message: (topic, bytes) => this.#deliver(topic, bytes),
      ended: (joined, reason) => this.#lost(joined, reason),
    }
  }

  async start(host: BrokerHost): Promise<void> {
    if (this.#host !== undefined) {
      throw new RingloopError(ErrorCode.STATE, 'a RedisBroker is for one server: make one for each')
    }
    this.#host = host
    try {
      await this.#connect()
    } catch (error) {
      this.#isStopped = true
      throw error
    }
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    clearTimeout(this.#retry)
    this.#connection?.close()
  }

  subscribe(topics: readonly string[]): void {
    const added = topics.filter((topic) => !this.#wanted.has(topic))
    for (const topic of added) this.#wanted.add(topic)
    this.#connection?.change(added)
  }

  unsubscribe(topics: readonly string[]): void {
    this.#connection?.change(topics.filter((topic) => this.#wanted.delete(topic)))
  }

  async publish(topic: string, bytes: Uint8Array): Promise<BrokerPosition | undefined> {
    const connection = this.#open()
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    if (this.#isKept(topic)) return connection.history!.publish(topic, buffer)
    await connection.publish(topic, buffer)
    return undefined
  }

  async read(topic: string, since: BrokerPosition | undefined): Promise<KeptMessages> {
    const { history } = this.#open()
    if (history !== undefined) return history.read(topic, since)
    throw new RingloopError(ErrorCode.STATE, 'this RedisBroker keeps nothing: it has no option history')
  }

  #open(): RedisConnection {
    if (this.#connection?.isOpen === true) return this.#connection
    throw new RingloopError(ErrorCode.CLOSED, `there is no connection to Redis at ${this.#address}`)
  }

  #isKept(topic: string): boolean {
    return this.history !== undefined && topic.startsWith(this.history.prefix)
  }

  #deliver(topic: string, bytes: Buffer): void {
    if (!this.#isKept(topic)) {
      this.#host!.message(topic, bytes)
      return
    }
    const kept = RedisHistory.unwrap(bytes)
    // What has no place is a stranger's, and the host sees to those.
    if (kept === undefined) this.#host!.message(topic, bytes)
    else this.#host!.message(topic, kept.bytes, kept.position)
  }

  async #connect(): Promise<void> {
    this.#connection = new RedisConnection(this.#options, this.#settings, this.#owner)
    await this.#connection.open()
  }

  #lost(joined: readonly string[], reason: string): void {
    this.#complaint = ''
    this.#failures = 0
    this.#connectLater()
    this.#host!.parted(joined, reason)
  }

  #connectLater(): void {
    const delay = Math.min(MAX_DELAY_MS, MIN_DELAY_MS * 2 ** Math.min(this.#failures, 30))
    // Servers that lost the same Redis at the same time do not all come back at the same time.
    this.#retry = setTimeout(() => void this.#connectAgain(), delay * (0.75 + Math.random() / 4))
  }

  async #connectAgain(): Promise<void> {
    try {
      await this.#connect()
    } catch (error) {
      if (this.#isStopped) return
      this.#complain((error as Error).message)
      this.#failures++
      this.#connectLater()
      return
    }
    if (!this.#isStopped) this.#host!.joined([])
  }

  /** Said once for as long as it stays the same. */
  #complain(message: string): void {
    if (message === this.#complaint) return
    this.#complaint = message
    this.#host!.logger.warn({}, message)
  }
}
