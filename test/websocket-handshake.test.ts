/** The opening handshake (RFC 6455, section 4.2) on the server: what opens a WebSocket, and what each mistake gets. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Connection } from '../src/connection.js'
import type { CloseReason } from '../src/errors.js'
import { parseExtensions } from '../src/plugins/websocket/extension-header.js'
import {
  type HttpAnswer,
  type UpgradeRequest,
  type WebSocketOptions,
  type WebSocketOut,
  webSocketOf,
} from '../src/plugins/websocket/index.js'
import { settle } from './support/fake-loop.js'
import { until } from './support/wait.js'
import { ACCEPT, Client, echo, frame, open, request, serve } from './support/websocket.js'

/** A `verify` that waits for the test. */
function undecided(): { verify(): Promise<boolean>; decide(verdict: boolean): void } {
  let settle: (verdict: boolean) => void = () => {}
  const verdict = new Promise<boolean>((resolve) => {
    settle = resolve
  })
  return { verify: () => verdict, decide: (value) => settle(value) }
}

async function ask(text: string | Uint8Array, options: WebSocketOptions = {}): Promise<Client> {
  return new Client(await serve(echo, options)).read(text)
}

describe('a correct request', () => {
  it('is answered as in the RFC’s example', async () => {
    const { client } = await open()
    expect(client.head).toBe(
      [
        'HTTP/1.1 101 Switching Protocols',
        'Upgrade: websocket',
        'Connection: Upgrade',
        `Sec-WebSocket-Accept: ${ACCEPT}`,
        '\r\n',
      ].join('\r\n'),
    )
  })

  it.each([
    { Upgrade: 'WebSocket' },
    { Upgrade: 'h2c, websocket' },
    { Connection: 'keep-alive, Upgrade' },
    { Connection: ['keep-alive', 'upgrade'] },
    { 'Content-Length': '0' },
    { 'Sec-WebSocket-Extensions': 'x-unknown; a="b, c"; d' },
    { Origin: 'null', Cookie: 'a=b' },
  ])('may say %o', async (changes) => {
    expect((await ask(request(changes))).status).toBe(101)
  })

  it.each([{ Upgrade: 'websocket\xa0' }, { Connection: 'upgrade\xa0' }, { Connection: '\x0bupgrade' }])(
    'may not have other spaces than HTTP’s: %j',
    async (changes) => {
      const text = Buffer.from(String(request(changes)), 'latin1')
      expect((await ask(text)).status).not.toBe(101)
    },
  )

  it('may come in any pieces, with frames behind it', async () => {
    const bytes = Buffer.concat([Buffer.from(request()), frame(1, 'early'), frame(9, 'bird')])
    const whole = (await ask(bytes)).socket.out
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(bytes.length), { maxLength: 8 }), async (cuts) => {
        const client = new Client(await serve())
        const places = [0, ...cuts.sort((a, b) => a - b), bytes.length]
        for (let i = 1; i < places.length; i++) client.read(bytes.subarray(places[i - 1], places[i]))
        expect(client.socket.out.equals(whole)).toBe(true)
        expect(client.told).toEqual(['text early', 'pong bird'])
      }),
      { numRuns: 50 },
    )
  })

  it('is at hand in onConnect, which comes before the first message', async () => {
    const seen: unknown[] = []
    const { client } = await open(
      {
        onConnect: (c) => {
          const ws = webSocketOf(c)
          seen.push(ws.path, ws.query, ws.origin, ws.headers.get('cookie'), ws.protocol, ws.open)
          c.send('welcome')
        },
        onMessage: (c) => webSocketOf(c).request.headers.get('user-agent'),
      },
      { protocols: ['v2', 'v1'] },
      { Origin: 'https://a.example', Cookie: 'id=5', 'User-Agent': 'me', 'Sec-WebSocket-Protocol': 'v1, v2' },
    )
    client.read(frame(1, '?'))
    expect(seen).toEqual(['/chat', 'room=1', 'https://a.example', 'id=5', 'v1', true])
    expect(client.told).toEqual(['text welcome', 'text me'])
  })

  it('keeps apart what two clients said', async () => {
    const paths: string[] = []
    const fake = await serve({ ...echo, onConnect: (c) => void paths.push(webSocketOf(c).path) })
    for (const path of ['/a', '/b', '/a']) new Client(fake).read(request({}, `GET ${path} HTTP/1.1`))
    expect(paths).toEqual(['/a', '/b', '/a'])
  })
})

