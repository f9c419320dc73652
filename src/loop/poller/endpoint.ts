/** How an endpoint is written, in this one place, and which paths a unix socket can have. Pure. */
import type { Endpoint } from './poller.js'

/** What the system has room for in the address of a unix socket, in bytes; Windows has pipes, which are no files. */
const MAX_PATH_BYTES = new Map<NodeJS.Platform, number>([
  ['linux', 107],
  ['android', 107],
  ['win32', Number.POSITIVE_INFINITY],
])
/** macOS and the BSDs. */
const MAX_PATH_BYTES_ELSEWHERE = 103

/** `host:port`, or `[host]:port` for IPv6; an IPv4 address mapped into IPv6 is written as IPv4. */
export function hostPort(host: string, port: number): string {
  const plain = host.startsWith('::ffff:') && host.includes('.') ? host.slice('::ffff:'.length) : host
  return plain.includes(':') ? `[${plain}]:${port}` : `${plain}:${port}`
}

/** As {@link hostPort}, or the path of a unix socket. */
export function endpointText(endpoint: Endpoint): string {
  return 'path' in endpoint ? endpoint.path : hostPort(endpoint.host, endpoint.port)
}

/** Why no unix socket can have this path, as a sentence; `undefined` where one can. */
export function unixPathProblem(
  path: string,
  platform: NodeJS.Platform = process.platform,
): string | undefined {
  if (path === '') return 'the path of a unix socket must not be empty'
  if (path.includes('\0')) return 'the path of a unix socket must not contain a NUL'
  const most = MAX_PATH_BYTES.get(platform) ?? MAX_PATH_BYTES_ELSEWHERE
  const length = Buffer.byteLength(path)
  if (length <= most) return undefined
  return `the path of a unix socket has at most ${most} bytes here, not ${length} (${path})`
}
