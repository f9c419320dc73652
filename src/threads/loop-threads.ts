/**
 * All loops of a server that has one per thread, and the acceptor that brings them their connections, where they do not
 * listen by themselves. The server's thread only.
 */
import type { BrokerLink, LinkedLoops } from '../broker/broker-link.js'
import { ErrorCode, RingloopError } from '../errors.js'
import type { Gap } from '../handler.js'
import type { Logger } from '../log.js'
import { addResults, NOTHING_SENT } from '../loop/broadcast-result.js'
import type { Endpoint } from '../loop/poller/poller.js'
import type { Publication } from '../loop/publication.js'
import { type CaughtUp, NOT_CAUGHT_UP } from '../loop/remote-topics.js'
import type { SharedStats } from '../loop/stats.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import type { ListenSettings } from '../options.js'
import type { ServerTlsOptions } from '../tls-options.js'
import type { AcceptModeChoice } from './accept-mode.js'
import { type Acceptor, NativeAcceptor, TransferAcceptor } from './acceptor.js'
import type { DeadLoop } from './dead-loop.js'
import { createBalancer } from './load-balance.js'
import { LoopPicker } from './loop-picker.js'
import { LoopThread } from './loop-thread.js'
import type { ServerLoops } from './server-loops.js'
import type { ThreadSetup } from './thread-messages.js'
import type { WorkerOptions } from './worker-options.js'

/** What all of them share. */
export interface LoopThreadsOptions {
  readonly setup: (id: number, endpoint: Endpoint) => ThreadSetup
  readonly worker: WorkerOptions
  readonly settings: ListenSettings
  readonly choice: AcceptModeChoice
  readonly stats: SharedStats
  readonly logger: Logger
  /** What it throws or rejects with is logged. */
  readonly onLoopDied: ((loop: DeadLoop) => unknown) | undefined
  /** To other machines. */
  readonly link: BrokerLink | undefined
}

export class LoopThreads implements ServerLoops, LinkedLoops {
  readonly #options: LoopThreadsOptions
  readonly #threads: LoopThread[] = []
  #acceptor: Acceptor | undefined
  #stopping: Promise<void> | undefined

  constructor(options: LoopThreadsOptions) {
    this.#options = options
  }

  /** Where one loop cannot start it rejects with why, and the others are left to `stop`. */
  start(): Promise<Endpoint> {
    return this.#options.choice.acceptMode === 'listen' ? this.#startListening() : this.#startAccepting()
  }

  /** The first loop chooses the port, the others join it. */
  async #startListening(): Promise<Endpoint> {
    const endpoint = (await this.#addThread(0, this.#options.settings.endpoint).start())!
    await this.#startAll(1, endpoint)
    return endpoint
  }

  async #startAccepting(): Promise<Endpoint> {
    const { settings, choice, stats, logger } = this.#options
    const { loadBalance, maxConnections, endpoint } = settings
    const balancer = createBalancer(loadBalance, (err) =>
      logger.error({ err }, 'the loadBalance function failed'),
    )
    const picker = new LoopPicker(this.#threads, balancer, stats, maxConnections)
    const acceptor =
      choice.acceptMode === 'transfer'
        ? new TransferAcceptor(picker, logger)
        : new NativeAcceptor(picker, logger)
    this.#acceptor = acceptor
    await this.#startAll(0, endpoint)
    return acceptor.listen(endpoint, { ...settings, reusePort: false, park: true })
  }

  #addThread(id: number, endpoint: Endpoint): LoopThread {
    if (this.#stopping !== undefined) throw new RingloopError(ErrorCode.CLOSED, 'the loops are being stopped')
    const { setup, worker, stats, logger } = this.#options
    const thread = new LoopThread(setup(id, endpoint), worker, stats, logger, {
      onReady: () => this.#acceptor?.resume(),
      onPublish: (publication) => this.#publish(publication, thread),
      onWant: (topic, isWanted) => this.#options.link?.want(id, topic, isWanted),
      onCatchUp: (topic, since) => this.#catchUp(topic, since),
      onEnded: () => this.#options.link?.loopGone(id),
      onDied: (loop) => void this.#tellDied(loop),
    })
    this.#threads.push(thread)
    return thread
  }

  async #tellDied(loop: DeadLoop): Promise<void> {
    const { onLoopDied, logger } = this.#options
    try {
      await onLoopDied?.(loop)
    } catch (error) {
      logger.error({ err: error }, 'the onLoopDied function failed')
    }
  }

  async #startAll(first: number, endpoint: Endpoint): Promise<void> {
    const starting: Promise<unknown>[] = []
    for (let id = first; id < this.#options.choice.numLoops; id++) {
      starting.push(this.#addThread(id, endpoint).start())
    }
    await Promise.all(starting)
  }

  stop(drain: number): Promise<void> {
    this.#stopping ??= this.#stop(drain)
    return this.#stopping
  }

  async #stop(drain: number): Promise<void> {
    try {
      this.#acceptor?.stop()
    } catch (error) {
      this.#options.logger.error({ err: error }, 'closing the listener failed')
    }
    await Promise.all(this.#threads.map((thread) => thread.stop(drain)))
  }

  async broadcast(out: unknown, options: BroadcastOptions): Promise<BroadcastResult> {
    const results = await Promise.all(this.#threads.map((thread) => thread.broadcast(out, options)))
    return results.reduce(addResults)
  }

  publish(publication: Publication): Promise<BroadcastResult> {
    return this.#publish(publication, undefined)
  }

  /** The loop that it comes `from` has done its part. */
  #publish(publication: Publication, from: LoopThread | undefined): Promise<BroadcastResult> {
    const { link } = this.#options
    if (link !== undefined && publication.isSpread === true) return link.publish(publication)
    const deliver = (): Promise<BroadcastResult> => this.#deliver(publication, from)
    return link?.spread(publication, deliver) ?? deliver()
  }

  deliver(publication: Publication): Promise<BroadcastResult> {
    return this.#deliver(publication, undefined)
  }

  async #deliver(publication: Publication, from: LoopThread | undefined): Promise<BroadcastResult> {
    const others = this.#threads.filter((thread) => thread !== from)
    const results = await Promise.all(others.map((thread) => thread.publish(publication)))
    return results.reduce(addResults, NOTHING_SENT)
  }

  tellGap(topic: string, gap: Gap): void {
    for (const thread of this.#threads) thread.tellGap(topic, gap)
  }

  async setTls(tls: ServerTlsOptions): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.setTls(tls)))
  }

  async #catchUp(topic: string, since: string | undefined): Promise<CaughtUp> {
    return this.#options.link?.catchUp(topic, since) ?? NOT_CAUGHT_UP
  }

  async subscribers(topic: string): Promise<number> {
    const counts = await Promise.all(this.#threads.map((thread) => thread.subscribers(topic)))
    return counts.reduce((sum, each) => sum + each)
  }
}
