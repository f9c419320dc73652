/**
 * A broker without an engine: servers of one thread that share an exchange, for tests of what is published, lost and caught
 * up with. The thread that made it only.
 */
import { setImmediate as answered } from 'node:timers/promises'
import type { Broker, BrokerHost, BrokerPosition, KeptMessage, KeptMessages } from '../broker.js'
import { checkInteger, checkLimit } from '../check-integer.js'
import { checkOptions, type OptionNames } from '../check-options.js'
import { hasHistory } from '../loop/remote-topics.js'

export interface MemoryExchangeOptions {
  /**
   * Keeps `size` messages of each topic that begins with `prefix` (default: of all), for `ttl` ms after the newest (default: for
   * ever). Default: no history.
   */
  readonly history?: MemoryHistory | undefined
}

interface MemoryHistory {
  readonly size: number
  readonly prefix?: string
  readonly ttl?: number
}

const OPTIONS = { history: true } as const satisfies OptionNames<MemoryExchangeOptions>
const HISTORY = { size: true, prefix: true, ttl: true } as const satisfies OptionNames<MemoryHistory>

/** A broker that is connected: what it wants, and whom it tells. */
interface Attached {
  readonly topics: ReadonlySet<string>
  readonly host: BrokerHost
  /** Of `topics` those that the host was told of. */
  readonly joined: Set<string>
}

interface Log {
  readonly epoch: string
  offset: number
  messages: KeptMessage[]
  newestAt: number
}

/** What stands between brokers: takes the place of the engine. */
export class MemoryExchange {
  readonly history: Required<MemoryHistory> | undefined
  readonly #attached = new Set<Attached>()
  readonly #logs = new Map<string, Log>()
  #epoch = 0
  #isAway = false

  /** Throws `ERR_RINGLOOP_OPTION`. */
  constructor(options: MemoryExchangeOptions = {}) {
    checkOptions('a memory exchange', options, OPTIONS)
    const { history } = options
    if (history === undefined) return
    checkOptions('history', history, HISTORY)
    this.history = {
      size: checkInteger('history.size', history.size, 1, 1),
      prefix: history.prefix ?? '',
      ttl: checkLimit('history.ttl', history.ttl, Number.POSITIVE_INFINITY, 1),
    }
  }

  /** Every broker loses its connection: messages are lost, publications reject, until {@link comeBack}. */
  goAway(reason = 'the exchange is away'): void {
    this.#isAway = true
    for (const { joined, host } of this.#attached) {
      const parted = [...joined]
      joined.clear()
      host.parted(parted, reason)
    }
  }

  comeBack(): void {
    this.#isAway = false
    for (const one of this.#attached) tellJoined(one)
  }

  /** Forgets its history, as an engine that was started anew. */
  clear(): void {
    this.#logs.clear()
  }

  get isAway(): boolean {
    return this.#isAway
  }

  /** The topics that are wanted by somebody. */
  get topics(): ReadonlySet<string> {
    return new Set([...this.#attached].flatMap(({ topics }) => [...topics]))
  }

  attach(one: Attached): void {
    this.#attached.add(one)
  }

  detach(one: Attached): void {
    this.#attached.delete(one)
  }

  publish(topic: string, bytes: Uint8Array): BrokerPosition | undefined {
    const own = Buffer.from(bytes)
    const position = this.#keep(topic, own)
    for (const { joined, host } of this.#attached) if (joined.has(topic)) host.message(topic, own, position)
    return position
  }

  #keep(topic: string, bytes: Uint8Array): BrokerPosition | undefined {
    if (this.history === undefined || !hasHistory(this.history.prefix, topic)) return undefined
    const log = this.#log(topic)
    log.offset++
    log.newestAt = performance.now()
    log.messages.push({ offset: log.offset, bytes })
    if (log.messages.length > this.history.size) log.messages.shift()
    return { epoch: log.epoch, offset: log.offset }
  }

  #log(topic: string): Log {
    let log = this.#logs.get(topic)
    if (log === undefined) {
      this.#epoch++
      log = { epoch: `e${this.#epoch}`, offset: 0, messages: [], newestAt: 0 }
      this.#logs.set(topic, log)
    }
    if (performance.now() - log.newestAt > (this.history?.ttl ?? 0)) log.messages = []
    return log
  }

  read(topic: string, since: BrokerPosition | undefined): KeptMessages {
    const { epoch, offset, messages } = this.#log(topic)
    const position = { epoch, offset }
    if (since === undefined) return { position, messages: [], recovered: true }
    const isSame = since.epoch === epoch && since.offset <= offset
    const after = isSame ? messages.filter((each) => each.offset > since.offset) : [...messages]
    return { position, messages: after, recovered: isSame && after.length === offset - since.offset }
  }
}

/** Of what is joined now and was not before; of nothing too, for it may have been away. */
function tellJoined({ topics, joined, host }: Attached): void {
  const added = [...topics].filter((topic) => !joined.has(topic))
  for (const topic of added) joined.add(topic)
  host.joined(added)
}

export class MemoryBroker implements Broker {
  readonly name = 'memory'
  readonly history: Broker['history']
  readonly #exchange: MemoryExchange
  readonly #topics = new Set<string>()
  #attached: Attached | undefined

  constructor(exchange: MemoryExchange) {
    this.#exchange = exchange
    this.history = exchange.history
  }

  async start(host: BrokerHost): Promise<void> {
    if (this.#exchange.isAway) throw new Error('the exchange is away')
    this.#attached = { topics: this.#topics, host, joined: new Set() }
    this.#exchange.attach(this.#attached)
  }

  async stop(): Promise<void> {
    if (this.#attached !== undefined) this.#exchange.detach(this.#attached)
    this.#attached = undefined
  }

  subscribe(topics: readonly string[]): void {
    for (const topic of topics) this.#topics.add(topic)
    setImmediate(() => {
      if (this.#attached !== undefined && !this.#exchange.isAway) tellJoined(this.#attached)
    })
  }

  unsubscribe(topics: readonly string[]): void {
    for (const topic of topics) {
      this.#topics.delete(topic)
      this.#attached?.joined.delete(topic)
    }
  }

  async publish(topic: string, bytes: Uint8Array): Promise<BrokerPosition | undefined> {
    this.#assertThere()
    const position = this.#exchange.publish(topic, bytes)
    await answered()
    return position
  }

  async read(topic: string, since: BrokerPosition | undefined): Promise<KeptMessages> {
    this.#assertThere()
    const kept = this.#exchange.read(topic, since)
    await answered()
    return kept
  }

  #assertThere(): void {
    if (this.#exchange.isAway || this.#attached === undefined) throw new Error('there is no connection')
  }
}
