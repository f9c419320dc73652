/** What a handler does with an open WebSocket, and when it ends: sends, closes, heartbeats, broadcasts. */
import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Connection } from '../src/connection.js'
import { type CloseReason, ErrorCode } from '../src/errors.js'
import type { ConnectionLimits } from '../src/options.js'
import * as deflate from '../src/plugins/websocket/deflate.js'
import {
  type WebSocketOptions,
  type WebSocketOut,
  WebSocketProtocol,
  webSocketOf,
} from '../src/plugins/websocket/index.js'
import { RawProtocol } from '../src/protocol/raw.js'
import { fakeLoop, settle } from './support/fake-loop.js'
import { until } from './support/wait.js'
import { Client, closeFrame, echo, frame, open, request, serve } from './support/websocket.js'

describe('the session', () => {
  it('sends messages with kind and compression chosen, and pings', async () => {
    const { client } = await open()
    const ws = webSocketOf(client.c)
    expect(ws.send('text')).toBe(true)
    expect(ws.send(Buffer.from('bytes'), { binary: false, compress: true })).toBe(true)
    expect(ws.ping('are you there')).toBe(true)
    await settle()
    expect(client.told).toEqual(['text text', 'text bytes', 'ping are you there'])
    expect(() => ws.ping('x'.repeat(126))).toThrow(expect.objectContaining({ code: ErrorCode.OPTION }))
  })

  it('is found on WebSocket connections only', async () => {
    const fake = await fakeLoop({ onMessage: () => {} }, { protocol: new RawProtocol() })
    expect(() => webSocketOf(fake.accept().c)).toThrow(expect.objectContaining({ code: ErrorCode.STATE }))
  })

  it('closes with a code and a reason, hands over nothing more, and ends when the peer has answered', async () => {
    const seen: string[] = []
    const closed: [CloseReason, number, string][] = []
    const { client } = await open({
      onMessage: (c, _ctx, data) => {
        seen.push(String(data))
        c.send('last words')
        webSocketOf(c).close(4001, 'enough')
        expect(c.send('too late')).toBe(true)
        expect(webSocketOf(c).send('too late')).toBe(false)
        expect(webSocketOf(c).open).toBe(false)
      },
      onClose: (c, reason) =>
        void closed.push([reason, webSocketOf(c).closeCode, webSocketOf(c).closeReason]),
    })
    client.read(Buffer.concat([frame(1, 'a'), frame(1, 'b'), frame(2, 'c', { fin: false }), frame(9, 'p')]))
    expect(client.told).toEqual(['text last words', 'close 4001'])
    expect(client.body.subarray(-6).toString()).toBe('enough')
    expect(client.socket.closed).toBeUndefined()
    client.read(frame(0, 'd'.repeat(1000)), closeFrame(4001))
    expect(client.socket.closed).toBe('lingering')
    expect(client.told).toHaveLength(2)
    expect(seen).toEqual(['a'])
    expect(closed).toMatchObject([[{ code: 'closed' }, 4001, 'enough']])
  })

  it('does not wait for ever for the peer’s close', async () => {
    const { client } = await open(echo, { closeHandshakeTimeout: 30 })
    webSocketOf(client.c).close()
    await until('the connection is closed', () => client.socket.closed !== undefined)
  })

  it('knows the peer’s code, 1005 where there was none, 1006 without a close frame', async () => {
    const ends: [(client: Client) => void, number, string][] = [
      [(client) => client.read(closeFrame(4321, 'why')), 4321, 'why'],
      [(client) => client.read(frame(8)), 1005, ''],
      [(client) => client.socket.end(), 1006, ''],
      [(client) => client.read(frame(3)), 1002, 'unknown opcode 3'],
    ]
    for (const [end, code, reason] of ends) {
      const { client } = await open()
      end(client)
      const ws = webSocketOf(client.c)
      expect([ws.closeCode, ws.closeReason, ws.open]).toEqual([code, reason, false])
    }
  })

  it.each([0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 1.5, Number.NaN])(
    'cannot be closed with %d',
    async (code) => {
      const { client } = await open()
      expect(() => webSocketOf(client.c).close(code)).toThrow(
        expect.objectContaining({ code: ErrorCode.OPTION }),
      )
      expect(() => webSocketOf(client.c).close(1000, 'ü'.repeat(62))).toThrow(/123 bytes/)
      expect(client.socket.out.length).toBe(client.head.length)
    },
  )
})

