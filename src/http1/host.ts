/** The `Host` of a request (RFC 9112, section 3.2; RFC 3986, section 3.2.2). Called on any thread. */
import { isIPv6 } from 'node:net'
import { HttpError, type RequestHead } from './head.js'

const PORT = '(?::\\d*)?'
const NAME = new RegExp(`^(?:[\\w\\-.~!$&'()*+,;=]|%[\\da-f]{2})*${PORT}$`, 'i')
const LITERAL = new RegExp(`^\\[([^\\]%]*)\\]${PORT}$`)
const FUTURE = /^v[\da-f]+\.[\w\-.~!$&'()*+,;=:]+$/i

/** Clients that ask again name the same host again. */
let goodHost = ''

/** Throws {@link HttpError} 400 for a host that is missing, there twice, or none. HTTP/1.0 may leave it out. */
export function checkHost({ headers, version }: RequestHead): void {
  const host = headers.get('host')
  if (host === undefined) {
    if (version === '1.1') throw new HttpError(400, 'no Host field')
  } else if (host !== goodHost) {
    // Where the field is repeated there is a blank in it.
    if (!isHost(host)) throw new HttpError(400, 'no valid Host field')
    goodHost = host
  }
}

function isHost(host: string): boolean {
  if (NAME.test(host)) return true
  const literal = LITERAL.exec(host)?.[1]
  return literal !== undefined && (isIPv6(literal) || FUTURE.test(literal))
}
