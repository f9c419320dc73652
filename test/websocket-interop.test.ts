/** The plugin and implementations that know nothing of it: the ws package on the other side, as client and as server. */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { EventLoop } from 'ringloop'
import { type WebSocketOptions, type WebSocketOut, WebSocketProtocol, webSocketOf } from 'ringloop/websocket'
import { afterEach, describe, expect, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { nativeAvailable } from '../src/loop/poller/native-poller.js'
import { endExamples, startExample } from './example-process.js'
import { within } from './support/wait.js'
import { frame, request, told } from './support/websocket.js'

const POLLERS = nativeAvailable() === true ? (['native', 'net'] as const) : (['net'] as const)
const LENGTHS = [0, 1, 125, 126, 1023, 1024, 65_535, 65_536, 100_000, 700_000]

const loops: EventLoop[] = []
const servers: WebSocketServer[] = []

afterEach(async () => {
  await Promise.all(loops.splice(0).map((loop) => loop.stop()))
  for (const server of servers.splice(0)) {
    for (const client of server.clients) client.terminate()
    server.close()
  }
  await endExamples()
})

/** Bytes that are valid UTF-8 and compress somewhat. */
function sample(length: number): string {
  let text = ''
  for (let i = 0; text.length < length; i++) text += `${i.toString(36)}-${(i * 7919) % 997} `
  return text.slice(0, length)
}

async function connect(url: string, deflate: boolean | object): Promise<WebSocket> {
  const ws = new WebSocket(url, { perMessageDeflate: deflate })
  await within('the handshake', once(ws, 'open'))
  return ws
}

/** The next `count` messages, as `text hello` or `binary hello`. */
function messages(ws: WebSocket, count: number): Promise<string[]> {
  const seen: string[] = []
  return new Promise((resolve, reject) => {
    ws.on('error', reject)
    ws.on('message', (data: Buffer, binary) => {
      seen.push(`${binary ? 'binary' : 'text'} ${data}`)
      if (seen.length === count) resolve(seen)
    })
  })
}

const EXAMPLES = POLLERS.flatMap((poller) => [
  { poller, flags: ['--poller', poller] },
  { poller, flags: ['--poller', poller, '--loops', '2', '--deflate'] },
])

describe.each(EXAMPLES)('the websocket-echo example with $flags', ({ flags }) => {
  it.each([false, true, { clientNoContextTakeover: true, serverMaxWindowBits: 10, threshold: 0 }])(
    'echoes all that ws sends (deflate: %o), and ends with code 0',
    async (deflate) => {
      const example = await startExample('websocket-echo', ...flags)
      const clients = await Promise.all(
        Array.from({ length: 3 }, () => connect(`ws://127.0.0.1:${example.port}/`, deflate)),
      )
      await Promise.all(
        clients.map(async (ws) => {
          const expected = LENGTHS.flatMap((length) => [`text ${sample(length)}`, `binary ${sample(length)}`])
          const got = messages(ws, expected.length)
          for (const length of LENGTHS) {
            ws.send(sample(length))
            ws.send(Buffer.from(sample(length)))
          }
          expect((await within('the echoes', got)).every((each, i) => each === expected[i])).toBe(true)
        }),
      )
      const [first, ...others] = clients
      first!.close(4000, 'bye')
      const [code, reason] = await within('the close', once(first!, 'close'))
      expect([code, String(reason)]).toEqual([4000, 'bye'])
      const told = Promise.all(others.map((ws) => once(ws, 'close')))
      expect((await example.stop()).code).toBe(0)
      expect((await told).map(([each]) => each)).toEqual([1001, 1001])
    },
  )
})

const TOPICS = POLLERS.flatMap((poller) => ['1', '2'].map((loops) => ['--poller', poller, '--loops', loops]))

describe.each(TOPICS)('the websocket-topics example with %s %s %s %s', (...flags) => {
  it('gives subscribers what is published, and nobody else', async () => {
    const example = await startExample('websocket-topics', ...flags)
    const url = `ws://127.0.0.1:${example.port}/`
    const clients = await Promise.all(Array.from({ length: 4 }, () => connect(url, false)))
    // What it publishes to itself comes back behind the subscriptions before it.
    const ready = clients.map((ws, i) => {
      for (const line of ['sub news', `sub own-${i}`, `pub own-${i} is here`]) ws.send(line)
      return messages(ws, 1)
    })
    expect(await within('all', Promise.all(ready))).toEqual(clients.map((_, i) => [`text own-${i} is here`]))
    const seen = clients.map((ws) => messages(ws, 2))
    for (const line of ['unsub own-1', 'pub own-1 lost', 'pub news one two', 'pub news '])
      clients[1]!.send(line)
    for (const each of await within('the news', Promise.all(seen))) {
      expect(each).toEqual(['text news one two', 'text news '])
    }
    const bad = await connect(url, false)
    bad.send('sub ')
    const [code, reason] = await within('the end of who names nothing', once(bad, 'close'))
    expect([code, String(reason)]).toEqual([1008, 'the name of a topic must not be empty'])
    expect(await example.stop()).toMatchObject({ code: 0, stderr: '' })
  })
})

describe.each(POLLERS)('over real sockets, on the %s poller', (poller) => {
  it('the close frame reaches a peer that goes on sending', async () => {
    const example = await startExample('websocket-echo', '--poller', poller)
    const peer = await example.connect()
    await peer.write(request())
    await peer.said(/\r\n\r\n$/)
    await peer.write(frame(3, 'no such opcode'))
    const junk = Buffer.alloc(65_536)
    for (let i = 0; i < 100 && !peer.socket.destroyed; i++) void peer.write(junk)
    const bytes = await within('the end', peer.ended)
    expect(told(bytes.subarray(bytes.indexOf('\r\n\r\n') + 4))).toEqual(['close 1002'])
  })

  it('a message of maxPayload comes back, and one byte more is refused by its header', async () => {
    const example = await startExample('websocket-echo', '--poller', poller)
    const peer = await example.connect()
    const most = 16 * 1024 * 1024
    await peer.write(request())
    await peer.said(/\r\n\r\n$/)
    const head = peer.bytes.length
    await peer.write(frame(2, Buffer.alloc(most, 'x')))
    await within('the echo', peer.received(head + 10 + most))
    await peer.write(frame(2, '', { length: BigInt(most + 1) }))
    const bytes = await within('the end', peer.ended)
    expect(told(bytes.subarray(head + 10 + most))).toEqual(['close 1009'])
  })
})

describe.each(POLLERS)('the client role on the %s poller', (poller) => {
  async function serve(options: object = {}): Promise<WebSocketServer> {
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0, ...options })
    servers.push(server)
    await once(server, 'listening')
    server.on('connection', (ws) => ws.on('message', (data, binary) => ws.send(data, { binary })))
    return server
  }

  function loop(): EventLoop {
    const own = new EventLoop({ poller, logger: false })
    loops.push(own)
    return own
  }

  it.each([
    {},
    { perMessageDeflate: true },
    { perMessageDeflate: { serverNoContextTakeover: false, clientNoContextTakeover: false } },
  ])('speaks to a server of ws (%o)', async (options: WebSocketOptions) => {
    const server = await serve({ perMessageDeflate: { threshold: 0 }, handleProtocols: () => 'two' })
    const seen: string[] = []
    let done: () => void
    const all = new Promise<void>((resolve) => {
      done = resolve
    })
    const protocol = new WebSocketProtocol({
      ...options,
      client: { path: '/a?b=c', protocols: ['one', 'two'], headers: { 'X-Me': 'yes' } },
    })
    const asked = once(server, 'connection')
    const c = await loop().connect<unknown, WebSocketOut>(
      `127.0.0.1:${(server.address() as AddressInfo).port}`,
      {
        protocol,
        handler: {
          onMessage: (_c, ctx, data) => {
            seen.push(`${(ctx as { type: string }).type} ${data}`)
            if (seen.length === LENGTHS.length * 2) done()
          },
        },
      },
    )
    const [, request] = await asked
    expect([request.url, request.headers['x-me'], webSocketOf(c).protocol]).toEqual(['/a?b=c', 'yes', 'two'])
    expect(webSocketOf(c).compressed).toBe(options.perMessageDeflate !== undefined)
    for (const length of LENGTHS) {
      c.send(sample(length))
      c.send(Buffer.from(sample(length)))
    }
    await within('the echoes', all)
    expect(
      seen.every((each, i) => each === `${i % 2 === 0 ? 'text' : 'binary'} ${sample(LENGTHS[i >> 1]!)}`),
    ).toBe(true)
    const [ws] = server.clients
    webSocketOf(c).close(3001, 'done')
    const [code, reason] = await within('the close', once(ws!, 'close'))
    expect([code, String(reason)]).toEqual([3001, 'done'])
  })

  it('says why a handshake failed', async () => {
    const server = await serve({ verifyClient: () => false })
    const address = `127.0.0.1:${(server.address() as AddressInfo).port}`
    const protocol = new WebSocketProtocol({ client: {} })
    const attempt = loop().connect(address, { protocol, handler: { onMessage: () => {} } })
    await expect(attempt).rejects.toThrow(/HTTP\/1.1 401/)
  })
})
