/** What `new Server` takes, and what it refuses: the handler fits its protocol, the options fit what serves. */
import {
  type BroadcastResult,
  type Connection,
  type Handler,
  LineProtocol,
  type Protocol,
  Server,
} from 'ringloop'
import { type HttpOutput, HttpProtocol, type HttpRequest, httpHandler } from 'ringloop/http'
import { IipProtocol, type IipRequest, IipRouter } from 'ringloop/iip'
import { type WebSocketContext, type WebSocketOut, WebSocketProtocol } from 'ringloop/websocket'
import { exactly } from './exactly.js'

type Bytes = Uint8Array | string
const MODULE = new URL('./loop.js', import.meta.url)

// ---- handlers of bytes -------------------------------------------------------------------------------------------

// The three parameters of a handler written in place are known, and its answer may be bytes.
const echo = new Server({
  onMessage: (c, ctx, data) => {
    exactly<Connection<Bytes, unknown>>()(c)
    exactly<undefined>()(ctx)
    exactly<Buffer>()(data)
    return data
  },
})
exactly<Server<undefined, Bytes, unknown, unknown>>()(echo)

// So may a string, nothing at all, and a promise of each.
void new Server({ onMessage: (_c, _ctx, data) => `you said ${data}` }, {})
void new Server({ onMessage() {} })
void new Server({ onMessage: (_c, _ctx, data) => (data.length > 5 ? 'long' : undefined) })
void new Server({ onMessage: async (_c, _ctx, data) => data })
void new Server({ async onMessage() {} })

// A codec whose packets are bytes goes with the same handlers.
void new Server({ onMessage: (_c, _ctx, data) => data }, { protocol: new LineProtocol() })
declare const plain: Handler
void new Server(plain, { protocol: new LineProtocol({ newline: '\r\n' }), address: ':0' })

// A number is not an answer.
// @ts-expect-error
void new Server({ onMessage: () => 5 })
// @ts-expect-error
void new Server({ onMessage: () => 5 }, { address: ':0' })
// @ts-expect-error
void new Server({ onMessage: () => 5 }, { protocol: new LineProtocol() })
// Neither is a promise of one.
// @ts-expect-error
void new Server({ onMessage: async () => 5 })

// A handler has `onMessage`.
// @ts-expect-error
void new Server({})
// @ts-expect-error
void new Server({ onConnect() {} })

// ---- handlers and their protocols --------------------------------------------------------------------------------

// A handler written in place learns its types from the protocol.
const chat = new Server(
  {
    onMessage(c, ctx, data) {
      exactly<Connection<WebSocketOut, unknown>>()(c)
      exactly<WebSocketContext>()(ctx)
      exactly<Buffer>()(data)
      c.send('text')
      exactly<boolean>()(c.subscribe('topic'))
      exactly<ReadonlySet<string>>()(c.topics)
      void c.publish('topic', { data, binary: ctx.binary })
      // @ts-expect-error
      void c.publish('topic', 5)
      return data
    },
  },
  { protocol: new WebSocketProtocol({ perMessageDeflate: true }) },
)
exactly<Promise<BroadcastResult>>()(chat.broadcast('text'))
exactly<Promise<BroadcastResult>>()(chat.publish('topic', { data: 'text', compress: false }))
exactly<Promise<number>>()(chat.subscribers('topic'))
// @ts-expect-error
void chat.publish('topic', 5)

const http = httpHandler((request) => `you asked for ${request.path}`)
void new Server(http, { protocol: new HttpProtocol() })
void new Server(new IipRouter(), { protocol: new IipProtocol() })

// A handler that is not for bytes needs its protocol.
// @ts-expect-error
void new Server(http)
// @ts-expect-error
void new Server(http, {})
// @ts-expect-error
void new Server(new IipRouter(), {})
// @ts-expect-error
void new Server(new IipRouter())

// … and no other.
// @ts-expect-error
void new Server(http, { protocol: new LineProtocol() })
// @ts-expect-error
void new Server(new IipRouter(), { protocol: new HttpProtocol() })
// @ts-expect-error
void new Server(plain, { protocol: new IipProtocol() })
declare const webSocket: Handler<WebSocketContext, WebSocketOut>
// @ts-expect-error
void new Server(webSocket, { protocol: new LineProtocol() })

// What the protocol says about a packet must be all that the handler wants to know of it.
interface Named {
  readonly name: string
}
interface NamedAndAged extends Named {
  readonly age: number
}
declare const wantsBoth: Handler<NamedAndAged>
declare const wantsName: Handler<Named>
declare const givesBoth: Protocol<NamedAndAged>
declare const givesName: Protocol<Named>
void new Server(wantsBoth, { protocol: givesBoth })
void new Server(wantsName, { protocol: givesBoth })
// @ts-expect-error
void new Server(wantsBoth, { protocol: givesName })

