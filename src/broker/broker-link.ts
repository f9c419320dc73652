/**
 * A server's end of its broker. It asks for the topics that have subscribers here, frames and numbers what is published
 * here, gives the loops what comes from elsewhere, and tells them of what was lost. Owns the broker. The server's thread
 * only.
 *
 * Without history a message is with the subscribers here before it goes to the broker (*`threads/loop-threads.ts`* sees to
 * that), and this server's own frames are not listened to. With history it goes to the broker first, and reaches the
 * subscribers here when it comes back, in its place among those of the others.
 */
import { randomBytes } from 'node:crypto'
import type { Broker, BrokerHost, BrokerPosition, KeptMessages } from '../broker.js'
import { ErrorCode, RingloopError, toError } from '../errors.js'
import type { Gap } from '../handler.js'
import type { Logger } from '../log.js'
import { LogLimit } from '../log-limit.js'
import { NOTHING_SENT } from '../loop/broadcast-result.js'
import type { Publication, PublisherConnection } from '../loop/publication.js'
import { type CaughtUp, hasHistory, NOT_CAUGHT_UP, type RemoteTopics } from '../loop/remote-topics.js'
import type { Relay } from '../loop/topics.js'
import type { BroadcastResult } from '../loop.js'
import { decodeFrame, encodeFrame, type Frame } from './frame.js'
import { InFlight } from './in-flight.js'
import { KeptFeed } from './kept-feed.js'
import { parsePosition } from './position.js'
import { RemoteTopic } from './remote-topic.js'
import { Sequences } from './sequences.js'
import { SharedReads } from './shared-reads.js'
import { BrokerCounters, type BrokerStats } from './stats.js'
import { WantedTopics } from './wanted-topics.js'

/** Strangers' messages are logged so often. */
const STRANGER_LOG_MS = 60_000

/** Brokers that were started, which can be done once. */
const USED = new WeakSet<Broker>()

/** The loops, as the link sees them. */
export interface LinkedLoops {
  /** To the subscribers of every loop. */
  deliver(publication: Publication): Promise<BroadcastResult>
  /** To the handler of every loop that has subscribers. */
  tellGap(topic: string, gap: Gap): void
}

export class BrokerLink {
  readonly #broker: Broker
  readonly #logger: Logger
  readonly #timeout: number
  readonly #id = randomBytes(8).toString('hex')
  readonly #topics = new Map<string, RemoteTopic>()
  readonly #wanted = new WantedTopics((wanted, unwanted) => this.#want(wanted, unwanted))
  readonly #sequences = new Sequences()
  readonly #inFlight: InFlight
  readonly #reads: SharedReads
  readonly #counters: BrokerCounters
  readonly #strangers: LogLimit = new LogLimit(STRANGER_LOG_MS)
  readonly #failures: LogLimit = new LogLimit()
  #loops: LinkedLoops | undefined
  #isAway = false
  #isStopped = false
  #stopping: Promise<void> | undefined

  /** `timeout`: within so many ms the engine is to answer. */
  constructor(broker: Broker, logger: Logger, timeout: number) {
    this.#broker = broker
    this.#logger = logger
    this.#timeout = timeout
    this.#counters = new BrokerCounters(broker.name)
    const onSilence = (): void =>
      logger.error({ broker: broker.name }, `the broker ${broker.name} has not answered within ${timeout} ms`)
    this.#inFlight = new InFlight(broker.name, timeout, onSilence)
    this.#reads = new SharedReads(broker, new InFlight(broker.name, timeout, onSilence))
  }

