/** Loops: `connect` ties handler and protocol as the server does; what a loop gives is typed. */
import {
  type BroadcastResult,
  type Connection,
  type ConnectOptions,
  EventLoop,
  type Handler,
  LineProtocol,
  type Loop,
  Timer,
  TimingWheel,
} from 'ringloop'
import { HttpProtocol, httpHandler } from 'ringloop/http'
import { type WebSocketOut, WebSocketProtocol } from 'ringloop/websocket'
import { exactly } from './exactly.js'

type Bytes = Uint8Array | string
const loop = new EventLoop()
const ADDRESS = '127.0.0.1:1833'

interface Call {
  left: number
}

// ---- connect -----------------------------------------------------------------------------------------------------

// The connection that comes of it is one of the protocol's, with the handler's state.
exactly<Connection<Bytes, unknown>>()(await loop.connect(ADDRESS, { handler: { onMessage() {} } }))
const counting: Handler<undefined, Bytes, Call> = { onMessage: (c) => void c.context.left-- }
const call = await loop.connect(ADDRESS, { handler: counting, protocol: new LineProtocol() })
exactly<Connection<Bytes, Call>>()(call)
call.context = { left: 5 }

const socket = await loop.connect(ADDRESS, {
  handler: { onMessage: (c, ctx, data) => void c.send(ctx.binary ? data : data.toString()) },
  protocol: new WebSocketProtocol(),
})
exactly<Connection<WebSocketOut, unknown>>()(socket)

// A number is not an answer; a handler that is not for bytes needs its protocol, and no other.
// @ts-expect-error
void loop.connect(ADDRESS, { handler: { onMessage: () => 5 } })
const http = httpHandler(() => 'hello')
// @ts-expect-error
void loop.connect(ADDRESS, { handler: http })
// @ts-expect-error
void loop.connect(ADDRESS, { handler: http, protocol: new LineProtocol() })
// @ts-expect-error
void loop.connect(ADDRESS, { handler: counting, protocol: new HttpProtocol() })
// The options are not optional, and are spelt so.
// @ts-expect-error
void loop.connect(ADDRESS)
// @ts-expect-error
void loop.connect(ADDRESS, { handler: counting, timeOut: 5 })

// A connection's loop connects as well.
void call.loop.connect(ADDRESS, { handler: counting })
// @ts-expect-error
void call.loop.connect(ADDRESS, { handler: http })

// A function that passes options on.
function dial<State>(options: ConnectOptions<undefined, Bytes, State>): Promise<Connection<Bytes, State>> {
  return loop.connect(ADDRESS, options)
}
exactly<Connection<Bytes, Call>>()(await dial({ handler: counting }))

// ---- what a loop has ---------------------------------------------------------------------------------------------

// Connections of whatever protocols: they can be looked at and closed, and nothing can be sent to all alike.
for (const c of loop.connections) {
  exactly<Connection<never>>()(c)
  c.close()
  // @ts-expect-error
  c.send('text')
}

// A broadcast's filter sees the connections of what is sent.
loop.broadcast('text', { slow: 'close', filter: (c) => c.idleTime > 0 })
loop.broadcast<WebSocketOut>('text', { filter: (c) => c.send('first') })
// @ts-expect-error
loop.broadcast('text', { slow: 'wait' })
// @ts-expect-error
loop.broadcast(5)

// What is published is what the protocol packs.
exactly<Promise<BroadcastResult>>()(loop.publish('topic', 'text', { slow: 'close' }))
void loop.publish<WebSocketOut>('topic', { data: 'text', binary: true })
exactly<number>()(loop.subscribers('topic'))
// @ts-expect-error
void loop.publish('topic', 5)
// @ts-expect-error
void loop.publish('topic', 'text', { filter: () => true })
// @ts-expect-error
void loop.publish(5, 'text')

// A delay is a number.
// @ts-expect-error
loop.runAfter('2000', () => {})

// ---- timers ------------------------------------------------------------------------------------------------------

exactly<Timer>()(loop.runAfter(5, () => {}))
// A timer of one's own owes `fire`.
class Ping extends Timer {
  override fire(): void {
    this.restart(5)
  }
}
loop.addTimer(new Ping().unref(), 5)
const wheel = new TimingWheel({ tick: 5 })
wheel.add(new Ping(), 5)
// @ts-expect-error
class Forgetful extends Timer {}
void Forgetful
// @ts-expect-error
void new Timer()

// What only the machine uses is not to be seen.
// @ts-expect-error
void loop.transport
// @ts-expect-error
void new Ping().next

// It ends with its block.
async function block(other: Loop): Promise<void> {
  await using mine = new EventLoop({ logger: other.logger })
  await mine.connect(ADDRESS, { handler: counting })
}
void block
