/** Where a server or an extension listens, as it is shown. Pure. */
import { hostPort } from './loop/poller/endpoint.js'
import type { Endpoint } from './loop/poller/poller.js'

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
    return this.path ?? hostPort(this.host, this.port)
  }
}
