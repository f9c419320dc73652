/**
 * Metrics of a server in the text format of Prometheus, through `prom-client`. Most need only the server's option:
 *
 *     new Server(module, { metrics: { address: '127.0.0.1:9464' } })   then: curl http://127.0.0.1:9464/metrics
 *
 * Whoever has a registry and an endpoint already adds the metrics to it with `registerMetrics(server, registry)`.
 */
import type { Registry } from 'prom-client'
import type { Logger } from '../../index.js'
import { type MetricsAt, MetricsEndpoint } from './endpoint.js'
import { registerMetrics, removeMetrics, type StatsSource } from './metrics.js'

export { registerMetrics, removeMetrics, type StatsSource } from './metrics.js'

/** Serves the metrics; called by the server for its option `metrics`. @internal */
export async function serveMetrics(
  server: StatsSource & { readonly logger: Logger },
  settings: { readonly endpoint: MetricsAt; readonly path: string; readonly registry: unknown },
): Promise<{ endpoint: MetricsAt; stop(): Promise<void> }> {
  const registry = registerMetrics(server, settings.registry as Registry | undefined)
  const http = new MetricsEndpoint(registry, settings.path, server.logger)
  const stop = async (): Promise<void> => {
    removeMetrics(registry)
    await http.stop()
  }
  try {
    return { endpoint: await http.listen(settings.endpoint), stop }
  } catch (error) {
    removeMetrics(registry)
    throw error
  }
}
