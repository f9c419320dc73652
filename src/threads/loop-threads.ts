/**
 * All loops of a server that has one per thread, and the acceptor that brings them their connections, where they do not
 * listen by themselves. The server's thread only.
 */
import type { Logger } from '../log.js'
import type { Endpoint } from '../loop/poller/poller.js'
import type { SharedStats } from '../loop/stats.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import type { ListenSettings } from '../options.js'
import type { IntakeChoice } from './accept-mode.js'
import { type Acceptor, NativeAcceptor, Placement, TransferAcceptor } from './acceptor.js'
import { createBalancer } from './load-balance.js'
import { LoopThread } from './loop-thread.js'
import type { ThreadSetup } from './thread-messages.js'

export class LoopThreads {
  readonly #setup: (id: number, endpoint: Endpoint) => ThreadSetup
  readonly #settings: ListenSettings
  readonly #choice: IntakeChoice
  readonly #stats: SharedStats
  readonly #logger: Logger
  readonly #threads: LoopThread[] = []
  #acceptor: Acceptor | undefined
  #endpoint: Endpoint | undefined

  constructor(
    setup: (id: number, endpoint: Endpoint) => ThreadSetup,
    stats: SharedStats,
    settings: ListenSettings,
    choice: IntakeChoice,
    logger: Logger,
  ) {
    this.#setup = setup
    this.#stats = stats
    this.#settings = settings
    this.#choice = choice
    this.#logger = logger
  }

  /** Where they listen, once `start` has resolved. */
  get endpoint(): Endpoint {
    return this.#endpoint!
  }

  /** Resolves when every loop serves; where one cannot, none is left and it rejects with why. */
  async start(): Promise<void> {
    try {
      this.#endpoint =
        this.#choice.intake === 'listen' ? await this.#startListening() : await this.#startAccepting()
    } catch (error) {
      await this.stop(0)
      throw error
    }
  }

  /** The first loop chooses the port, the others join it. */
  async #startListening(): Promise<Endpoint> {
    const endpoint = (await this.#addThread(0, this.#settings.endpoint).start())!
    await this.#startAll(1, endpoint)
    return endpoint
  }

  async #startAccepting(): Promise<Endpoint> {
    const { loadBalance, maxConnections, endpoint } = this.#settings
    const balancer = createBalancer(loadBalance, (err) =>
      this.#logger.error({ err }, 'the loadBalance function failed'),
    )
    const placement = new Placement(this.#threads, balancer, this.#stats, maxConnections)
    const accepts = this.#choice.intake === 'transfer' ? TransferAcceptor : NativeAcceptor
    this.#acceptor = new accepts(placement, this.#logger)
    await this.#startAll(0, endpoint)
    return this.#acceptor.listen(endpoint, { ...this.#settings, reusePort: false, park: true })
  }

  #addThread(id: number, endpoint: Endpoint): LoopThread {
    const thread = new LoopThread(this.#setup(id, endpoint), this.#stats, this.#logger, () =>
      this.#acceptor?.resume(),
    )
    this.#threads.push(thread)
    return thread
  }

  async #startAll(first: number, endpoint: Endpoint): Promise<void> {
    const starting: Promise<unknown>[] = []
    for (let id = first; id < this.#choice.numLoops; id++)
      starting.push(this.#addThread(id, endpoint).start())
    const failed = (await Promise.allSettled(starting)).find((result) => result.status === 'rejected')
    if (failed !== undefined) throw failed.reason
  }

  /** Ends every thread, its connections getting `drain` ms for their last bytes. */
  async stop(drain: number): Promise<void> {
    this.#acceptor?.stop()
    await Promise.all(this.#threads.map((thread) => thread.stop(drain)))
  }

  async broadcast(out: unknown, options: BroadcastOptions): Promise<BroadcastResult> {
    const results = await Promise.all(this.#threads.map((thread) => thread.broadcast(out, options)))
    return results.reduce((sum, each) => ({
      sent: sum.sent + each.sent,
      dropped: sum.dropped + each.dropped,
      closed: sum.closed + each.closed,
    }))
  }
}
