/**
 * One connection to NATS, from when it stands to its end; it never connects again. Owns the connection and its subscriptions.
 * The server's thread only.
 *
 * Core NATS acknowledges nothing, but it answers in order: the PONG to a PING says that all before it has been processed. One
 * PING goes behind all that a tick has published and subscribed to.
 */
import { errors, type NatsConnection, type Status, type Subscription } from '@nats-io/transport-node'
import { type Logger, LogLimit } from '../../index.js'
import { subjectOf } from './subject.js'

/** Whom a link tells. */
export interface LinkHost {
  readonly logger: Logger
  message(topic: string, bytes: Uint8Array): void
  /** The server has processed what was subscribed to in a tick. */
  joined(topics: readonly string[]): void
  /** Once; nothing follows. `joined` are those that were joined. */
  ended(reason: string, joined: readonly string[]): void
}

interface Publication {
  readonly subject: string
  resolve(): void
  reject(error: Error): void
}

/** What is on its way between two PINGs. */
interface Tick {
  readonly publications: Publication[]
  /** Where nothing was subscribed to there is none. */
  subscriptions: (readonly [topic: string, subscription: Subscription])[] | undefined
}

const TOO_MANY_SUBSCRIPTIONS = 'maximum subscriptions exceeded'

export class NatsLink {
  readonly #connection: NatsConnection
  readonly #prefix: string
  readonly #host: LinkHost
  readonly #subscriptions = new Map<string, Subscription>()
  /** Those that the server has processed. */
  readonly #joined = new Set<string>()
  readonly #ticks = new Set<Tick>()
  readonly #failures = new LogLimit()
  /** Subjects that we may not publish to, as was said since the last time that nothing was on its way. */
  readonly #forbidden = new Set<string>()
  readonly #maxPayload: number
  #tick: Tick | undefined
  /** Why it ends, as far as is known. */
  #reason: string | undefined
  /** `host:port` of the servers that the server knows of. */
  siblings: readonly string[] = []

  constructor(connection: NatsConnection, prefix: string, host: LinkHost) {
    this.#connection = connection
    this.#prefix = prefix
    this.#host = host
    this.#maxPayload = connection.info?.max_payload ?? Number.POSITIVE_INFINITY
    this.#findSiblings()
    void this.#watch()
    void connection.closed().then((error) => this.#end(error))
  }

  /** The host is told by `joined`, of none too: then the server has answered. Those that are there already are not told again. */
  subscribe(topics: Iterable<string>): void {
    if (this.#connection.isClosed()) return
    const tick = this.#currentTick()
    tick.subscriptions ??= []
    for (const topic of topics) {
      if (this.#subscriptions.has(topic)) continue
      const subscription = this.#connection.subscribe(subjectOf(this.#prefix, topic), {
        callback: (error, { data }) => {
          if (error !== null) this.#refused(topic, error)
          // A view of what has been read would keep all of it, and it is the host's from now on.
          else this.#host.message(topic, new Uint8Array(data))
        },
      })
      this.#subscriptions.set(topic, subscription)
      tick.subscriptions.push([topic, subscription])
    }
  }

  unsubscribe(topic: string): void {
    this.#subscriptions.get(topic)?.unsubscribe()
    this.#subscriptions.delete(topic)
    this.#joined.delete(topic)
  }

  /** Resolves when the server has it; rejects when it refuses it, and when the connection ends before. */
  publish(topic: string, bytes: Uint8Array): Promise<void> {
    if (bytes.length > this.#maxPayload) {
      const most = `the max_payload of the NATS server is ${this.#maxPayload}`
      return Promise.reject(new Error(`${bytes.length} bytes are too many: ${most}`))
    }
    return new Promise((resolve, reject) => {
      const subject = subjectOf(this.#prefix, topic)
      const { publications } = this.#currentTick()
      this.#connection.publish(subject, bytes)
      publications.push({ subject, resolve, reject })
    })
  }

  /** Resolves when it is closed: the host is told nothing any more but `ended`. */
  async close(reason: string): Promise<void> {
    this.#reason = reason
    await this.#connection.close()
  }

  /** The microtask comes before the one in which the client writes: all of the tick and its PING are one write. */
  #currentTick(): Tick {
    if (this.#tick !== undefined) return this.#tick
    const tick: Tick = { publications: [], subscriptions: undefined }
    this.#tick = tick
    this.#ticks.add(tick)
    queueMicrotask(() => void this.#flush(tick))
    return tick
  }

  async #flush(tick: Tick): Promise<void> {
    this.#tick = undefined
    try {
      await this.#connection.flush()
    } catch {
      return // It is closed: what waits is rejected there.
    }
    // What the server refuses it says before, but that takes a few promises more to get here.
    setImmediate(() => this.#settle(tick))
  }

  #settle(tick: Tick): void {
    if (!this.#ticks.delete(tick)) return
    for (const { subject, resolve, reject } of tick.publications) {
      if (this.#forbidden.has(subject)) reject(new Error(`NATS does not let us publish to '${subject}'`))
      else resolve()
    }
    if (this.#ticks.size === 0) this.#forbidden.clear()
    if (tick.subscriptions === undefined) return
    const topics: string[] = []
    for (const [topic, subscription] of tick.subscriptions) {
      if (this.#subscriptions.get(topic) !== subscription) continue
      this.#joined.add(topic)
      topics.push(topic)
    }
    this.#host.joined(topics)
  }

  /** One that may not be subscribed to, from the start or any more. The next connection tries it again. */
  #refused(topic: string, error: Error): void {
    this.#subscriptions.delete(topic)
    this.#log('a topic cannot be subscribed to', error)
    // There is no other way to say that it does not come any more.
    if (this.#joined.has(topic)) void this.close(error.message)
  }

  async #watch(): Promise<void> {
    for await (const status of this.#connection.status()) this.#see(status)
  }

  #see(status: Status): void {
    if (status.type === 'update') this.#findSiblings()
    else if (status.type === 'error') this.#failed(status.error)
    else if (status.type === 'staleConnection') {
      // The client would wait until what it has to send is written, to a server that reads nothing.
      void this.close(this.#reason ?? 'the server does not answer')
    }
  }

  #failed(error: Error): void {
    if (error instanceof errors.PermissionViolationError) {
      if (error.operation !== 'publish') return
      this.#forbidden.add(error.subject)
      this.#log('a topic cannot be published to', error)
      return
    }
    // Every other one is followed by the end of the connection.
    if (!error.message.toLowerCase().includes(TOO_MANY_SUBSCRIPTIONS)) {
      this.#reason = error.message
      return
    }
    // It does not say which: none of those that it has not confirmed is taken for joined.
    for (const tick of this.#ticks) if (tick.subscriptions !== undefined) tick.subscriptions = []
    this.#log('topics cannot be subscribed to', error)
  }

  #log(what: string, error: Error): void {
    const leftOut = this.#failures.admit(what)
    if (leftOut !== undefined) this.#host.logger.error({ err: error, broker: 'nats', leftOut }, what)
  }

  #findSiblings(): void {
    this.siblings = this.#connection.info?.connect_urls ?? []
  }

  #end(error: Error | void): void {
    // The last one that the server has said may be an old one.
    const failure = error instanceof errors.ProtocolError ? undefined : error?.message
    const reason = this.#reason ?? failure ?? 'the server has ended the connection'
    for (const { publications } of this.#ticks) {
      for (const { reject } of publications) reject(new Error(`the connection to NATS has ended: ${reason}`))
    }
    this.#ticks.clear()
    this.#host.ended(reason, [...this.#joined])
  }
}
