// A chat with rooms in the browser, its page on the same port, across loops.   npm run example -- websocket-chat --loops 2
// With --redis URL or --nats URL across processes too: run several, each with its own --port.
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { isMainThread } from 'node:worker_threads'
import { type Connection, type EventLoop, type Gap, type Handler, Server } from 'ringloop'
import {
  type HttpAnswer,
  type UpgradeRequest,
  type WebSocketContext,
  type WebSocketOut,
  WebSocketProtocol,
  webSocketOf,
} from 'ringloop/websocket'
import { BROKER_FLAGS, brokerOf, exampleFlags, serve } from './flags.js'

type ChatConnection = Connection<WebSocketOut, Visitor>

interface Visitor {
  readonly name: string
  readonly room: string
}

/** What the page understands. */
type ChatEvent =
  | { type: 'room'; room: string }
  | { type: 'message'; from: string; text: string; at: number }
  | { type: 'note'; text: string }
  | { type: 'people'; loop: string; names: string[] }
  | ({ type: 'gap' } & Gap)

/** Each room has two topics: what is said, and who is there. */
const SAID = 'chat/said/'
const PEOPLE = 'chat/people/'
/** Each loop says so often who is there; a page forgets those of a loop that has been silent for longer. */
const PEOPLE_MS = 2_000
const FIRST_ROOM = 'lobby'
const JOIN = '/join '
/** Of a name or a room, in characters. */
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

/** One per loop. It knows its own people; the pages put those of all loops together. */
export default class Chat implements Handler<WebSocketContext, WebSocketOut, Visitor> {
  /** Of this loop among those of all processes. */
  readonly #id = randomUUID()
  readonly #rooms = new Map<string, Set<ChatConnection>>()
  #loop!: EventLoop

  onStart(loop: EventLoop): void {
    this.#loop = loop
    loop.runEvery(PEOPLE_MS, () => {
      for (const room of this.#rooms.keys()) this.#tellPeople(room)
    })
  }

  onConnect(c: ChatConnection): void {
    const asked = new URLSearchParams(webSocketOf(c).query)
    c.context = { name: nameOf(asked.get('name')) || `guest ${c.id}`, room: '' }
    this.#enter(c, nameOf(asked.get('room')) || FIRST_ROOM)
  }

  onMessage(c: ChatConnection, _ctx: WebSocketContext, data: Buffer): void {
    const text = data.toString().trim().slice(0, MAX_TEXT)
    if (text.startsWith(JOIN)) this.#move(c, nameOf(text.slice(JOIN.length)))
    else if (text !== '') this.#say(c, text)
  }

  /** Messages of other processes are lost: those here are told, since nobody else knows. */
  onGap(topic: string, gap: Gap): void {
    if (!topic.startsWith(SAID)) return
    for (const c of this.#rooms.get(topic.slice(SAID.length)) ?? []) tell(c, { type: 'gap', ...gap })
  }

  onClose(c: ChatConnection): void {
    if (!this.#loop.stopping) this.#leave(c)
  }

  #move(c: ChatConnection, room: string): void {
    if (room === '' || room === c.context.room) return
    this.#leave(c)
    this.#enter(c, room)
  }

  #enter(c: ChatConnection, room: string): void {
    const { name } = c.context
    c.context = { name, room }
    tell(c, { type: 'room', room })
    c.subscribe(SAID + room)
    c.subscribe(PEOPLE + room)
    const members = this.#rooms.get(room) ?? new Set()
    this.#rooms.set(room, members.add(c))
    this.#tellPeople(room)
    void this.#publish(SAID + room, { type: 'note', text: `${name} has come` })
  }

  #leave(c: ChatConnection): void {
    const { name, room } = c.context
    c.unsubscribe(SAID + room)
    c.unsubscribe(PEOPLE + room)
    const members = this.#rooms.get(room)
    members?.delete(c)
    if (members?.size === 0) this.#rooms.delete(room)
    this.#tellPeople(room)
    void this.#publish(SAID + room, { type: 'note', text: `${name} has left` })
  }

  #tellPeople(room: string): void {
    const names = [...(this.#rooms.get(room) ?? [])].map((c) => c.context.name)
    void this.#publish(PEOPLE + room, { type: 'people', loop: this.#id, names })
  }

  #say(c: ChatConnection, text: string): void {
    const { name, room } = c.context
    const said = this.#publish(SAID + room, { type: 'message', from: name, text, at: Date.now() })
    said.catch(() => tell(c, { type: 'note', text: 'not everybody has got that' }))
  }

  #publish(topic: string, event: ChatEvent): Promise<unknown> {
    return this.#loop.publish<WebSocketOut>(topic, JSON.stringify(event))
  }
}

function tell(c: ChatConnection, event: ChatEvent): void {
  c.send(JSON.stringify(event))
}

/** As much of it as can be shown, and be a part of the name of a topic. */
function nameOf(given: string | null): string {
  const shown = (given ?? '').replace(/\p{Cc}/gu, '').trim()
  return [...shown].slice(0, MAX_NAME).join('')
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
  const { options, oneLoop, ...flags } = exampleFlags(BROKER_FLAGS)
  const broker = await brokerOf(flags)
  const server =
    flags.loops === 1
      ? new Server(new Chat(), { ...oneLoop(), protocol: protocol(), broker })
      : new Server<WebSocketContext, WebSocketOut>(import.meta.url, { ...options, broker })
  await serve(server)
}
