/** A request as hooks and handlers see it. It holds text only and may be kept. */
import type { HeaderMap, RequestHead } from '../../protocol/http-head.js'

/** The opening request of a WebSocket, or a plain HTTP request that came instead. */
export class UpgradeRequest {
  readonly #head: RequestHead

  /** @internal */
  constructor(head: RequestHead) {
    this.#head = head
  }

  get method(): string {
    return this.#head.method
  }

  /** The target up to the `?`, percent-encoded as sent. */
  get path(): string {
    return this.#head.path
  }

  /** What comes after the `?`, percent-encoded as sent; `''` without one. */
  get query(): string {
    return this.#head.query
  }

  get headers(): HeaderMap {
    return this.#head.headers
  }

  /** The page that a browser speaks for; other clients may send what they like. */
  get origin(): string | undefined {
    return this.#head.headers.get('origin')
  }

  /** The subprotocols that the client offers, the preferred one first. */
  get protocols(): string[] {
    return listOf(this.#head.headers.get('sec-websocket-protocol'))
  }
}

/** The elements of a comma-separated header, empty ones left out. */
export function listOf(value: string | undefined): string[] {
  if (value === undefined) return []
  return value
    .split(',')
    .map((each) => each.trim())
    .filter((each) => each !== '')
}
