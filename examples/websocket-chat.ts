// A chat in the browser, its page on the same port, across loops.   npm run example -- websocket-chat --loops 2
import { readFileSync } from 'node:fs'
import { BroadcastChannel, isMainThread } from 'node:worker_threads'
import { type Connection, type EventLoop, type Handler, Server } from 'ringloop'
import {
  type HttpAnswer,
  type UpgradeRequest,
  type WebSocketContext,
  type WebSocketOut,
  WebSocketProtocol,
  webSocketOf,
} from 'ringloop/websocket'
import { exampleFlags, serve } from './flags.js'

type ChatConnection = Connection<WebSocketOut>

/** What the page understands. */
type ChatEvent =
  | { type: 'message'; from: string; text: string; at: number }
  | { type: 'note'; text: string }
  | { type: 'people'; names: string[] }

/** What the loops tell each other: something to show, who is on a loop now, and the question for that. */
type LoopNews = { event: ChatEvent } | { loop: number; names: string[] } | { ask: true }

const MAX_NAME = 24
const MAX_TEXT = 500
const PAGE: HttpAnswer = {
  headers: {
    'Content-Type': 'text/html; charset=utf-8',
    'Content-Security-Policy':
      "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'",
  },
  body: readFileSync(new URL('../../examples/websocket-chat.html', import.meta.url)),
}

/** One per loop: it knows its own people, and by name those of the others. */
export default class Chat implements Handler<WebSocketContext, WebSocketOut> {
  readonly #own = new Map<ChatConnection, string>()
  readonly #others = new Map<number, string[]>()
  readonly #channel = new BroadcastChannel('websocket-chat')
  #loop!: EventLoop

  onStart(loop: EventLoop): void {
    this.#loop = loop
    this.#channel.onmessage = ({ data }: { data: unknown }) => this.#hear(data as LoopNews)
    this.#tell({ ask: true })
  }

  onStop(): void {
    this.#channel.close()
  }

  onConnect(c: ChatConnection): void {
    const given = new URLSearchParams(webSocketOf(c).query).get('name')?.trim()
    const name = given?.slice(0, MAX_NAME) || `guest ${c.id}`
    this.#own.set(c, name)
    this.#people(`${name} has come`)
  }

  onMessage(c: ChatConnection, _ctx: WebSocketContext, data: Buffer): void {
    const text = data.toString().trim().slice(0, MAX_TEXT)
    if (text !== '') this.#toAll({ type: 'message', from: this.#own.get(c)!, text, at: Date.now() })
  }

  onClose(c: ChatConnection): void {
    const name = this.#own.get(c)
    this.#own.delete(c)
    if (!this.#loop.stopping) this.#people(`${name} has left`)
  }

  /** Who is on this loop has changed. */
  #people(note: string): void {
    this.#toAll({ type: 'note', text: note })
    this.#tellPeople()
    this.#showPeople()
  }

  #tellPeople(): void {
    this.#tell({ loop: this.#loop.id, names: [...this.#own.values()] })
  }

  #showPeople(): void {
    const names = [this.#own.values(), ...this.#others.values()].flatMap((each) => [...each])
    this.#show({ type: 'people', names: names.sort((a, b) => a.localeCompare(b)) })
  }

  #toAll(event: ChatEvent): void {
    this.#show(event)
    this.#tell({ event })
  }

  #show(event: ChatEvent): void {
    this.#loop.broadcast<WebSocketOut>(JSON.stringify(event))
  }

  #tell(news: LoopNews): void {
    this.#channel.postMessage(news)
  }

  #hear(news: LoopNews): void {
    if ('event' in news) {
      this.#show(news.event)
    } else if ('ask' in news) {
      this.#tellPeople()
    } else {
      this.#others.set(news.loop, news.names)
      this.#showPeople()
    }
  }
}

/** Each loop's thread imports this very file and takes its handler and its protocol from here. */
export const protocol = (): WebSocketProtocol =>
  new WebSocketProtocol({
    maxPayload: 4096,
    perMessageDeflate: true,
    heartbeat: 30_000,
    onRequest: ({ path }) => (path === '/' ? PAGE : { status: 404, body: 'not found' }),
    verify: isFromOurPage,
  })

/** Other sites cannot speak for our visitors. */
function isFromOurPage({ origin, headers }: UpgradeRequest): boolean {
  return origin === undefined || origin.replace(/^https?:\/\//, '') === headers.get('host')
}

if (isMainThread) {
  const { loops, options, oneLoop } = exampleFlags()
  const server =
    loops === 1
      ? new Server(new Chat(), { ...oneLoop(), protocol: protocol() })
      : new Server<WebSocketContext, WebSocketOut>(import.meta.url, options)
  await serve(server)
}