  /** Rejects with `ERR_RINGLOOP_BROKER`. Until the loops are {@link connectTo | known} nothing is wanted. */
  async start(): Promise<void> {
    const { name } = this.#broker
    if (USED.has(this.#broker)) {
      throw new RingloopError(ErrorCode.STATE, `the broker ${name} is in use: each server needs its own`)
    }
    USED.add(this.#broker)
    try {
      await this.#broker.start(this.#host())
    } catch (error) {
      throw new RingloopError(
        ErrorCode.BROKER,
        `the broker ${name} did not start: ${toError(error).message}`,
        error,
      )
    }
  }

  /** For the one loop of a server that runs in its own thread. */
  forLoop(id: number): { readonly relay: Relay; readonly remoteTopics: RemoteTopics } {
    const { historyPrefix } = this
    return {
      relay: (publication) => this.publish(publication),
      remoteTopics: {
        historyPrefix,
        want: (topic, isWanted) => this.want(id, topic, isWanted),
        catchUp: (topic, since) => this.catchUp(topic, since),
      },
    }
  }

  connectTo(loops: LinkedLoops): void {
    this.#loops = loops
  }

  /** Waits for the broker's own end. A second call gives the same promise. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  async #stop(): Promise<void> {
    this.#isStopped = true
    this.#inFlight.stop()
    this.#reads.stop()
    for (const topic of this.#topics.values()) topic.leave()
    this.#topics.clear()
    try {
      await this.#broker.stop()
    } catch (error) {
      this.#logger.error({ err: error, broker: this.#broker.name }, 'the broker did not stop')
    }
  }

  get stats(): BrokerStats {
    return this.#counters.snapshot(!this.#isAway && !this.#isStopped, this.#topics.size)
  }

  // ---- from the loops ------------------------------------------------------------------------------------------------

  /** Which topics have history: those that begin with it. */
  get historyPrefix(): string | undefined {
    return this.#broker.history?.prefix
  }

  keeps(topic: string): boolean {
    return hasHistory(this.historyPrefix, topic)
  }

  /** A loop's first subscriber has come, or its last one has gone. */
  want(loop: number, topic: string, isWanted: boolean): void {
    this.#wanted.set(loop, topic, isWanted)
  }

  loopGone(loop: number): void {
    this.#wanted.loopGone(loop)
  }

  /** To the subscribers of this process, which `deliver` brings it to, and to other machines; see {@link publish}. */
  async spread(publication: Publication, deliver: () => Promise<BroadcastResult>): Promise<BroadcastResult> {
    if (this.keeps(publication.topic)) return this.publish(publication)
    const [here] = await Promise.all([deliver(), this.publish(publication)])
    return here
  }

  /**
   * To the other machines. Of a topic without history the subscribers here have it already: resolves with nothing sent when the engine
   * has it. Of one with history it resolves with what was done here. Rejects with `ERR_RINGLOOP_BROKER` where the engine is away
   * or does not answer, with `ERR_RINGLOOP_PACKET` where `out` cannot be cloned.
   */
  async publish({ topic, out, options, publisher }: Publication): Promise<BroadcastResult> {
    const frame = {
      publisher: this.#id,
      sequence: this.#sequences.next(topic),
      out,
      slow: options.slow ?? 'drop',
    }
    const bytes = encodeFrame(frame)
    if (this.keeps(topic)) return this.#publishKept(topic, frame, bytes, publisher)
    await this.#give(topic, bytes)
    return NOTHING_SENT
  }

  async #publishKept(
    topic: string,
    { sequence }: Frame,
    bytes: Uint8Array,
    publisher: PublisherConnection | undefined,
  ): Promise<BroadcastResult> {
    const remote = this.#topics.get(topic)
    const echo = remote?.echoes.expect(sequence, publisher)
    let position: BrokerPosition | undefined
    try {
      position = await this.#give(topic, bytes)
    } catch (error) {
      remote?.echoes.giveUp(sequence)
      throw error
    }
    if (remote?.awaits(position) !== true) remote?.echoes.giveUp(sequence)
    return echo ?? NOTHING_SENT
  }

  async #give(topic: string, bytes: Uint8Array): Promise<BrokerPosition | undefined> {
    try {
      if (this.#isAway || this.#isStopped) throw this.#away()
      const position = await this.#inFlight.run(bytes.length, () => this.#broker.publish(topic, bytes))
      this.#counters.published++
      return position
    } catch (error) {
      this.#counters.rejected++
      throw this.#asBrokerError(topic, error)
    }
  }

  #away(): RingloopError {
    return new RingloopError(ErrorCode.BROKER, `the broker ${this.#broker.name} is away`)
  }

