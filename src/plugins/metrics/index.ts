/**
 * Metrics of a server in the text format of Prometheus, through `prom-client`:
 *
 *     server.use(metrics({ address: '127.0.0.1:9464' }))   then: curl http://127.0.0.1:9464/metrics
 *
 * Whoever has a registry and an endpoint already adds the metrics to it with `registerMetrics(server, registry)`.
 */
export { type MetricsExtension, type MetricsOptions, type MetricsRegistry, metrics } from './extension.js'
export { registerMetrics, type StatsSource, unregisterMetrics } from './metrics.js'
