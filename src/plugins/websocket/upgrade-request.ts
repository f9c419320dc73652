/** A request as hooks and handlers see it. It holds strings only and may be kept. */
import { type HeaderMap, HeadParser, listOf, type RequestHead } from '../../http1/index.js'
import { RingBuffer } from '../../index.js'

/** Of no use once the WebSocket is open. */
const SPENT = new Set(['connection', 'sec-websocket-key', 'sec-websocket-version', 'upgrade'])
const NO_LIMITS = { maxHeaderBytes: Number.POSITIVE_INFINITY, maxHeaders: Number.POSITIVE_INFINITY }

/** The opening request of a WebSocket, or a plain HTTP request that came instead. */
export interface UpgradeRequest {
  readonly method: string
  /** The target up to the `?`, percent-encoded as sent. */
  readonly path: string
  /** What comes after the `?`, percent-encoded as sent; `''` without one. */
  readonly query: string
  /** Host and port that are asked for: of the target, where it has them, else the `Host` field; HTTP/1.0 may say nothing. */
  readonly host: string | undefined
  readonly headers: HeaderMap
  /** The page that a browser speaks for; other clients may send what they like. */
  readonly origin: string | undefined
  /** The subprotocols that the client offers, the preferred one first. */
  readonly protocols: string[]
}

/** The same, and how it is kept as one string. */
export class ParsedRequest implements UpgradeRequest {
  readonly #head: RequestHead

  constructor(head: RequestHead) {
    this.#head = head
  }

  /** Reads what {@link compact} has written. */
  static from(text: string): ParsedRequest {
    const buffer = new RingBuffer(0)
    buffer.withData(Buffer.from(text, 'latin1'))
    return new ParsedRequest(new HeadParser(NO_LIMITS).parse(buffer)!)
  }

  /** The request as one string, a fraction of the size of this object, without what only the handshake needs. */
  compact(): string {
    const { method, target, headers } = this.#head
    let text = `${method} ${target} HTTP/1.1\r\n`
    for (const [name, value] of headers) if (!SPENT.has(name)) text += `${name}: ${value}\r\n`
    return Buffer.from(`${text}\r\n`, 'latin1').toString('latin1') // in one piece: slices would keep the whole head
  }

  get method(): string {
    return this.#head.method
  }

  get path(): string {
    return this.#head.path
  }

  get query(): string {
    return this.#head.query
  }

  get host(): string | undefined {
    return this.#head.host
  }

  get headers(): HeaderMap {
    return this.#head.headers
  }

  get origin(): string | undefined {
    return this.#head.headers.get('origin')
  }

  get protocols(): string[] {
    return listOf(this.#head.headers.get('sec-websocket-protocol'))
  }
}