// A protocol packs what its handler answers.
declare const packsNumbers: Protocol<undefined, number>
void new Server({ onMessage: () => 5 }, { protocol: packsNumbers })
// @ts-expect-error
void new Server({ onMessage: () => 'five' }, { protocol: packsNumbers })
// @ts-expect-error
void new Server(plain, { protocol: packsNumbers })

// A class may be the handler.
class Counter implements Handler<HttpRequest, HttpOutput> {
  onMessage(_c: Connection<HttpOutput>, ctx: HttpRequest): HttpOutput {
    return ctx.path
  }
}
class LoudCounter extends Counter {
  override onMessage(c: Connection<HttpOutput>, ctx: HttpRequest): HttpOutput {
    return super.onMessage(c, ctx)
  }
}
void new Server(new LoudCounter(), { protocol: new HttpProtocol() })
// @ts-expect-error
void new Server(new LoudCounter(), {})
class Paths extends IipRouter {}
void new Server(new Paths(), { protocol: new IipProtocol() })

// What is broadcast is what the protocol packs.
const numbers = new Server({ onMessage: () => 5 }, { protocol: packsNumbers })
void numbers.broadcast(5)
// @ts-expect-error
void numbers.broadcast('five')
// @ts-expect-error
void echo.broadcast(5)

// ---- modules -----------------------------------------------------------------------------------------------------

void new Server(MODULE)
void new Server('./loop.js', { numLoops: 4 })
void new Server(MODULE, { numLoops: 4, loadBalance: 'least-connection', maxConnections: 5 })
void new Server(MODULE, { loadBalance: (peerAddr, loops) => (peerAddr === '' ? 0 : loops.length - 1) })
void new Server(MODULE, { execArgv: ['--expose-gc'], resourceLimits: { maxOldGenerationSizeMb: 64 } })
// What its protocol packs is said by hand, for `broadcast`.
const chats = new Server<WebSocketContext, WebSocketOut>(MODULE, { numLoops: 2 })
void chats.broadcast('text')
// @ts-expect-error
void chats.broadcast(5)

// The protocol of a module is its export.
// @ts-expect-error
void new Server(MODULE, { protocol: new LineProtocol() })
// @ts-expect-error
void new Server('./loop.js', { protocol: new LineProtocol() })

// ---- one loop or several -----------------------------------------------------------------------------------------

// A handler object is served by one loop, in this thread.
void new Server(plain, { numLoops: 1 })
// @ts-expect-error
void new Server(plain, { numLoops: 4 })
declare const numLoops: number
// @ts-expect-error
void new Server(plain, { numLoops })
// @ts-expect-error
void new Server(http, { numLoops: 4, protocol: new HttpProtocol() })
// What concerns several loops, or threads, is only for a module.
// @ts-expect-error
void new Server(plain, { loadBalance: 'round-robin' })
// @ts-expect-error
void new Server(plain, { execArgv: [] })
// @ts-expect-error
void new Server(plain, { resourceLimits: {} })
// … also where the options come from a variable.
const forThreads = { address: ':0', loadBalance: 'round-robin', numLoops: 4 } as const
void new Server(MODULE, forThreads)
// @ts-expect-error
void new Server(plain, forThreads)

// Which of both it is may be known only at run time: then with the options that both have.
declare const either: Handler | URL
void new Server(either, { address: ':0', maxConnections: 5 })
// @ts-expect-error
void new Server(either, { numLoops: 4 })
// @ts-expect-error
void new Server(either, { protocol: new LineProtocol() })
// … or each with its own.
const chosen =
  numLoops === 1 ? new Server(plain, { protocol: new LineProtocol() }) : new Server(MODULE, { numLoops })
void chosen.start()

// ---- other options -----------------------------------------------------------------------------------------------

// A misspelt option.
// @ts-expect-error
void new Server(plain, { idletime: 5 })
// @ts-expect-error
void new Server(MODULE, { idletime: 5 })
// An option may be undefined, as a configuration has it.
declare const idleTime: number | undefined
void new Server(plain, { idleTime, protocol: undefined })
void new Server(MODULE, { idleTime, numLoops: undefined, loadBalance: undefined })
// What is no kind of handler.
// @ts-expect-error
void new Server(5)
// @ts-expect-error
void new Server(null)
// @ts-expect-error
void new Server(plain, null)

// It ends with its block.
async function block(): Promise<void> {
  await using server = new Server(plain)
  await server.start()
}
void block

// The handler of a protocol is one for it alone.
const wrong: Handler<IipRequest> = {
  // @ts-expect-error
  onMessage: (_c, ctx: HttpRequest) => ctx.path,
}
void wrong
