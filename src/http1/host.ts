/** Who a request asks: its `Host`, its target (RFC 9112, section 3.2; RFC 3986, section 3.2.2). Called on any thread. */
import { isIPv6 } from 'node:net'
import { HttpError, type RequestHead } from './head.js'

const PORT = '(?::\\d*)?'
const NAME = new RegExp(`^(?:[\\w\\-.~!$&'()*+,;=]|%[\\da-f]{2})*${PORT}$`, 'i')
const LITERAL = new RegExp(`^\\[([^\\]%]*)\\]${PORT}$`)
const FUTURE = /^v[\da-f]+\.[\w\-.~!$&'()*+,;=:]+$/i

/** Clients that ask again name the same host again. */
let goodHost = ''

/**
 * Throws {@link HttpError} 400 for a `Host` that is missing, there twice, or none, and for an absolute target whose authority
 * is none or has a user in it (RFC 9110, section 4.2.4). HTTP/1.0 may leave the field out.
 */
export function checkHost(head: RequestHead): void {
  const { headers, version } = head
  const host = headers.get('host')
  if (host === undefined) {
    if (version === '1.1') throw new HttpError(400, 'no Host field')
  } else if (host !== goodHost) {
    // Where the field is repeated there is a blank in it.
    if (!isHost(host)) throw new HttpError(400, 'no valid Host field')
    goodHost = host
  }
  if (head.isAbsolute && !isAuthority(head.host!))
    throw new HttpError(400, 'no valid host in the request target')
}

/** RFC 9110, section 4.2.1: other than in `Host`, it is not empty. */
function isAuthority(host: string): boolean {
  return host !== '' && !host.startsWith(':') && isHost(host)
}

function isHost(host: string): boolean {
  if (NAME.test(host)) return true
  const literal = LITERAL.exec(host)?.[1]
  return literal !== undefined && (isIPv6(literal) || FUTURE.test(literal))
}
