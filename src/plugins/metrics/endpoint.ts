/** One HTTP endpoint, `node:http` in the server's thread, that answers with the text of a registry. */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { BoundAddress, type Endpoint, ErrorCode, type Logger, RingloopError } from '../../index.js'

/** What is served. */
export interface MetricsText {
  readonly contentType: string
  metrics(): Promise<string>
}

export class MetricsEndpoint {
  readonly #text: MetricsText
  readonly #path: string
  readonly #server: Server
  readonly #logger: Logger

  /** `path` is the only one that is answered, with or without a query. */
  constructor(text: MetricsText, path: string, logger: Logger) {
    this.#text = text
    this.#path = path
    this.#logger = logger
    this.#server = createServer((request, response) => this.#answer(request, response))
  }

  /** Resolves to where it listens. Rejects with `ERR_RINGLOOP_ADDRESS_IN_USE` or `ERR_RINGLOOP_LISTEN`. */
  async listen(at: Endpoint): Promise<BoundAddress> {
    const server = this.#server
    server.listen(at)
    try {
      await once(server, 'listening')
    } catch (error) {
      throw listenError(at, error as NodeJS.ErrnoException)
    }
    server.on('error', (err) => this.#logger.warn({ err }, `the metrics cannot be asked for: ${err.message}`))
    if ('path' in at) return new BoundAddress(at)
    const { address, port } = server.address() as AddressInfo
    return new BoundAddress({ host: address, port })
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = request.url!.split('?', 1)[0]
    if (path !== this.#path) {
      end(response, 404, `metrics are at ${this.#path}\n`)
    } else if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('Allow', 'GET, HEAD')
      end(response, 405, 'use GET\n')
    } else {
      this.#text.metrics().then(
        (text) => end(response, 200, text, this.#text.contentType),
        (error) => end(response, 500, `the metrics cannot be read: ${String(error)}\n`),
      )
    }
  }

  /** Resolves when nothing is open any more; scrapes that are under way are cut off. */
  async stop(): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    await closed
  }
}

function end(
  response: ServerResponse,
  status: number,
  text: string,
  type = 'text/plain; charset=utf-8',
): void {
  response.writeHead(status, {
    'Content-Type': type,
    'Content-Length': Buffer.byteLength(text),
    'Cache-Control': 'no-store',
  })
  response.end(text)
}

function listenError(at: Endpoint, cause: NodeJS.ErrnoException): RingloopError {
  const where = new BoundAddress(at)
  return cause.code === 'EADDRINUSE'
    ? new RingloopError(
        ErrorCode.ADDRESS_IN_USE,
        `${where} is in use: choose another address for metrics`,
        cause,
      )
    : new RingloopError(ErrorCode.LISTEN, `metrics cannot listen on ${where}: ${cause.message}`, cause)
}
