/** The extension that serves the metrics of a server over HTTP. It belongs to the thread of the server. */
import type { Registry } from 'prom-client'
import {
  type Address,
  type BoundAddress,
  checkOptions,
  type Endpoint,
  ErrorCode,
  type ExtendedServer,
  type Extension,
  type OptionNames,
  parseAddress,
  RingloopError,
} from '../../index.js'
import { MetricsEndpoint } from './endpoint.js'
import { newRegistry, registerMetrics, unregisterMetrics } from './metrics.js'

export interface MetricsOptions {
  /**
   * Where it is served, over HTTP. Without a host that is the loopback interface, unlike the server's own address: say
   * `0.0.0.0:9464` to be reached from elsewhere. Default `'127.0.0.1:9464'`.
   */
  readonly address?: Address
  /** Default `'/metrics'`. */
  readonly path?: string
  /**
   * A `Registry` of prom-client: ringloop's metrics are added to it for as long as the server runs, so that your own are
   * served beside them. Default: one of its own.
   */
  readonly registry?: MetricsRegistry
}

const OPTIONS = { address: true, path: true, registry: true } as const satisfies OptionNames<MetricsOptions>

/** What is used of prom-client's `Registry`. */
export interface MetricsRegistry {
  readonly contentType: string
  registerMetric(metric: never): void
  removeSingleMetric(name: string): void
  metrics(): Promise<string>
}

/** What `metrics()` makes. */
export interface MetricsExtension extends Extension {
  /** Where it serves, with the port that the system chose. Throws `ERR_RINGLOOP_STATE` before the server is started. */
  readonly address: BoundAddress
}

/**
 * Prometheus text from one endpoint in the thread of the server, from the end of `start` to the end of `stop`:
 * `server.use(metrics())`. One for each server. Needs the package `prom-client`. Throws `ERR_RINGLOOP_OPTION`.
 */
export function metrics(options: MetricsOptions = {}): MetricsExtension {
  return new Metrics(options)
}

class Metrics implements MetricsExtension {
  readonly name = 'metrics'
  readonly watchLoops = true
  readonly #at: Endpoint
  readonly #path: string
  readonly #registry: Registry
  #endpoint: MetricsEndpoint | undefined
  #address: BoundAddress | undefined

  constructor(options: MetricsOptions) {
    checkOptions('metrics', options, OPTIONS)
    const { address = ':9464', path = '/metrics', registry = newRegistry() } = options
    if (typeof path !== 'string' || !path.startsWith('/')) {
      fail(`metrics.path must be a string that begins with '/', not ${String(path)}`)
    }
    if (typeof registry?.registerMetric !== 'function')
      fail('metrics.registry must be a Registry of prom-client')
    this.#at = parseAddress(address, '127.0.0.1')
    this.#path = path
    this.#registry = registry as Registry
  }

  get address(): BoundAddress {
    if (this.#address !== undefined) return this.#address
    throw new RingloopError(ErrorCode.STATE, 'the metrics are not served yet: start the server')
  }

  async start(server: ExtendedServer): Promise<void> {
    if (this.#endpoint !== undefined) {
      throw new RingloopError(ErrorCode.STATE, 'metrics() is for one server: call it for each')
    }
    registerMetrics(server, this.#registry)
    this.#endpoint = new MetricsEndpoint(this.#registry, this.#path, server.logger)
    try {
      this.#address = await this.#endpoint.listen(this.#at)
    } catch (error) {
      unregisterMetrics(this.#registry)
      throw error
    }
  }

  async stop(): Promise<void> {
    unregisterMetrics(this.#registry)
    await this.#endpoint?.stop()
  }
}

function fail(message: string): never {
  throw new RingloopError(ErrorCode.OPTION, message)
}
