/** The one loop of a server with a handler object. It runs in the server's own thread and listens by itself. */
import type { BrokerLink, LinkedLoops } from '../broker/broker-link.js'
import type { AnyConfig } from '../connection/config.js'
import { ErrorCode, RingloopError, toError } from '../errors.js'
import type { Gap } from '../handler.js'
import type { Admission } from '../loop/admission.js'
import type { EventLoop } from '../loop/event-loop.js'
import { listenOn } from '../loop/listen.js'
import { LoopMonitor } from '../loop/loop-monitor.js'
import type { Endpoint } from '../loop/poller/poller.js'
import type { Publication } from '../loop/publication.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import { checkReceiveBuffer, type ListenSettings } from '../options.js'
import type { ServerTlsOptions } from '../tls-options.js'
import { resolvesWithin, STOP_GRACE_MS } from './deadline.js'
import type { ServerLoops } from './server-loops.js'

export class LocalLoop implements ServerLoops, LinkedLoops {
  readonly #loop: EventLoop
  readonly #config: AnyConfig
  readonly #admission: Admission
  readonly #settings: ListenSettings
  readonly #monitored: boolean
  readonly #link: BrokerLink | undefined
  #monitor: LoopMonitor | undefined
  #stopping: Promise<void> | undefined

  /** The loop is its own from now on. With `monitored` a {@link LoopMonitor} watches it. */
  constructor(
    loop: EventLoop,
    config: AnyConfig,
    admission: Admission,
    settings: ListenSettings,
    monitored: boolean,
    link: BrokerLink | undefined,
  ) {
    this.#loop = loop
    this.#config = config
    this.#admission = admission
    this.#settings = settings
    this.#monitored = monitored
    this.#link = link
  }

  async start(): Promise<Endpoint> {
    checkReceiveBuffer(this.#settings, this.#loop.poller)
    await this.#loop.serve(this.#config, this.#admission)
    if (this.#loop.stopping) {
      throw new RingloopError(ErrorCode.CLOSED, 'the loop was stopped before it served')
    }
    const endpoint = await listenOn(this.#loop, this.#settings.endpoint, { ...this.#settings, park: false })
    if (this.#monitored) this.#monitor = new LoopMonitor(this.#loop)
    return endpoint
  }

  stop(drain: number): Promise<void> {
    this.#stopping ??= this.#stop(drain)
    return this.#stopping
  }

  async #stop(drain: number): Promise<void> {
    const { logger } = this.#loop
    const stopped = this.#loop.stop({ drain }).catch((error: unknown) => {
      logger.error({ err: error }, 'stopping the loop failed')
    })
    if (!(await resolvesWithin(stopped, drain + STOP_GRACE_MS))) {
      logger.error(
        {},
        `the loop has not stopped within ${drain + STOP_GRACE_MS} ms: is onStop still pending?`,
      )
    }
    this.#monitor?.stop()
  }

  async broadcast(out: unknown, options: BroadcastOptions): Promise<BroadcastResult> {
    return this.#loop.broadcast(out as never, options)
  }

  publish(publication: Publication): Promise<BroadcastResult> {
    const deliver = (): Promise<BroadcastResult> => this.deliver(publication)
    return this.#link?.spread(publication, deliver) ?? deliver()
  }

  async deliver(publication: Publication): Promise<BroadcastResult> {
    try {
      return await this.#loop.topics.deliverOf(publication)
    } catch (error) {
      // As a loop in a thread answers.
      throw new RingloopError(ErrorCode.PACKET, toError(error).message, error)
    }
  }

  tellGap(topic: string, gap: Gap): void {
    this.#loop.topics.tellGap(topic, gap)
  }

  async setTls(tls: ServerTlsOptions): Promise<void> {
    this.#loop.table.poller.setTls(tls)
  }

  async subscribers(topic: string): Promise<number> {
    return this.#loop.subscribers(topic)
  }
}