describe('a connection that this side ends', () => {
  const ends: [string, (c: Connection<WebSocketOut>) => void, string][] = [
    ['c.close()', (c) => c.close(), 'close 1000'],
    ['a handler that throws', () => fail(), 'close 1011'],
    ['the stop of the loop', (c) => void c.loop.stop(), 'close 1001'],
    ['the stop of the loop with time to drain', (c) => void c.loop.stop({ drain: 1000 }), 'close 1001'],
  ]
  function fail(): never {
    throw new Error('oops')
  }

  it.each(ends)('%s: the peer is told', async (_name, end, told) => {
    const { client } = await open({ onMessage: (c) => end(c) })
    client.read(frame(1, 'x'))
    await until('it is closed', () => client.socket.closed !== undefined)
    expect(client.told).toEqual([told])
  })
})

describe('the heartbeat', () => {
  it('pings a silent peer, and closes it when it stays silent', async () => {
    const closed: CloseReason[] = []
    const handler = { ...echo, onClose: (_c: unknown, reason: CloseReason) => void closed.push(reason) }
    const { client } = await open(handler, { heartbeat: { interval: 20, timeout: 30 } })
    await until('there was a ping', () => client.told.length === 1)
    expect(client.told).toEqual(['ping '])
    await until('it is closed', () => client.socket.closed !== undefined)
    expect(client.told).toEqual(['ping ', 'close 1001'])
    expect(closed).toMatchObject([{ code: 'idle' }])
  })

  it('leaves a peer alone that answers, and one that is not read', async () => {
    const options: WebSocketOptions = { heartbeat: 20 }
    const { fake, client } = await open(echo, options)
    const paused = new Client(fake).read(request())
    paused.c.pause()
    let pings = 0
    await until('there were five pings', () => {
      if (client.told.length > pings) {
        pings = client.told.length
        client.read(frame(10))
      }
      return pings === 5
    })
    expect(client.socket.closed).toBeUndefined()
    expect(paused.socket.closed).toBeUndefined()
  })
})

describe('the heartbeat of a slow reader', () => {
  it('goes on while it takes something, and ends when it takes nothing', async () => {
    const protocol = new WebSocketProtocol({ heartbeat: 40 })
    const fake = await fakeLoop(echo, { protocol, highWaterMark: 1000, lowWaterMark: 10 })
    const client = new Client(fake).read(request())
    client.socket.room = () => 10
    client.c.send('x'.repeat(100_000))
    const begin = performance.now()
    await until('six intervals are over', () => {
      client.socket.drain()
      return performance.now() - begin > 240
    })
    expect(client.socket.closed).toBeUndefined()
    client.socket.room = () => 0
    await until('it is dropped, with what it has not taken', () => client.socket.closed !== undefined)
  })

  it('ends though it has sent so much that it is not read any more', async () => {
    const protocol = new WebSocketProtocol({ heartbeat: 40 })
    const fake = await fakeLoop(echo, { protocol, highWaterMark: 1000, lowWaterMark: 10 })
    const client = new Client(fake).read(request())
    client.socket.room = () => 0
    const flood = Buffer.concat(Array.from({ length: 20 }, () => frame(1, 'x'.repeat(200))))
    while (client.socket.read(flood));
    expect(client.c.readBufferLength).toBeGreaterThan(0)
    expect(client.c.paused).toBe(false)
    await until('it is dropped, with what it has not taken', () => client.socket.closed !== undefined)
  })
})

describe('a publication', () => {
  it('is framed for the open ones, before a close frame that follows it', async () => {
    const { fake, client } = await open()
    const [leaves, waits] = [new Client(fake).read(request()), new Client(fake).read('GET /')]
    for (const { c } of [client, leaves, waits]) c.subscribe('t')
    void fake.loop.publish('t', 'hello')
    void fake.loop.publish('t', Buffer.from('bytes'))
    webSocketOf(leaves.c).close()
    void client.c.publish('t', 'nobody')
    await settle()
    expect(client.told).toEqual(['text hello', 'binary bytes'])
    expect(leaves.told).toEqual(['text hello', 'binary bytes', 'close 1000'])
    expect(waits.socket.out).toHaveLength(0)
  })
})

