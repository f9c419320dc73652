/** The type parameters for what a handler keeps: `c.context` of a connection, `loop.data` of a loop. */
import { type Connection, EventLoop, type Handler, type Loop, type PerLoop, Server } from 'ringloop'
import { type WebSocketContext, type WebSocketOut, WebSocketProtocol } from 'ringloop/websocket'
import { exactly } from './exactly.js'

type Bytes = Uint8Array | string

interface User {
  name: string
  visits: number
}

interface Settings {
  readonly database: string
}

// `c.context` is a User in every callback, without a cast.
const greeter: Handler<undefined, Bytes, User, Settings> = {
  onStart(loop) {
    exactly<Loop<Settings>>()(loop)
    exactly<string>()(loop.data.database)
  },
  onConnect(c) {
    c.context = { name: c.peerAddr, visits: 0 }
    // @ts-expect-error
    c.context = 'a string'
  },
  onMessage(c, _ctx, data) {
    exactly<User>()(c.context)
    c.context.visits++
    return `hello ${c.context.name}: ${data}`
  },
  onDrain: (c) => exactly<User>()(c.context),
  onEnd: (c) => exactly<User>()(c.context),
  onClose(c, reason) {
    exactly<User>()(c.context)
    exactly<string>()(reason.message)
  },
  onStop: (loop) => exactly<Settings>()(loop.data),
}

// The server knows both, from the handler and from `data`.
const server = new Server(greeter, { data: { database: 'users' } })
exactly<Server<undefined, Bytes, User, Settings>>()(server)
// `data` must be there, and be what the handler wants.
// @ts-expect-error
void new Server(greeter)
// @ts-expect-error
void new Server(greeter, { address: ':0' })
// @ts-expect-error
void new Server(greeter, { data: { database: 5 } })
// @ts-expect-error
void new Server(greeter, { data: 'users' })

// Without one it is unknown: to be looked at before it is used.
const careless: Handler = {
  onMessage(c) {
    exactly<unknown>()(c.context)
    // @ts-expect-error
    c.context.visits++
  },
}
void careless

// With a protocol, too.
const chat: Handler<WebSocketContext, WebSocketOut, User> = {
  onMessage: (c, _ctx, data) => (c.context.visits > 5 ? undefined : data),
}
void new Server(chat, { protocol: new WebSocketProtocol() })
// @ts-expect-error
void new Server(chat)

const chatOfData: Handler<WebSocketContext, WebSocketOut, User, Settings> = {
  onMessage: (_c, _ctx, data) => data,
}
void new Server(chatOfData, { protocol: new WebSocketProtocol(), data: { database: 'users' } })
// @ts-expect-error
void new Server(chatOfData, { protocol: new WebSocketProtocol() })

// A class that is given its connections' state.
class Rooms implements Handler<undefined, Bytes, User, Settings> {
  readonly #all = new Set<Connection<Bytes, User>>()
  onStart(loop: Loop<Settings>): void {
    loop.logger.info({ database: loop.data.database }, 'started')
  }
  onConnect(c: Connection<Bytes, User>): void {
    this.#all.add(c)
  }
  async onMessage(c: Connection<Bytes, User>, _ctx: undefined, data: Buffer): Promise<Buffer> {
    for (const other of this.#all) if (other.context.name !== c.context.name) other.send(data)
    return data
  }
}
void new Server(new Rooms(), { data: { database: 'users' } })

// A handler written in place learns from `data` what `loop.data` is.
void new Server(
  {
    onStart: (loop) => exactly<{ limit: number }>()(loop.data),
    onMessage: (_c, _ctx, data) => data,
  },
  { data: { limit: 5 } },
)

// ---- a loop of one's own -----------------------------------------------------------------------------------------

exactly<Settings>()(new EventLoop<Settings>({ data: { database: 'users' } }).data)
exactly<{ limit: number }>()(new EventLoop({ data: { limit: 5 } }).data)
exactly<undefined>()(new EventLoop().data)
// What was promised has to be there.
// @ts-expect-error
void new EventLoop<Settings>()
// @ts-expect-error
void new EventLoop<Settings>({ poller: 'net' })
// @ts-expect-error
void new EventLoop<Settings>({ data: 5 })
// Every loop is a Loop, whatever its data.
const anyLoop: Loop = new EventLoop({ data: 5 })
const anyEventLoop: EventLoop = new EventLoop()
void [anyLoop, anyEventLoop]

// ---- what a loop module exports ----------------------------------------------------------------------------------

// The object itself, a class made with the loop, a factory, an asynchronous one.
const asObject: PerLoop<Handler> = { onMessage: (_c, _ctx, data) => data }
const asFactory: PerLoop<Handler> = (loop) => ({ onMessage: () => `loop ${loop.id}` })
const asAsyncFactory: PerLoop<Handler<undefined, Bytes, User>> = async () => ({
  onMessage: (c) => c.context.name,
})
class PerLoopHandler implements Handler {
  readonly #id: number
  constructor(loop: Loop) {
    this.#id = loop.id
  }
  onMessage(): string {
    return `loop ${this.#id}`
  }
}
const asClass: PerLoop<Handler> = PerLoopHandler
const withData: PerLoop<Handler, Settings> = (loop) => ({ onMessage: () => loop.data.database })
void [asObject, asFactory, asAsyncFactory, asClass, withData]
// What is no handler, or makes none.
// @ts-expect-error
const asNumber: PerLoop<Handler> = 5
// @ts-expect-error
const makesNumber: PerLoop<Handler> = () => 5
void [asNumber, makesNumber]