  /** That it is away or silent was logged once; what else it has against a publication is logged here. */
  #asBrokerError(topic: string, error: unknown): RingloopError {
    if (error instanceof RingloopError && error.code === ErrorCode.BROKER) return error
    const { name } = this.#broker
    const message = `the broker ${name} did not take it: ${toError(error).message}`
    const leftOut = this.#failures.admitError(topic, error)
    if (leftOut !== undefined && !this.#isAway) {
      this.#logger.error({ broker: name, topic, leftOut }, message)
    }
    return new RingloopError(ErrorCode.BROKER, message, error)
  }

  /**
   * For a new subscriber, whose loop holds back for it what comes meanwhile: waits until messages come, and reads what is kept
   * after `since`. It never waits for a broker that is away. Never rejects.
   */
  async catchUp(topic: string, since: string | undefined): Promise<CaughtUp> {
    const remote = await this.#live(topic)
    if (remote === undefined) return NOT_CAUGHT_UP
    if (remote.feed === undefined) return { ...NOT_CAUGHT_UP, recovered: since === undefined }
    const position = since === undefined ? undefined : parsePosition(since)
    try {
      const kept = await this.#reads.read(topic, position)
      return {
        position: kept.position,
        messages: position === undefined ? [] : this.#decodeAll(topic, kept),
        recovered: since === undefined || (position !== undefined && kept.recovered),
      }
    } catch (error) {
      this.#logFailure(topic, error)
      return NOT_CAUGHT_UP
    }
  }

  /** The topic once messages of it come; `undefined` where that takes too long, or cannot be. */
  async #live(topic: string): Promise<RemoteTopic | undefined> {
    // What the loop has said of its subscribers is told to the broker at the end of this tick.
    await new Promise((resolve) => process.nextTick(resolve))
    const remote = this.#topics.get(topic)
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      remote?.changed()
    }, this.#timeout).unref()
    while (remote?.isLive === false && !isLate && !this.#isAway && this.#topics.get(topic) === remote) {
      await remote.change()
    }
    clearTimeout(timer)
    return remote?.isLive === true ? remote : undefined
  }

  #decodeAll(topic: string, { messages }: KeptMessages): CaughtUp['messages'] {
    const all: { out: unknown; offset: number }[] = []
    for (const { bytes, offset } of messages) {
      const frame = this.#decode(topic, bytes)
      if (frame !== undefined) all.push({ out: frame.out, offset })
    }
    return all
  }

  // ---- from the broker -----------------------------------------------------------------------------------------------

  #host(): BrokerHost {
    return {
      logger: this.#logger,
      message: (topic, bytes, position) => this.#message(topic, bytes, position),
      joined: (topics) => this.#joined(topics),
      parted: (topics, reason) => this.#parted(topics, reason),
    }
  }

  #want(wanted: readonly string[], unwanted: readonly string[]): void {
    if (this.#isStopped) return
    for (const name of unwanted) {
      this.#topics.get(name)?.leave()
      this.#topics.delete(name)
    }
    for (const name of wanted) this.#topics.set(name, this.#remoteTopic(name))
    if (unwanted.length > 0) this.#broker.unsubscribe(unwanted)
    if (wanted.length > 0) this.#broker.subscribe(wanted)
  }

  #remoteTopic(name: string): RemoteTopic {
    const topic = new RemoteTopic(name, this.#isAway)
    if (this.keeps(name)) {
      topic.feed = new KeptFeed({
        read: (since) => this.#reads.read(name, since),
        deliver: (bytes, position) => this.#deliverKept(topic, bytes, position),
        gap: (gap) => {
          topic.giveUpEchoes()
          this.#tellGap(name, gap)
        },
        changed: () => topic.changed(),
        readFailed: (error) => this.#logFailure(name, error),
      })
    }
    return topic
  }

  #joined(names: readonly string[]): void {
    if (this.#isStopped) return
    if (this.#isAway) {
      this.#isAway = false
      this.#logger.info({ broker: this.#broker.name }, `the broker ${this.#broker.name} is back`)
    }
    for (const name of names) {
      const topic = this.#topics.get(name)
      if (topic === undefined || topic.isJoined) continue
      topic.isJoined = true
      if (topic.hasLost) this.#tellGap(name, { missed: undefined, reason: 'broker-away' })
      // One that has a place in the history catches up by itself from now on.
      topic.hasLost = false
      topic.feed?.joined()
      topic.changed()
    }
  }

  #parted(names: readonly string[], reason: string): void {
    if (this.#isStopped) return
    if (!this.#isAway) {
      this.#isAway = true
      const { name } = this.#broker
      this.#logger.error({ broker: name, reason }, `the broker ${name} is away: ${reason}`)
    }
    for (const name of names) this.#topics.get(name)?.leave()
    for (const topic of this.#topics.values()) {
      topic.hasLost = topic.feed?.hasBegun !== true
      topic.changed()
    }
  }

  #message(name: string, bytes: Uint8Array, position: BrokerPosition | undefined): void {
    const topic = this.#topics.get(name)
    // What comes too early would stand before the gap that it comes after.
    if (topic?.isJoined !== true || this.#isStopped) return
    if (topic.feed === undefined) this.#deliver(topic, bytes)
    else if (position === undefined) this.#countStranger(name)
    else topic.feed.message(bytes, position)
  }

  #deliver(topic: RemoteTopic, bytes: Uint8Array): void {
    const { name } = topic
    const frame = this.#decode(name, bytes)
    if (frame === undefined || frame.publisher === this.#id) return
    const missed = topic.watch.see(frame.publisher, frame.sequence)
    if (missed > 0) this.#tellGap(name, { missed, reason: 'unpublished' })
    this.#counters.received++
    void this.#toLoops({ topic: name, out: frame.out, options: { slow: frame.slow }, isRemote: true })
  }

  #deliverKept(topic: RemoteTopic, bytes: Uint8Array, position: BrokerPosition): void {
    const { name } = topic
    const frame = this.#decode(name, bytes)
    if (frame === undefined) return
    const echo = frame.publisher === this.#id ? topic.echoes.take(frame.sequence) : undefined
    this.#counters.received++
    const sent = this.#toLoops({
      topic: name,
      out: frame.out,
      options: { slow: frame.slow },
      position,
      publisher: echo?.publisher,
      isRemote: true,
    })
    echo?.resolve(sent)
  }

  /** What a protocol here cannot pack another machine could: that is logged, and the publisher there does not hear of it. */
  async #toLoops(publication: Publication): Promise<BroadcastResult> {
    try {
      return (await this.#loops?.deliver(publication)) ?? NOTHING_SENT
    } catch (error) {
      this.#logFailure(publication.topic, error)
      return NOTHING_SENT
    }
  }

  #tellGap(topic: string, gap: Gap): void {
    this.#counters.gaps++
    this.#counters.missed += gap.missed ?? 0
    this.#loops?.tellGap(topic, gap)
  }

  #decode(topic: string, bytes: Uint8Array): Frame | undefined {
    const frame = decodeFrame(bytes)
    if (frame === undefined) this.#countStranger(topic)
    return frame
  }

  #countStranger(topic: string): void {
    this.#counters.strangers++
    const leftOut = this.#strangers.admit('')
    if (leftOut === undefined) return
    const { name } = this.#broker
    this.#logger.warn(
      { broker: name, topic, leftOut },
      `a message of the broker ${name} is not from ringloop: dropped`,
    )
  }

  #logFailure(topic: string, error: unknown): void {
    if (this.#isStopped) return
    const leftOut = this.#failures.admitError(topic, error)
    if (leftOut === undefined) return
    this.#logger.error(
      { err: error, broker: this.#broker.name, topic, leftOut },
      'what came over the broker could not be used',
    )
  }
}
