/**
 * The server behind the page: one ringloop `Server` with one loop, in the thread of the server that it shows. The same
 * port answers plain HTTP with the page and WebSockets with a frame each second.
 */
import { type HttpAnswer, type UpgradeRequest, WebSocketProtocol } from 'ringloop/websocket'
import {
  type BoundAddress,
  type Endpoint,
  type ExtendedServer,
  type Handler,
  Server,
  type ServerStats,
} from '../../index.js'
import { type Frame, frameOf } from './frame.js'

const INTERVAL_MS = 1000
/** A page that is opened shows the last two minutes. */
const MAX_FRAMES = 120
/** Nobody says anything to the console. */
const MAX_PAYLOAD = 1024
const NOT_FOUND: HttpAnswer = { status: 404, body: 'there is one page, at /\n' }

export class ConsoleServer {
  readonly #source: ExtendedServer
  readonly #server: Server<never, string>
  readonly #pages: ReadonlyMap<string, HttpAnswer>
  readonly #started = Date.now()
  readonly #frames: Frame[] = []
  #before: ServerStats
  #beforeAt = performance.now()

  constructor(source: ExtendedServer, address: Endpoint, pages: ReadonlyMap<string, HttpAnswer>) {
    this.#source = source
    this.#pages = pages
    this.#before = source.stats()
    const handler: Handler<never, string> = {
      onConnect: (c) => void c.send(this.#hello()),
      onMessage() {},
    }
    const protocol = new WebSocketProtocol({
      maxPayload: MAX_PAYLOAD,
      perMessageDeflate: true,
      verify: isSameOrigin,
      onRequest: (request) => this.#page(request),
    })
    const { logger } = source
    // The net poller is good enough, and does not warn a second time where there is no addon.
    this.#server = new Server(handler, { address, protocol: protocol as never, logger, poller: 'net' })
  }

  /** Rejects as every server's `start` does. */
  async start(): Promise<void> {
    await this.#server.start()
    this.#server.runEvery(INTERVAL_MS, () => this.#tick())
  }

  /** Throws `ERR_RINGLOOP_STATE` before it is started. */
  get address(): BoundAddress {
    return this.#server.address
  }

  stop(): Promise<void> {
    return this.#server.stop()
  }

  #page(request: UpgradeRequest): HttpAnswer | undefined {
    if (request.method !== 'GET' && request.method !== 'HEAD') return undefined
    return this.#pages.get(request.path) ?? NOT_FOUND
  }

  #tick(): void {
    const now = this.#source.stats()
    const at = performance.now()
    const frame = frameOf(this.#before, now, (at - this.#beforeAt) / 1000, Date.now())
    this.#before = now
    this.#beforeAt = at
    this.#frames.push(frame)
    if (this.#frames.length > MAX_FRAMES) this.#frames.shift()
    void this.#server.broadcast(JSON.stringify({ type: 'frame', frame, since: sinceStart(now) }))
  }

  #hello(): string {
    return JSON.stringify({
      type: 'hello',
      about: {
        address: String(this.#source.address),
        started: this.#started,
        interval: INTERVAL_MS,
        frames: MAX_FRAMES,
      },
      frames: this.#frames,
      since: sinceStart(this.#before),
    })
  }
}

/** What only makes sense as a number since the start, and what there is of the broker. */
function sinceStart({ total, broker }: ServerStats): object {
  const { accepted, rejected, lost, restarts, handlerErrors, protocolErrors, slowConsumerDrops, closed } =
    total
  const { tlsHandshakes, tlsResumed, tlsFailures } = total
  return {
    ...{ accepted, rejected, lost, restarts, handlerErrors, protocolErrors, slowConsumerDrops, closed },
    ...{ tlsHandshakes, tlsResumed, tlsFailures },
    broker,
  }
}

/** Any page in a browser can open a WebSocket to this machine; only ours may. Other clients send no Origin. */
function isSameOrigin({ origin, headers }: UpgradeRequest): boolean {
  if (origin === undefined) return true
  return URL.canParse(origin) && new URL(origin).host === headers.get('host')
}