describe('a broadcast', () => {
  it('reaches the open ones, framed as text or binary', async () => {
    const { fake, client } = await open()
    const others = [
      new Client(fake).read(request()),
      new Client(fake).read('GET /'),
      new Client(fake).read(request()),
    ]
    webSocketOf(others[2]!.c).close()
    fake.loop.broadcast('hello')
    fake.loop.broadcast(Buffer.from('bytes'))
    fake.loop.broadcast({ data: 'as binary', binary: true })
    await settle()
    const expected = ['text hello', 'binary bytes', 'binary as binary']
    expect(client.told).toEqual(expected)
    expect(others[0]!.told).toEqual(expected)
    expect(others[1]!.socket.out).toHaveLength(0)
    expect(others[2]!.told).toEqual(['close 1000'])
  })

  it('is compressed once for all whose windows have the same size', async () => {
    const compress = vi.spyOn(deflate, 'compress')
    const fake = await serve(echo, { perMessageDeflate: { threshold: 10 } })
    const offers = [
      'permessage-deflate',
      'permessage-deflate',
      'permessage-deflate; server_max_window_bits=10',
      undefined,
    ]
    const clients = offers.map((offer) =>
      new Client(fake).read(request({ 'Sec-WebSocket-Extensions': offer })),
    )
    const text = 'again and '.repeat(100)
    expect(fake.loop.broadcast(text)).toMatchObject({ sent: 4, dropped: 0 })
    await settle()
    const lengths = clients.map((client) => client.body.length)
    expect(lengths[3]).toBe(1004)
    expect(Math.max(...lengths.slice(0, 3))).toBeLessThan(100)
    expect(compress).toHaveBeenCalledTimes(2)
    compress.mockRestore()
  })

  it('drops or closes those that are slow', async () => {
    const fake = await fakeLoop(echo, {
      protocol: new WebSocketProtocol(),
      highWaterMark: 1000,
      lowWaterMark: 10,
    })
    const slow = new Client(fake).read(request())
    const quick = new Client(fake).read(request())
    slow.socket.room = () => 0
    slow.c.send('x'.repeat(5000))
    await settle()
    expect(fake.loop.broadcast('news')).toEqual({ sent: 1, dropped: 1, closed: 0 })
    expect(fake.loop.broadcast('news', { slow: 'close' })).toEqual({ sent: 1, dropped: 1, closed: 1 })
    await settle()
    expect(quick.told).toEqual(['text news', 'text news'])
    slow.socket.room = (offered) => offered
    slow.socket.drain()
    await settle()
    expect(slow.told.map((each) => each.slice(0, 10))).toEqual(['text xxxxx', 'close 1008'])
  })
})

describe('options', () => {
  it.each([
    { maxPayload: 0 },
    { maxPayload: -1 },
    { heartbeat: 1.5 },
    { handshakeTimeout: 0 },
    { verify: true },
    { protocols: ['a b'] },
    { perMessageDeflate: { level: 10 } },
    { perMessageDeflate: { serverMaxWindowBits: 7 } },
    { client: { path: 'x' } },
    { client: { headers: { 'X-A': 'b\r\nc' } } },
  ] as unknown as WebSocketOptions[])('%o is refused at once', (options) => {
    expect(() => new WebSocketProtocol(options)).toThrow(expect.objectContaining({ code: ErrorCode.OPTION }))
  })
})

describe('the heartbeat of a loop that has run for 24.8 days', () => {
  /** Where the int32 of the loop's milliseconds wraps. */
  const WRAP = 2 ** 31

  afterEach(() => {
    vi.restoreAllMocks()
  })

  it('still finds a peer that takes nothing, across the moment when the clock wraps', async () => {
    const real = performance.now.bind(performance)
    let ahead = 0
    vi.spyOn(performance, 'now').mockImplementation(() => real() + ahead)
    const fake = await serve(echo, { heartbeat: 40 })
    ahead = WRAP - 60
    const client = new Client(fake).read(request())
    expect(client.status).toBe(101)
    client.socket.room = () => 0
    client.c.send('x'.repeat(1000))
    await until('the peer is given up', () => !client.c.connected)
    expect(fake.loop.now).toBeLessThan(0)
  })
})

describe('under allowHalfOpen, a WebSocket whose peer has ended its side', () => {
  async function ended(limits: ConnectionLimits, options: WebSocketOptions = {}): Promise<Client> {
    const protocol = new WebSocketProtocol(options)
    const client = new Client(await fakeLoop(echo, { ...limits, allowHalfOpen: true, protocol }))
    client.read(request(), frame(1, 'a'))
    client.socket.end()
    await settle()
    return client
  }

  it('stays open and can be sent to until its handler closes it', async () => {
    const client = await ended({})
    expect([client.socket.closed, webSocketOf(client.c).open]).toEqual([undefined, true])
    client.c.send('b')
    client.c.close()
    await settle()
    expect(client.told).toEqual(['text a', 'text b', 'close 1000'])
    expect(client.socket.closed).toBe('at once')
  })

  it.each<[string, ConnectionLimits, WebSocketOptions]>([
    ['idleTime', { idleTime: 30 }, {}],
    ['a heartbeat', {}, { heartbeat: 30 }],
  ])('is ended by %s', async (_name, limits, options) => {
    const client = await ended(limits, options)
    await until('it is closed', () => client.socket.closed !== undefined)
  })
})
