/**
 * What serves beside the loops: the metrics endpoint and the console. They are plugins, loaded only when their option is
 * given, and know no more of the server than {@link Observed}. The server's thread only.
 */
import { ErrorCode, RingloopError } from './errors.js'
import type { Logger } from './log.js'
import type { Endpoint } from './loop/poller/poller.js'
import type { ServerStats } from './loop/stats.js'
import { consoleSettings, metricsSettings, type ServerOptions } from './options.js'

/** What a side server can see. */
export interface Observed {
  /** Where the loops listen. */
  readonly address: { toString(): string }
  stats(): ServerStats
  readonly logger: Logger
}

/** One of them, serving. */
export interface SideServer {
  readonly endpoint: Endpoint
  stop(): Promise<void>
}

export class SideServers {
  readonly #metricsSettings: ReturnType<typeof metricsSettings> | undefined
  readonly #consoleSettings: ReturnType<typeof consoleSettings> | undefined
  metrics: SideServer | undefined
  console: SideServer | undefined

  /** Throws `ERR_RINGLOOP_OPTION`. */
  constructor({ metrics, console }: Pick<ServerOptions, 'metrics' | 'console'>) {
    this.#metricsSettings = metrics === undefined ? undefined : metricsSettings(metrics)
    this.#consoleSettings = console === undefined ? undefined : consoleSettings(console)
  }

  /** Whether anybody will look at how the loops do. */
  get wanted(): boolean {
    return this.#metricsSettings !== undefined || this.#consoleSettings !== undefined
  }

  /** Rejects with an {@link ErrorCode}; then none of them serves. */
  async start(observed: Observed): Promise<void> {
    try {
      if (this.#metricsSettings !== undefined) {
        const { serveMetrics } = await loadMetrics()
        this.metrics = await serveMetrics(observed, this.#metricsSettings)
      }
      if (this.#consoleSettings !== undefined) {
        const { serveConsole } = await import('./plugins/console/index.js')
        this.console = await serveConsole(observed, this.#consoleSettings)
      }
    } catch (error) {
      await this.stop()
      throw error
    }
  }

  async stop(): Promise<void> {
    await Promise.all([this.metrics?.stop(), this.console?.stop()])
  }
}

async function loadMetrics(): Promise<typeof import('./plugins/metrics/index.js')> {
  try {
    return await import('./plugins/metrics/index.js')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error
    throw new RingloopError(
      ErrorCode.OPTION,
      'the option metrics needs the package prom-client: npm install prom-client',
      error,
    )
  }
}
