/** Host names become addresses here, since pollers take only those. Any thread. */
import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import type { Endpoint } from './poller/poller.js'

/** Listening on no particular host: IPv6 with IPv4 mapped into it, or IPv4 where there is no IPv6. */
const EVERY_INTERFACE = ['::', '0.0.0.0']

/** The endpoints to try, in order. Rejects with Node's error for a name that cannot be resolved. */
export async function resolveEndpoint(
  endpoint: Endpoint,
  forListening: boolean,
): Promise<readonly Endpoint[]> {
  if ('path' in endpoint) return [endpoint]
  const { host, port } = endpoint
  if (host === '') {
    const hosts = forListening ? EVERY_INTERFACE : ['127.0.0.1']
    return hosts.map((each) => ({ host: each, port }))
  }
  if (isIP(host) !== 0) return [endpoint]
  const addresses = await lookup(host, { all: true })
  return addresses.map(({ address }) => ({ host: address, port }))
}
