/** An address as it is shown: the one place where the core and its plugins turn one into a string. Pure. */
import type { Endpoint } from './loop/poller/poller.js'

/** `host:port`, `[host]:port` for IPv6, or the path of a unix socket. */
export function endpointText(endpoint: Endpoint): string {
  if ('path' in endpoint) return endpoint.path
  const { host, port } = endpoint
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** Where something listens. As a string: `host:port`, `[host]:port` for IPv6, or the path of a unix socket. */
export class BoundAddress {
  /** `''` for a unix socket. */
  readonly host: string
  /** 0 for a unix socket. */
  readonly port: number
  readonly path: string | undefined

  constructor(endpoint: Endpoint) {
    this.host = 'path' in endpoint ? '' : endpoint.host
    this.port = 'path' in endpoint ? 0 : endpoint.port
    this.path = 'path' in endpoint ? endpoint.path : undefined
  }

  toString(): string {
    return this.path ?? endpointText({ host: this.host, port: this.port })
  }
}
