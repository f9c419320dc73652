/** The one loop of a server with a handler object. It runs in the server's own thread and listens by itself. */
import type { AnyConfig } from '../connection/config.js'
import { ErrorCode, RingloopError, toError } from '../errors.js'
import type { Admission } from '../loop/admission.js'
import type { EventLoop } from '../loop/event-loop.js'
import { listenOn } from '../loop/listen.js'
import { LoopMonitor } from '../loop/loop-monitor.js'
import type { Endpoint } from '../loop/poller/poller.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import { checkReceiveBuffer, type ListenSettings } from '../options.js'
import type { ServerTlsOptions } from '../tls-options.js'
import { resolvesWithin, STOP_GRACE_MS } from './deadline.js'
import type { Publication } from './publication.js'
import type { ServerLoops } from './server-loops.js'

export class LocalLoop implements ServerLoops {
  readonly #loop: EventLoop
  readonly #config: AnyConfig
  readonly #admission: Admission
  readonly #settings: ListenSettings
  readonly #monitored: boolean
  #monitor: LoopMonitor | undefined
  #stopping: Promise<void> | undefined

  /** The loop is its own from now on. With `monitored` a {@link LoopMonitor} watches it. */
  constructor(
    loop: EventLoop,
    config: AnyConfig,
    admission: Admission,
    settings: ListenSettings,
    monitored: boolean,
  ) {
    this.#loop = loop
    this.#config = config
    this.#admission = admission
    this.#settings = settings
    this.#monitored = monitored
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

  async publish({ topic, out, options }: Publication): Promise<BroadcastResult> {
    try {
      return await this.#loop.topics.deliver(topic, out, options.slow, undefined)
    } catch (error) {
      // As a loop in a thread answers.
      throw new RingloopError(ErrorCode.PACKET, toError(error).message, error)
    }
  }

  async setTls(tls: ServerTlsOptions): Promise<void> {
    this.#loop.table.poller.setTls(tls)
  }

  async subscribers(topic: string): Promise<number> {
    return this.#loop.subscribers(topic)
  }
}
