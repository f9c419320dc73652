/**
 * Topics over core NATS: no history, at most once. Knows which topics are wanted, and has one connection at a time, or none
 * while it tries to get one. Belongs to one server and its thread.
 */
import { type Broker, type BrokerHost, ErrorCode, RingloopError } from '../../index.js'
import { Dial } from './dial.js'
import { type LinkHost, NatsLink } from './nats-link.js'
import type { NatsBrokerOptions } from './options.js'
import { type NatsSettings, natsSettings } from './settings.js'

const STOPPED = 'the server stops'

/**
 * For the option `broker` of one server. Connects again for ever, to whichever server answers; while there is no connection
 * `publish` rejects at once. Throws `ERR_RINGLOOP_OPTION`.
 */
export class NatsBroker implements Broker {
  readonly name = 'nats'
  readonly #settings: NatsSettings
  readonly #wanted = new Set<string>()
  #host: BrokerHost | undefined
  #link: NatsLink | undefined
  #dial: Dial | undefined
  #timer: NodeJS.Timeout | undefined
  /** Those of the options, and those that the last server knew of. */
  #servers: readonly string[]
  /** Whose turn it is; not all machines begin with the same one. */
  #turn: number
  /** Attempts since a connection has lasted. */
  #attempts = 0
  #connectedAt = 0
  #isStopped = false

  constructor(options: NatsBrokerOptions = {}) {
    this.#settings = natsSettings(options)
    this.#servers = this.#settings.servers
    this.#turn = Math.floor(Math.random() * this.#servers.length)
  }

  async start(host: BrokerHost): Promise<void> {
    if (this.#host !== undefined) {
      throw new RingloopError(ErrorCode.STATE, 'a NatsBroker is for one server: make one for each')
    }
    this.#host = host
    const failures: Error[] = []
    while (failures.length < this.#servers.length) {
      try {
        return await this.#connect()
      } catch (error) {
        failures.push(error as Error)
      }
    }
    this.#isStopped = true
    if (failures.length === 1) throw failures[0]
    const message = failures.map((failure) => failure.message).join('; ')
    throw new RingloopError(ErrorCode.CONNECT, message, new AggregateError(failures))
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    clearTimeout(this.#timer)
    this.#dial?.abort(new Error(STOPPED))
    await this.#link?.close(STOPPED)
  }

  subscribe(topics: readonly string[]): void {
    for (const topic of topics) this.#wanted.add(topic)
    this.#link?.subscribe(topics)
  }

  unsubscribe(topics: readonly string[]): void {
    for (const topic of topics) {
      this.#wanted.delete(topic)
      this.#link?.unsubscribe(topic)
    }
  }

  async publish(topic: string, bytes: Uint8Array): Promise<undefined> {
    if (this.#link === undefined) throw new Error('there is no connection to NATS')
    await this.#link.publish(topic, bytes)
  }

  /** To the server whose turn it is. Rejects with a sentence. */
  async #connect(): Promise<void> {
    const { connectTimeout, connection, prefix } = this.#settings
    this.#dial = new Dial(this.#servers[this.#turn++ % this.#servers.length]!)
    try {
      const connected = await this.#dial.connect({ ...connection, timeout: connectTimeout })
      this.#link = new NatsLink(connected, prefix, this.#linkHost(this.#host!))
    } finally {
      this.#dial = undefined
    }
    this.#connectedAt = performance.now()
    // The host hears by this that it is back, also where nothing is wanted.
    if (this.#wanted.size > 0 || this.#attempts > 0) this.#link.subscribe(this.#wanted)
  }

  #linkHost(host: BrokerHost): LinkHost {
    return {
      logger: host.logger,
      message: (topic, bytes) => {
        if (!this.#isStopped) host.message(topic, bytes)
      },
      joined: (topics) => {
        if (!this.#isStopped) host.joined(topics)
      },
      ended: (reason, joined) => this.#ended(host, reason, joined),
    }
  }

  #ended(host: BrokerHost, reason: string, joined: readonly string[]): void {
    this.#servers = [...new Set([...this.#settings.servers, ...this.#link!.siblings])]
    this.#link = undefined
    if (this.#isStopped) return
    const { maxReconnectDelay } = this.#settings
    // A server that takes connections and cuts them is not tried faster than one that takes none.
    if (performance.now() - this.#connectedAt >= maxReconnectDelay) this.#attempts = 0
    host.parted(joined, reason)
    this.#connectLater()
  }

  #connectLater(): void {
    const { minReconnectDelay, maxReconnectDelay } = this.#settings
    const pause = Math.min(maxReconnectDelay, minReconnectDelay * 2 ** Math.min(this.#attempts, 30))
    this.#attempts++
    // Machines that lost the same server at the same time do not all come back at the same time.
    this.#timer = setTimeout(() => void this.#connectAgain(), pause * (0.75 + Math.random() / 4))
  }

  async #connectAgain(): Promise<void> {
    try {
      await this.#connect()
    } catch (error) {
      if (this.#isStopped) return
      this.#host!.logger.debug({ err: error, broker: this.name }, 'NATS is still away')
      this.#connectLater()
    }
  }
}
