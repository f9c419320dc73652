/** The opening handshake as the server sees it (RFC 6455, section 4.2): checks and answers. Pure. */
import { createHash } from 'node:crypto'
import { listOf, type RequestHead } from '../../http1/index.js'
import { type ExtensionOffer, isToken, parseExtensions } from './extension-header.js'
import type { HttpAnswer } from './options.js'

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
const VERSION = '13'
const VERSION_HEADER = { 'Sec-WebSocket-Version': VERSION }
/** RFC 9110, section 7.8: who sends `Upgrade` says so in `Connection`. */
const UPGRADE_HEADERS = { Upgrade: 'websocket', Connection: 'Upgrade', ...VERSION_HEADER }
/** Sixteen bytes in base64. */
const KEY = /^[+/\dA-Za-z]{22}==$/

/** What a correct opening request asks for. */
export interface Upgrade {
  readonly key: string
  readonly extensions: readonly ExtensionOffer[]
}

/** `Sec-WebSocket-Accept` for a key. */
export function acceptKey(key: string): string {
  return createHash('sha1')
    .update(key + GUID)
    .digest('base64')
}

/** Whether it is a request for a WebSocket at all. RFC 9110, section 7.8: HTTP/1.0 has no upgrade. */
export function asksForWebSocket(head: RequestHead): boolean {
  if (head.version !== '1.1') return false
  return listOf(head.headers.get('upgrade')).some((each) => each.toLowerCase() === 'websocket')
}

/** The answer to a plain request where nobody else answers it. */
export function plainAnswer(head: RequestHead): HttpAnswer {
  if (head.method !== 'GET' && head.method !== 'HEAD') return wrongMethod()
  return {
    status: 426,
    headers: UPGRADE_HEADERS,
    body: 'this is a WebSocket server',
  }
}

/** What is asked for, or the answer to a request that is wrong. */
export function checkUpgrade(head: RequestHead): Upgrade | HttpAnswer {
  const { headers } = head
  if (head.method !== 'GET') return wrongMethod()
  if (!listOf(headers.get('connection')).some((each) => each.toLowerCase() === 'upgrade')) {
    return bad('the Connection header does not say upgrade')
  }
  if (headers.has('transfer-encoding') || (headers.get('content-length') ?? '0') !== '0') {
    return bad('the request has a body')
  }
  const versions = headers.getAll('sec-websocket-version')
  if (versions.length !== 1) return bad('there must be one Sec-WebSocket-Version header', VERSION_HEADER)
  if (versions[0] !== VERSION) {
    return { status: 426, headers: UPGRADE_HEADERS, body: 'the version is 13' }
  }
  const [key, ...more] = headers.getAll('sec-websocket-key')
  if (key === undefined || more.length > 0) return bad('there must be one Sec-WebSocket-Key header')
  if (!KEY.test(key)) return bad('Sec-WebSocket-Key is not 16 bytes in base64')
  if (!areProtocols(headers.get('sec-websocket-protocol'))) {
    return bad('Sec-WebSocket-Protocol is not a list of different tokens')
  }
  const offered = headers.get('sec-websocket-extensions')
  const extensions = offered === undefined ? [] : parseExtensions(offered)
  if (extensions === undefined) return bad('Sec-WebSocket-Extensions cannot be read')
  return { key, extensions }
}

function areProtocols(value: string | undefined): boolean {
  if (value === undefined) return true
  const names = listOf(value)
  return names.length > 0 && names.every(isToken) && new Set(names).size === names.length
}

function wrongMethod(): HttpAnswer {
  return { status: 405, headers: { Allow: 'GET' }, body: 'only GET is understood' }
}

function bad(body: string, headers: Readonly<Record<string, string>> = {}): HttpAnswer {
  return { status: 400, headers, body }
}

/** The answer that opens the WebSocket. */
export function switchingProtocols(key: string, protocol: string | undefined, extensions: string): Buffer {
  let head = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
  head += `Sec-WebSocket-Accept: ${acceptKey(key)}\r\n`
  if (protocol !== undefined) head += `Sec-WebSocket-Protocol: ${protocol}\r\n`
  if (extensions !== '') head += `Sec-WebSocket-Extensions: ${extensions}\r\n`
  return Buffer.from(`${head}\r\n`, 'latin1')
}
