/**
 * One connection to Redis, from its opening to its end, after which a broker makes another: commands and messages both go
 * over it. It owns its client and the timer that asks whether Redis is there. The server's thread only.
 */
import { ErrorCode, RingloopError } from '../../index.js'
import { addressOf, createRedisClient, destroyRedisClient, type RedisClient } from './redis-client.js'
import { RedisHistory } from './redis-history.js'
import type { RedisBrokerOptions, RedisSettings } from './redis-options.js'
import { checkServer, failureSentence } from './redis-server.js'
import { RedisSubscriptions, type SubscriptionsOwner } from './redis-subscriptions.js'

/** Who has a connection: the broker. */
export interface ConnectionOwner extends Omit<SubscriptionsOwner, 'prefix'> {
  /** It was open and has ended by itself, after which it tells nothing; `joined` were the topics that it had. */
  ended(joined: readonly string[], reason: string): void
}

export class RedisConnection implements SubscriptionsOwner {
  readonly history: RedisHistory | undefined
  readonly #client: RedisClient
  readonly #subscriptions: RedisSubscriptions
  readonly #settings: RedisSettings
  readonly #owner: ConnectionOwner
  readonly #aborter: AbortController = new AbortController()
  readonly #failed: Promise<never>
  #fail!: (error: Error) => void
  #state: 'opening' | 'open' | 'ended' = 'opening'
  #timer: NodeJS.Timeout | undefined
  /** Nothing has come since Redis was asked whether it is there. */
  #isSilent = false

  constructor(options: RedisBrokerOptions, settings: RedisSettings, owner: ConnectionOwner) {
    this.#settings = settings
    this.#owner = owner
    this.#client = createRedisClient(options, settings.connectTimeout, this.#aborter.signal)
    this.#subscriptions = new RedisSubscriptions(this.#client, this)
    this.history = settings.history && new RedisHistory(this.#client, settings.prefix, settings.history)
    this.#failed = new Promise((_resolve, reject) => {
      this.#fail = reject
    })
    this.#failed.catch(() => {})
    this.#client.on('error', (error: Error) => this.#end(error))
  }

  get isOpen(): boolean {
    return this.#state === 'open'
  }

  get prefix(): string {
    return this.#settings.prefix
  }

  get wanted(): ReadonlySet<string> {
    return this.#owner.wanted
  }

  /** Resolves when everything can be used; rejects with a sentence that says what to change, and is over then. Once. */
  async open(): Promise<void> {
    const { connectTimeout, pingInterval } = this.#settings
    const late = `it has not answered within ${connectTimeout} ms`
    const deadline = setTimeout(() => this.#end(new Error(late)), connectTimeout)
    try {
      await Promise.race([this.#connect(), this.#failed])
      // It may have been closed since the last answer.
      if (this.#state === 'ended') await this.#failed
    } catch (error) {
      this.close()
      const sentence = failureSentence(error as Error, addressOf(this.#client))
      throw new RingloopError(ErrorCode.CONNECT, sentence, error)
    } finally {
      clearTimeout(deadline)
    }
    this.#state = 'open'
    this.#timer = setInterval(() => this.#ask(), pingInterval)
    this.change(this.#owner.wanted)
  }

  /** These have become wanted, or are not wanted any more. */
  change(topics: Iterable<string>): void {
    if (!this.isOpen) return
    this.#subscriptions.change(topics).catch((error: Error) => this.#end(error))
  }

  /** Resolves when Redis has it; rejects when the connection ends. */
  async publish(topic: string, bytes: Buffer): Promise<void> {
    await this.#client.sendCommand(['PUBLISH', this.prefix + topic, bytes])
  }

  /** Every command that waits is rejected; the owner is told nothing more. */
  close(): void {
    this.#state = 'ended'
    clearInterval(this.#timer)
    destroyRedisClient(this.#client)
    // A client that is destroyed while it connects goes on connecting.
    this.#aborter.abort()
    this.#fail(new Error('it was closed'))
  }

  joined(topics: readonly string[]): void {
    if (this.isOpen) this.#owner.joined(topics)
  }

  message(topic: string, bytes: Buffer): void {
    this.#isSilent = false
    if (this.isOpen) this.#owner.message(topic, bytes)
  }

  async #connect(): Promise<void> {
    await this.#client.connect()
    await checkServer(this.#client, this.#settings)
    await this.history?.load()
  }

  /** A connection whose other side is gone without a word is like one on which nothing happens. */
  #ask(): void {
    if (this.#isSilent) {
      // Where this thread was held up the answer may have come, and is read before an immediate is called.
      setImmediate(() => {
        if (this.#isSilent) this.#end(new Error(`it has not answered for ${this.#settings.pingInterval} ms`))
      })
      return
    }
    this.#isSilent = true
    // Ahead of what waits to be written.
    this.#client.sendCommand(['PING'], { asap: true }).then(
      () => {
        this.#isSilent = false
      },
      () => {},
    )
  }

  #end(error: Error): void {
    if (this.#state === 'ended') return
    const wasOpen = this.isOpen
    this.#fail(error)
    this.close()
    if (wasOpen) this.#owner.ended(this.#subscriptions.joined, error.message)
  }
}