describe('a subprotocol', () => {
  const offer = { 'Sec-WebSocket-Protocol': ['soap, wamp', 'mqtt'] }

  it.each([
    [undefined, undefined],
    [['mqtt'], 'mqtt'],
    [['mqtt', 'wamp'], 'wamp'],
    [['other'], undefined],
    [(offered: readonly string[]) => offered.at(-1), 'mqtt'],
    [() => undefined, undefined],
  ])('is chosen by %o', async (protocols, chosen) => {
    const client = await ask(request(offer), protocols === undefined ? {} : { protocols })
    expect(client.status).toBe(101)
    expect(client.header('Sec-WebSocket-Protocol')).toBe(chosen)
  })

  it('that was not offered cannot be chosen', async () => {
    const client = await ask(request(offer), { protocols: () => 'mine' })
    expect(client.status).toBe(500)
    expect(client.socket.closed).toBe('lingering')
  })
})

describe('a wrong request', () => {
  const bad = (name: string, value: string | readonly string[] | undefined): string =>
    request({ [name]: value })
  it.each([
    ['without Upgrade', 426, request({ Upgrade: undefined })],
    ['for another upgrade', 426, request({ Upgrade: 'h2c' })],
    ['of HTTP/1.0', 426, request({}, 'GET / HTTP/1.0')],
    ['without Connection', 400, request({ Connection: undefined })],
    ['with another Connection', 400, request({ Connection: 'keep-alive' })],
    ['without Host', 400, request({ Host: undefined })],
    ['with two hosts', 400, request({ Host: ['a', 'b'] })],
    ['with a host that is none', 400, request({ Host: 'a/b' })],
    ['with a host of two ports', 400, request({ Host: 'a:b:c' })],
    ['with a host that is no text', 400, request({ Host: '%zz' })],
    ['for a target with two ports', 400, request({}, 'GET http://a:b:c/s HTTP/1.1')],
    ['for a target that is no text', 400, request({}, 'GET http://%zz/s HTTP/1.1')],
    ['for a target with a user', 400, request({}, 'GET http://u@b/s HTTP/1.1')],
    ['that is plain, with a host that is none', 400, 'GET / HTTP/1.1\r\nHost: a/b\r\n\r\n'],
    ['that is plain, without a host', 400, 'GET / HTTP/1.1\r\n\r\n'],
    ['that is plain, with two hosts', 400, 'GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n'],
    ['by POST', 405, request({}, 'POST / HTTP/1.1')],
    ['by HEAD', 405, request({}, 'HEAD / HTTP/1.1')],
    ['of version 8', 426, bad('Sec-WebSocket-Version', '8')],
    ['of version 14', 426, bad('Sec-WebSocket-Version', '14')],
    ['of version abc', 426, bad('Sec-WebSocket-Version', 'abc')],
    ['of no version', 400, bad('Sec-WebSocket-Version', undefined)],
    ['of two versions', 400, bad('Sec-WebSocket-Version', ['13', '13'])],
    ['without a key', 400, bad('Sec-WebSocket-Key', undefined)],
    ['with an empty key', 400, bad('Sec-WebSocket-Key', '')],
    ['with a short key', 400, bad('Sec-WebSocket-Key', 'c2hvcnQ=')],
    ['with a long key', 400, bad('Sec-WebSocket-Key', `${'A'.repeat(24)}==`)],
    ['with a key that is not base64', 400, bad('Sec-WebSocket-Key', `${'?'.repeat(22)}==`)],
    ['with two keys', 400, bad('Sec-WebSocket-Key', [`${'A'.repeat(22)}==`, `${'A'.repeat(22)}==`])],
    ['with a body', 400, bad('Content-Length', '5')],
    ['with a chunked body', 400, bad('Transfer-Encoding', 'chunked')],
    ['with an empty subprotocol', 400, bad('Sec-WebSocket-Protocol', '')],
    ['with a subprotocol twice', 400, bad('Sec-WebSocket-Protocol', 'a, a')],
    ['with a subprotocol of two words', 400, bad('Sec-WebSocket-Protocol', 'a b')],
    ['with extensions that cannot be read', 400, bad('Sec-WebSocket-Extensions', 'a; b=')],
    ['with a head over 16 KiB', 431, bad('X-Long', 'x'.repeat(17_000))],
    ['with 101 headers', 431, bad('X-Many', Array.from({ length: 101 }, String))],
    ['with a request line over 16 KiB', 414, request({}, `GET /${'x'.repeat(17_000)} HTTP/1.1`)],
    ['with a folded header', 400, 'GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n'],
    ['that is no HTTP', 400, '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'],
    ['of HTTP/2', 505, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  ])('%s gets %i and its connection is closed', async (_name, status, text) => {
    const closed: CloseReason[] = []
    const handler = { ...echo, onClose: (_c: unknown, reason: CloseReason) => void closed.push(reason) }
    const fake = await serve(handler)
    const client = new Client(fake).read(Buffer.from(text, 'latin1'))
    expect(client.status).toBe(status)
    expect(client.header('Connection')).toBe(status === 426 ? 'Upgrade, close' : 'close')
    expect(client.header('Date')).toMatch(/^\w{3}, \d\d /)
    expect(client.socket.closed).toBe('lingering')
    if (status === 426) {
      expect(client.header('Sec-WebSocket-Version')).toBe('13')
      expect(client.header('Upgrade')).toBe('websocket')
    }
    if (status === 405) expect(client.header('Allow')).toBe('GET')
    expect(closed).toEqual([])
    expect(fake.ringsOut()).toBe(0)
    expect(fake.poller.violations).toEqual([])
  })

  it('that never ends is refused as soon as it is too long', async () => {
    const client = new Client(await serve())
    client.read('GET / HTTP/1.1\r\n')
    for (let i = 0; i < 20; i++) client.read(`X-${i}: ${'x'.repeat(1000)}\r\n`)
    expect(client.status).toBe(431)
  })

  it('that is slow is ended with 408', async () => {
    const client = await ask(request().slice(0, 30), { handshakeTimeout: 30 })
    await until('the server has given up', () => client.socket.closed !== undefined)
    expect(client.status).toBe(408)
  })

  it('is not told apart from silence: that is ended too', async () => {
    const client = await ask('', { handshakeTimeout: 30 })
    await until('the server has given up', () => client.socket.closed !== undefined)
  })
})

describe('verify', () => {
  it.each([
    [true, 101],
    [false, 403],
    [{ status: 401, headers: { 'WWW-Authenticate': 'Basic' }, body: 'who?' }, 401],
    [{ body: 'no' }, 403],
    [undefined as unknown as boolean, 403],
  ] as const)('that says %o gives %i, now or later', async (verdict, status) => {
    const now = await ask(request(), { verify: () => verdict })
    const later = await ask(request(), { verify: async () => verdict })
    await settle()
    for (const client of [now, later]) {
      expect(client.status).toBe(status)
      if (status === 401) {
        expect(client.header('WWW-Authenticate')).toBe('Basic')
        expect(client.body.toString()).toBe('who?')
      }
      expect(client.socket.closed).toBe(status === 101 ? undefined : 'lingering')
    }
  })

  it('sees the request and the connection', async () => {
    const seen: unknown[] = []
    const verify = (asked: UpgradeRequest, c: Connection<WebSocketOut>): boolean => {
      seen.push(asked.path, asked.host, asked.protocols, asked.origin, c.peerAddr.startsWith('10.0.0.1:'))
      return true
    }
    await ask(request({ Origin: 'x', 'Sec-WebSocket-Protocol': 'a, b' }), { verify })
    expect(seen).toEqual(['/chat', 'example.com', ['a', 'b'], 'x', true])
  })

  it('holds back what the client sends meanwhile, in order', async () => {
    const { verify, decide } = undecided()
    const client = await ask(Buffer.concat([Buffer.from(request()), frame(1, 'one')]), { verify })
    client.read(frame(1, 'two'))
    await settle()
    expect(client.socket.out).toHaveLength(0)
    decide(true)
    await settle()
    expect(client.told).toEqual(['text one', 'text two'])
  })

  it('leaves paused what onConnect pauses', async () => {
    const { verify, decide } = undecided()
    const fake = await serve({ ...echo, onConnect: (c) => c.pause() }, { verify })
    const client = new Client(fake).read(request(), frame(1, 'one'))
    decide(true)
    await settle()
    expect(client.c.paused).toBe(true)
    expect(client.told).toEqual([])
  })

  it.each(['no', 1, ['no'], { ok: true }, {}])('that says %o gives 500', async (given) => {
    const client = await ask(request(), { verify: () => given as HttpAnswer })
    expect(client.status).toBe(500)
  })

  it('that throws or rejects gives 500, and is logged', async () => {
    const failures = [
      () => {
        throw new Error('no luck')
      },
      () => Promise.reject(new Error('no luck')),
    ]
    for (const verify of failures) {
      const fake = await serve(echo, { verify })
      const client = new Client(fake).read(request())
      await settle()
      expect(client.status).toBe(500)
      expect(client.socket.closed).toBe('lingering')
      expect(fake.logger.find('error', 'no luck')).toHaveLength(1)
    }
  })

  it('that comes too late finds nothing to answer', async () => {
    const { verify, decide } = undecided()
    const fake = await serve(echo, { verify })
    const client = new Client(fake).read(request())
    client.socket.reset()
    decide(true)
    await settle()
    expect(client.socket.out).toHaveLength(0)
    expect(fake.logger.find('error', '')).toEqual([])
    expect(fake.poller.violations).toEqual([])
  })
})

describe('a plain request', () => {
  const plain = (line: string): string => `${line}\r\nHost: a\r\n\r\n`

  it('gets 426, or 405 where it is not even a GET', async () => {
    const client = await ask(plain('GET / HTTP/1.1'))
    expect([client.status, client.header('Connection')]).toEqual([426, 'Upgrade, close'])
    expect((await ask(plain('DELETE / HTTP/1.1'))).status).toBe(405)
  })

  it('gets what onRequest answers, now or later, and its connection is closed', async () => {
    const page = { headers: { 'Content-Type': 'text/html' }, body: '<p>ü</p>' }
    for (const onRequest of [() => page, async () => page]) {
      const client = await ask(plain('GET /page HTTP/1.1'), { onRequest })
      await settle()
      expect(client.status).toBe(200)
      expect(client.header('Content-Length')).toBe('9')
      expect(client.body.toString()).toBe('<p>ü</p>')
      expect(client.socket.closed).toBe('lingering')
    }
  })

  it.each([
    'page',
    '',
    true,
    7,
    ['page'],
    Buffer.from('page'),
    { ok: true },
    {},
    () => 'page',
    { headers: ['x-a', '1'], body: 'page' },
  ])('that onRequest answers with %o gets 500, now or later, and it is logged', async (given) => {
    const answer = given as HttpAnswer
    for (const onRequest of [() => answer, async () => answer]) {
      const fake = await serve(echo, { onRequest })
      const client = new Client(fake).read(plain('GET / HTTP/1.1'))
      await settle()
      expect(client.status).toBe(500)
      expect(client.body).toHaveLength(0)
      expect(fake.logger.find('error', 'hook')).toHaveLength(1)
    }
  })

  it('by HEAD gets no body', async () => {
    const client = await ask(plain('HEAD / HTTP/1.1'), { onRequest: () => ({ body: 'page' }) })
    expect(client.header('Content-Length')).toBe('4')
    expect(client.body).toHaveLength(0)
  })

  it('that onRequest does not know gets 426', async () => {
    expect((await ask(plain('GET / HTTP/1.1'), { onRequest: () => undefined })).status).toBe(426)
  })

  it.each([
    [204, undefined],
    [205, '0'],
    [304, undefined],
  ])('answered with %i gets no body', async (status, length) => {
    const client = await ask(plain('GET / HTTP/1.1'), { onRequest: () => ({ status, body: 'page' }) })
    expect(client.status).toBe(status)
    expect(client.header('Content-Length')).toBe(length)
    expect(client.body).toHaveLength(0)
  })

  it('gets headers of any shape, and none for undefined', async () => {
    const all = [new Headers({ 'x-a': '1' }), new Map([['x-a', 1]]), { 'x-a': 1, 'x-b': undefined }]
    for (const headers of all) {
      const client = await ask(plain('GET / HTTP/1.1'), { onRequest: () => ({ headers, body: 'page' }) })
      expect(client.header('x-a')).toBe('1')
      expect(client.header('x-b')).toBeUndefined()
    }
  })

  it('gets one Content-Length, the right one', async () => {
    const headers = { 'content-length': '7', Connection: 'keep-alive', 'X-A': 'b' }
    const client = await ask(plain('GET / HTTP/1.1'), { onRequest: () => ({ headers, body: 'page' }) })
    expect(client.head.match(/^(?:content-length|connection|x-a): .*$/gim)).toEqual([
      'X-A: b',
      'Content-Length: 4',
      'Connection: close',
    ])
  })

  it.each([
    { headers: { Location: '/login?next=\u010d\u010aSet-Cookie: a=b\u010d\u010a\u010d\u010a<h1>' } },
    { headers: { Location: '/\u2028' } },
    { headers: { Location: 'a\r\nb: c' } },
    { headers: { 'X-\u010d\u010a': 'a' } },
    { headers: { 'X-Count': {} as never } },
    { headers: new Map([['X-A', 'b\r\nSet-Cookie: d']]) },
    { status: '200 OK\r\nSet-Cookie: a=b' as never },
    { status: 99 },
    { status: 101 },
    { status: 600 },
    { body: 5 as never },
  ])('with %j as its answer, which cannot be written, gets 500, and no byte of it', async (answer) => {
    for (const how of [() => answer, async () => answer]) {
      const refused = await ask(request(), { verify: how })
      await settle()
      expect(refused.status).toBe(500)
      expect(refused.head).not.toMatch(/Set-Cookie|Location|<h1>/)
      const plainly = await ask(plain('GET / HTTP/1.1'), { onRequest: how })
      await settle()
      expect(plainly.status).toBe(500)
      expect(plainly.head).not.toMatch(/Set-Cookie|Location|<h1>/)
    }
  })

  it('cannot be answered with a header that breaks the line', async () => {
    const onRequest = () => ({ headers: { 'X-A': 'b\r\nX-C: d' } })
    expect((await ask(plain('GET / HTTP/1.1'), { onRequest })).status).toBe(500)
  })
})

describe('Sec-WebSocket-Extensions', () => {
  it('is read as it is written', () => {
    const read = parseExtensions('a; b; C=1; d="x \\" y",permessage-deflate ;e = f')!
    expect(read.map(({ name, params, repeated }) => [name, [...params], repeated])).toEqual([
      [
        'a',
        [
          ['b', true],
          ['c', '1'],
          ['d', 'x " y'],
        ],
        false,
      ],
      ['permessage-deflate', [['e', 'f']], false],
    ])
    expect(parseExtensions('a; b; b=1')![0]!.repeated).toBe(true)
  })

  it.each(['', ',', 'a,', 'a,,b', 'a b', 'a;', 'a; b=', 'a; =b', 'a; b="c', 'a; b=c d', 'a; b@'])(
    'is refused where it is %o',
    (text) => {
      expect(parseExtensions(text)).toBeUndefined()
    },
  )

  it('is read in time that grows with its length only', () => {
    const begin = performance.now()
    for (const unit of [' ', '\t;', 'a;', 'a, ', 'a; b="', '\\"', '  ,']) {
      parseExtensions(`a; b="${unit.repeat(16_000 / unit.length)}`)
      parseExtensions(`a${unit.repeat(16_000 / unit.length)}`)
    }
    expect(performance.now() - begin).toBeLessThan(2000)
  })
})
