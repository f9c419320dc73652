/** The opening handshake as the client sees it (RFC 6455, section 4.1). One object per connection, until it is open. */
import { randomBytes } from 'node:crypto'
import { listOf } from '../../http1/index.js'
import { ProtocolError, type RingBuffer } from '../../index.js'
import { type DeflateParams, makeOffer, readAnswer } from './deflate-params.js'
import type { WebSocketSettings } from './options.js'
import { acceptKey } from './server-handshake.js'

const END_OF_HEAD = '\r\n\r\n'
const STATUS_LINE = /^HTTP\/1\.1 (\d{3})(?: .*)?$/
const FIELD = /^([!#$%&'*+\-.^_`|~\dA-Za-z]+):[ \t]*(.*?)[ \t]*$/

/** What the server agreed to. */
export interface Agreement {
  readonly protocol: string | undefined
  readonly deflate: DeflateParams | undefined
}

export class ClientHandshake {
  readonly #settings: WebSocketSettings
  readonly #key = randomBytes(16).toString('base64')

  constructor(settings: WebSocketSettings) {
    this.#settings = settings
  }

  /** `host` is for the header where the options name none. */
  request(host: string): Buffer {
    const client = this.#settings.client!
    const { deflate } = this.#settings
    const lines = [`GET ${client.path} HTTP/1.1`, `Host: ${client.host ?? host}`]
    lines.push('Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Version: 13')
    lines.push(`Sec-WebSocket-Key: ${this.#key}`)
    if (client.protocols.length > 0) lines.push(`Sec-WebSocket-Protocol: ${client.protocols.join(', ')}`)
    if (deflate !== undefined) lines.push(`Sec-WebSocket-Extensions: ${makeOffer(deflate)}`)
    for (const [name, value] of Object.entries(client.headers)) lines.push(`${name}: ${value}`)
    return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
  }

  /** Takes the answer out of `buffer`; `undefined` until it is whole. Throws `ProtocolError`. */
  read(buffer: RingBuffer): Agreement | undefined {
    const { maxHeaderBytes } = this.#settings
    const end = buffer.indexOf(END_OF_HEAD)
    if (end === -1 ? buffer.length > maxHeaderBytes : end > maxHeaderBytes) {
      throw new ProtocolError(`the answer to the handshake is longer than maxHeaderBytes (${maxHeaderBytes})`)
    }
    if (end === -1) return undefined
    const text = buffer.peek(end).toString('latin1')
    buffer.retrieve(end + END_OF_HEAD.length)
    return this.#check(text.split('\r\n'))
  }

  #check(lines: readonly string[]): Agreement {
    const status = STATUS_LINE.exec(lines[0]!)?.[1]
    if (status !== '101') throw new ProtocolError(`the server answered the handshake with '${lines[0]}'`)
    const headers = readFields(lines)
    if (headers.get('upgrade')?.toLowerCase() !== 'websocket') {
      throw new ProtocolError('the server did not upgrade to websocket')
    }
    if (!listOf(headers.get('connection')).some((each) => each.toLowerCase() === 'upgrade')) {
      throw new ProtocolError('the Connection header of the server does not say upgrade')
    }
    if (headers.get('sec-websocket-accept') !== acceptKey(this.#key)) {
      throw new ProtocolError('Sec-WebSocket-Accept does not answer the key')
    }
    const protocol = headers.get('sec-websocket-protocol')
    if (protocol !== undefined && !this.#settings.client!.protocols.includes(protocol)) {
      throw new ProtocolError('the server chose a subprotocol that was not offered')
    }
    const deflate = readAnswer(headers.get('sec-websocket-extensions'), this.#settings.deflate)
    if (typeof deflate === 'string') throw new ProtocolError(deflate)
    return { protocol, deflate }
  }
}

function readFields(lines: readonly string[]): Map<string, string> {
  const headers = new Map<string, string>()
  for (const line of lines.slice(1)) {
    const field = FIELD.exec(line)
    if (field === null) throw new ProtocolError('the answer to the handshake has a line that is no header')
    const name = field[1]!.toLowerCase()
    const before = headers.get(name)
    headers.set(name, before === undefined ? field[2]! : `${before}, ${field[2]}`)
  }
  return headers
}
