/**
 * The counters of a server's loops and of its broker as metrics of prom-client. They are read when somebody asks, so they
 * cost nothing in between. In the thread of the server.
 */
import { createRequire } from 'node:module'
import type { Metric, Registry } from 'prom-client'
import { ErrorCode, type Histogram, type LoopStats, RingloopError, type ServerStats } from '../../index.js'
import { CATALOGUE, type CataloguedMetric, type HistogramMetric, type LoopMetric } from './catalogue.js'

/** A server, or whatever else has its counters. */
export interface StatsSource {
  stats(): ServerStats
}

interface Sample {
  readonly metricName?: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

/**
 * Adds the metrics of `server` to a registry of prom-client, by default a new one, and returns it: for those
 * who have an endpoint already. Throws `ERR_RINGLOOP_OPTION` when the registry has a metric of the same name.
 */
export function registerMetrics(server: StatsSource, registry: Registry = newRegistry()): Registry {
  const snapshots = new Snapshots(server)
  for (const { name } of CATALOGUE) {
    if (registry.getSingleMetric(name) === undefined) continue
    throw new RingloopError(
      ErrorCode.OPTION,
      `the registry has ${name} already: give each server its own registry`,
    )
  }
  for (const metric of CATALOGUE) {
    registry.registerMetric(new CountedMetric(metric, snapshots) as unknown as Metric)
  }
  return registry
}

/** Takes out again what `registerMetrics` has added. */
export function unregisterMetrics(registry: Pick<Registry, 'removeSingleMetric'>): void {
  for (const { name } of CATALOGUE) registry.removeSingleMetric(name)
}

/** An empty one. Throws `ERR_RINGLOOP_OPTION` where there is no prom-client. */
export function newRegistry(): Registry {
  const require = createRequire(import.meta.url)
  try {
    const client = require('prom-client') as typeof import('prom-client')
    return new client.Registry()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') throw error
    throw new RingloopError(
      ErrorCode.OPTION,
      'metrics need the package prom-client: npm install prom-client',
      error,
    )
  }
}

/** All metrics of one scrape are of one snapshot: a registry asks them all in one go. */
class Snapshots {
  readonly #server: StatsSource
  #snapshot: ServerStats | undefined

  constructor(server: StatsSource) {
    this.#server = server
  }

  take(): ServerStats {
    if (this.#snapshot === undefined) {
      this.#snapshot = this.#server.stats()
      queueMicrotask(() => {
        this.#snapshot = undefined
      })
    }
    return this.#snapshot
  }
}

/** What a registry expects of a metric, without values of its own. */
class CountedMetric {
  readonly name: string
  readonly help: string
  readonly type: CataloguedMetric['type']
  readonly aggregator = 'sum'
  readonly #metric: CataloguedMetric
  readonly #snapshots: Snapshots

  constructor(metric: CataloguedMetric, snapshots: Snapshots) {
    this.name = metric.name
    this.help = metric.help
    this.type = metric.type
    this.#metric = metric
    this.#snapshots = snapshots
  }

  async get(): Promise<object> {
    const { name, help, type, aggregator } = this
    return { name, help, type, aggregator, values: samplesOf(this.#metric, this.#snapshots.take()) }
  }

  /** The server's counters only grow. */
  reset(): void {}
}

function samplesOf(metric: CataloguedMetric, { loops, broker }: ServerStats): Sample[] {
  if (!('ofBroker' in metric)) {
    return loops.flatMap((loop, id) => loopSamples(metric, loop, { loop: String(id) }))
  }
  return broker === undefined ? [] : [{ labels: { broker: broker.name }, value: metric.ofBroker(broker) }]
}

function loopSamples(metric: LoopMetric, loop: LoopStats, labels: { loop: string }): Sample[] {
  if (metric.type === 'histogram') return histogramSamples(metric, metric.histogram(loop), labels)
  if ('value' in metric) return [{ labels, value: metric.value(loop) }]
  return Object.entries(metric.byReason(loop)).map(([reason, value]) => ({
    labels: { ...labels, reason },
    value,
  }))
}

/** Prometheus wants each bucket to contain those below it. */
function histogramSamples(
  { name, divisor }: HistogramMetric,
  { bounds, counts, count, sum }: Histogram,
  labels: { loop: string },
): Sample[] {
  let below = 0
  const samples = counts.map((inBucket, i): Sample => {
    below += inBucket
    const bound = bounds[i]
    const le = bound === undefined ? '+Inf' : String(Number((bound / divisor).toPrecision(12)))
    return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: below }
  })
  samples.push({ metricName: `${name}_sum`, labels, value: sum / divisor })
  samples.push({ metricName: `${name}_count`, labels, value: count })
  return samples
}
