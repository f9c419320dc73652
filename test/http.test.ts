import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { type CloseReason, type Handler, Server } from 'ringloop'
import {
  type HeaderValue,
  HttpError,
  type HttpOptions,
  type HttpOutput,
  HttpProtocol,
  type HttpRequest,
  httpHandler,
} from 'ringloop/http'
import { afterEach, describe, expect, it } from 'vitest'
import { nativeAvailable } from '../src/loop/poller/native-poller.js'
import { type MemoryLogger, memoryLogger } from './support/memory-logger.js'
import { connectRaw, type RawClient } from './support/raw-client.js'
import { until, within } from './support/wait.js'

type Answer = Parameters<typeof httpHandler>[0]

interface Running {
  readonly server: Server<HttpRequest, HttpOutput>
  readonly logger: MemoryLogger
  readonly requests: HttpRequest[]
  readonly reasons: CloseReason[]
  connect(): Promise<RawClient>
  /** Sends, waits until the server ends the connection, and gives everything that came. */
  talk(bytes: string | Buffer): Promise<string>
}

const servers: Server<HttpRequest, HttpOutput>[] = []
const clients: RawClient[] = []

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  await Promise.all(servers.splice(0).map((server) => within('a server’s stop', server.stop())))
})

async function start(poller: 'native' | 'net', answer: Answer, options: HttpOptions = {}): Promise<Running> {
  const requests: HttpRequest[] = []
  const reasons: CloseReason[] = []
  const logger = memoryLogger()
  const handler: Handler<HttpRequest, HttpOutput> = httpHandler(
    (request, c) => {
      requests.push(request)
      return answer(request, c)
    },
    { onClose: (_c, reason) => void reasons.push(reason) },
  )
  const server = new Server(handler, {
    address: '127.0.0.1:0',
    poller,
    logger,
    protocol: new HttpProtocol(options),
  })
  servers.push(server)
  await within('the start', server.start())
  const connect = async (): Promise<RawClient> => {
    const client = await connectRaw({ port: server.address.port })
    clients.push(client)
    return client
  }
  const talk = async (bytes: string | Buffer): Promise<string> => {
    const client = await connect()
    client.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes)
    await client.whenEnded()
    return client.text
  }
  return { server, logger, requests, reasons, connect, talk }
}

const withoutDate = (text: string): string => text.replaceAll(/Date: [^\r]*\r\n/g, '')
async function* stream(...all: (string | Buffer)[]): AsyncGenerator<string | Buffer> {
  yield* all
}

const bodyOf = (text: string): string => text.slice(text.indexOf('\r\n\r\n') + 4)
const statuses = (text: string): string[] =>
  [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => match[1]!)

const GET = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'
const LAST_GET = 'GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
const post = (head: string, body = ''): string => `POST /p HTTP/1.1\r\nHost: x\r\n${head}\r\n${body}`

const POLLERS = nativeAvailable() === true ? (['native', 'net'] as const) : (['net'] as const)

describe.each(POLLERS)('HTTP on the %s poller', (poller) => {
  describe('answers', () => {
    it('keeps the connection for the next request, and closes it when asked to', async () => {
      const { talk, requests, reasons } = await start(poller, (request) => `hello ${request.path}`)
      const text = withoutDate(await talk(GET + LAST_GET))
      expect(text).toBe(
        'HTTP/1.1 200 OK\r\nContent-Type: text/plain;charset=utf-8\r\nContent-Length: 7\r\n\r\nhello /' +
          'HTTP/1.1 200 OK\r\nContent-Type: text/plain;charset=utf-8\r\nContent-Length: 11\r\nConnection: close\r\n\r\nhello /last',
      )
      expect(requests.map((request) => request.path)).toEqual(['/', '/last'])
      await until('it is closed', () => reasons.length === 1)
      expect(reasons[0]!.code).toBe('closed')
    })

    it('says today’s date', async () => {
      const { talk } = await start(poller, () => 'x')
      const before = Date.now()
      const [, date] = /\r\nDate: (\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT)\r\n/.exec(
        await talk(LAST_GET),
      )!
      expect(Math.abs(Date.parse(date!) - before)).toBeLessThan(30_000)
    })

    it('answers pipelined requests in their order, also where an earlier one takes longer', async () => {
      const { talk } = await start(poller, async (request) => {
        await sleep(Number(request.query))
        return request.query
      })
      const delays = [30, 0, 20, 5, 0]
      const text = await talk(
        delays.map((ms) => `GET /?${ms} HTTP/1.1\r\nHost: x\r\n\r\n`).join('') +
          LAST_GET.replace('/last', '/?1'),
      )
      expect(text.split('HTTP/1.1 200 OK').map(bodyOf).slice(1)).toEqual(['30', '0', '20', '5', '0', '1'])
    })

    it.each([
      ['a long text', 'x'.repeat(200), 'text/plain;charset=utf-8', 'x'.repeat(200)],
      ['a short text that is not ASCII', 'grün', 'text/plain;charset=utf-8', 'grün'],
      ['an empty text', '', 'text/plain;charset=utf-8', ''],
      ['bytes', Buffer.from([0x61, 0x62]), 'application/octet-stream', 'ab'],
      ['a body without a type', { body: 'ab' }, 'text/plain;charset=utf-8', 'ab'],
      ['a body with a type', { headers: { 'content-type': 'a/b' }, body: 'ab' }, 'a/b', 'ab'],
      ['a large body', 'ä'.repeat(300_000), 'text/plain;charset=utf-8', 'ä'.repeat(300_000)],
    ])('sends %s', async (_name, out, type, body) => {
      const { talk } = await start(poller, () => out as HttpOutput)
      for (const text of [await talk(LAST_GET), bodyOf(withoutDate(await talk(GET + LAST_GET)))]) {
        expect(text.endsWith(body)).toBe(true)
      }
      const text = await talk(LAST_GET)
      expect(text.toLowerCase()).toContain(`content-type: ${type}\r\n`)
      expect(text).toContain(`Content-Length: ${Buffer.byteLength(body)}\r\n`)
      expect(bodyOf(text)).toBe(body)
    })

    it('sends status and headers, a list as one line each', async () => {
      const { talk } = await start(poller, () => ({
        status: 404,
        headers: { 'X-Number': 7, 'set-cookie': ['a=1', 'b=2'], date: 'never' },
        body: 'no',
      }))
      expect(await talk(LAST_GET)).toBe(
        'HTTP/1.1 404 Not Found\r\nX-Number: 7\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ndate: never\r\n' +
          'Content-Type: text/plain;charset=utf-8\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno',
      )
    })

    it('answers with nothing as 204, at once and by a promise', async () => {
      const { talk } = await start(poller, (request) =>
        request.path === '/' ? undefined : Promise.resolve(),
      )
      expect(withoutDate(await talk(GET + LAST_GET))).toBe(
        'HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n',
      )
    })

    it('answers once where the handler sends by itself, and refuses a second answer', async () => {
      let error: unknown
      const { talk } = await start(poller, (_request, c) => {
        c.send('first')
        try {
          c.send('second')
        } catch (thrown) {
          error = thrown
        }
      })
      const text = await talk(GET + LAST_GET)
      expect(text.match(/first/g)).toHaveLength(2)
      expect(text).not.toContain('second')
      expect(statuses(text)).toEqual(['200', '200'])
      expect(error).toMatchObject({ code: 'ERR_RINGLOOP_PACKET' })
    })

    it('sends a stream that the handler sends by itself', async () => {
      const { talk } = await start(poller, (_request, c) => {
        c.send(
          (async function* parts() {
            yield 'abc'
          })(),
        )
      })
      expect(await talk(GET + LAST_GET)).toMatch(/3\r\nabc\r\n0\r\n\r\nHTTP[\s\S]*3\r\nabc\r\n0\r\n\r\n$/)
    })

    it('sends no body to HEAD, with 204 and with 304, and the length only to HEAD', async () => {
      const { talk } = await start(poller, (request) =>
        request.path === '/head' ? 'hello' : { status: Number(request.path.slice(1)), body: 'gone' },
      )
      const ask = (line: string): string => `${line} HTTP/1.1\r\nHost: x\r\n\r\n`
      const text = await talk(
        ask('HEAD /head') + ask('GET /204') + ask('GET /304') + LAST_GET.replace('/last', '/200'),
      )
      const [head, no, unchanged, last] = withoutDate(text).split('HTTP/1.1 ').slice(1)
      expect(head).toBe('200 OK\r\nContent-Type: text/plain;charset=utf-8\r\nContent-Length: 5\r\n\r\n')
      expect(no).toBe('204 No Content\r\n\r\n')
      expect(unchanged).toBe('304 Not Modified\r\n\r\n')
      expect(bodyOf(last!)).toBe('gone')
    })

    it('closes after an answer to HTTP/1.0 unless the client asks to keep it', async () => {
      const { talk } = await start(poller, () => 'x')
      expect(await talk('GET / HTTP/1.0\r\n\r\n')).toContain('Connection: close\r\n')
      const text = await talk('GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET / HTTP/1.0\r\n\r\n')
      expect(statuses(text)).toEqual(['200', '200'])
      expect(text).toContain('Connection: keep-alive\r\n')
    })

    it('closes when the handler’s answer says so', async () => {
      const { talk } = await start(poller, () => ({ headers: { Connection: 'close' }, body: 'x' }))
      expect(statuses(await talk(GET + GET))).toEqual(['200'])
    })

    it.each<[string, unknown]>([
      ['a line end in a value', { headers: { a: 'b\r\nEvil: 1' } }],
      ['a line end in a name', { headers: { 'a\r\nEvil': '1' } }],
      ['a character above Latin-1', { headers: { a: '€' } }],
      ['a transfer-encoding', { headers: { 'transfer-encoding': 'chunked' } }],
      ['a content-length that is not the body’s', { headers: { 'content-length': 3 }, body: 'ab' }],
      ['a line end by way of Latin-1', { headers: { Location: '/login?next=\u010d\u010aEvil: 1' } }],
      ['a line end in a pair', { headers: new Map([['a', 'b\r\nEvil: 1']]) }],
      ['a value that is null', { headers: { a: null } }],
      ['a value that is an object', { headers: { a: {} } }],
      ['headers as a flat list', { headers: ['x-a', '1'] }],
      ['headers as bytes', { headers: Buffer.from('ab') }],
      ['a pair of three', { headers: [['a', 'b', 'c']] }],
      ['a name alone', { headers: [['a']] }],
      ['a line end in a connection', { headers: { connection: 'close\r\nEvil: 1' } }],
      ['a line end in a list of a connection', { headers: { connection: ['close', 'upgrade\nEvil: 1'] } }],
      ['a connection that is no list of tokens', { headers: { connection: 'close; now' } }],
      ['a connection that is null', { headers: { connection: null } }],
      ['a connection that is an object', { headers: { connection: {} } }],
      ['a status with a header', { status: '200 OK\r\nEvil: 1' }],
      ...[99, 100, 101, 199, 600, 700, 999, 200.5].map((status): [string, unknown] => [
        `the status ${status}`,
        { status },
      ]),
      ['a number', 7],
      ['an object for JSON', { ok: true }],
      ['a body for JSON', { body: { ok: true } }],
      ['a body that is null', { body: null }],
    ])('answers 500 and logs it where the handler returns %s', async (_name, out) => {
      const { talk, reasons, logger } = await start(poller, () => out as HttpOutput)
      const text = await talk(GET)
      expect(statuses(text)).toEqual(['500'])
      expect(text).not.toContain('Evil')
      await until('it is closed', () => reasons.length === 1)
      expect(reasons[0]!.code).toBe('handler-error')
      expect(logger.lines.filter((line) => line.level === 'error')).toHaveLength(1)
    })

    it.each([
      ['upgrade', 'upgrade, close'],
      [['Upgrade', 'keep-alive'], 'Upgrade, close'],
      ['x-a,, x-b , close', 'x-a, x-b, close'],
      ['', 'close'],
      [undefined, 'close'],
    ])('keeps the options of the connection %j beside its own', async (connection, line) => {
      const { talk } = await start(poller, () => ({ headers: { connection }, body: 'x' }))
      const text = await talk(LAST_GET)
      expect(text.match(/^connection: .*$/gim)).toEqual([`Connection: ${line}`])
    })

    it('says nothing of the connection but what the handler says, where it is kept', async () => {
      const { connect } = await start(poller, () => ({
        headers: { connection: 'keep-alive, upgrade' },
        body: 'x',
      }))
      const text = await (await connect()).ask(GET)
      expect(text.match(/^connection: .*$/gim)).toEqual(['Connection: upgrade'])
    })

    it('answers 500 where the handler throws or rejects, without saying why', async () => {
      const { talk } = await start(poller, (request) => {
        if (request.path === '/') throw new Error('secret')
        return Promise.reject(new Error('secret'))
      })
      for (const text of [await talk(GET + GET), await talk(LAST_GET)]) {
        expect(statuses(text)).toEqual(['500'])
        expect(text).not.toContain('secret')
      }
    })

    it('answers an HttpError of the handler with its status', async () => {
      const { talk } = await start(poller, (request) => {
        if (request.path === '/') throw new HttpError(403, 'not you')
        return String(request.json())
      })
      expect(await talk(GET)).toMatch(/^HTTP\/1\.1 403 Forbidden\r\n[\s\S]*Connection: close\r\n\r\nnot you$/)
      expect(statuses(await talk(post('Content-Length: 1\r\n', '{')))).toEqual(['400'])
    })

    it.each([
      ['', 200],
      ['a:', 200],
      ['a:80', 200],
      ['127.0.0.1:80', 200],
      ['[::1]:80', 200],
      ['[v1.a:b]', 200],
      ['%41_b', 200],
    ])('takes the Host %j', async (host, status) => {
      const { talk } = await start(poller, () => 'x')
      expect(statuses(await talk(LAST_GET.replace('Host: x', `Host: ${host}`)))).toEqual([`${status}`])
    })

    it('is asked for the host of an absolute target, whatever Host says', async () => {
      const { talk, requests } = await start(poller, () => 'x')
      const targets = ['/', 'http://a', 'http://a:80?b', 'https://[::1]:80/c', 'http://%41_b/c?d=http://e/']
      for (const target of targets) await talk(LAST_GET.replace('/last', target))
      await talk('OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
      await talk('GET / HTTP/1.0\r\n\r\n')
      const hosts = requests.map((request) => request.host)
      expect(hosts).toEqual(['x', 'a', 'a:80', '[::1]:80', '%41_b', 'x', undefined])
    })

    it.each([
      [
        'Headers',
        new Headers([
          ['A', '1'],
          ['set-cookie', 'a=1'],
          ['set-cookie', 'b=2'],
        ]),
      ],
      [
        'a Map',
        new Map<string, HeaderValue>([
          ['a', 1],
          ['set-cookie', ['a=1', 'b=2']],
          ['none', undefined],
        ]),
      ],
      [
        'pairs',
        [
          ['a', '1'],
          ['set-cookie', 'a=1'],
          ['set-cookie', 'b=2'],
        ] as const,
      ],
      ['an object', { a: 1, 'set-cookie': ['a=1', 'b=2'], none: undefined }],
    ])('sends headers that are %s, and none for undefined', async (_name, headers) => {
      const { talk } = await start(poller, () => ({ headers, body: 'x' }))
      const text = await talk(LAST_GET)
      expect(text).toContain('200 OK\r\na: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nDate: ')
    })

    it.each(['Keep-Alive, Close', ' close ', ['keep-alive', 'close']])(
      'closes where Connection is %j',
      async (connection) => {
        const { talk } = await start(poller, () => ({ headers: { connection }, body: 'x' }))
        expect(statuses(await talk(GET + GET))).toEqual(['200'])
      },
    )

    it.each([
      [204, ''],
      [205, 'Content-Length: 0\r\n'],
      [304, ''],
    ])('sends %i without a body, whatever the handler says', async (status, length) => {
      const { talk } = await start(poller, ({ path }) => {
        const body = path === '/' ? 'gone' : stream('gone')
        return { status, headers: path === '/' ? {} : { 'content-length': 4 }, body }
      })
      for (const text of [GET, LAST_GET]) {
        const [, head] = withoutDate(await talk(text + LAST_GET)).split('HTTP/1.1 ')
        const close = text === GET ? '' : 'Connection: close\r\n'
        expect(head).toMatch(new RegExp(`^${status} [\\w ]+\r\n${length}${close}\r\n$`))
      }
    })

    it('says the date, and to HEAD the same length as to GET, in its own errors too', async () => {
      const { talk } = await start(poller, ({ path }) => {
        if (path === '/403') throw new HttpError(403, 'not you')
        throw new Error('secret')
      })
      for (const rest of [
        '/403 HTTP/1.1\r\nHost: x',
        '/500 HTTP/1.1\r\nHost: x',
        '/400 HTTP/1.1\r\nHost: a/b',
      ]) {
        const [get, head] = [await talk(`GET ${rest}\r\n\r\n`), await talk(`HEAD ${rest}\r\n\r\n`)]
        const end = get.indexOf('\r\n\r\n') + 4
        expect(get.length).toBeGreaterThan(end)
        expect(withoutDate(head)).toBe(withoutDate(get.slice(0, end)))
        expect(head).toMatch(/\r\nDate: \w{3}, /)
      }
    })

    it('refuses an HttpError whose status is none', async () => {
      const { talk } = await start(poller, () => {
        throw new HttpError('200 OK\r\nEvil: 1' as never, 'no')
      })
      const text = await talk(GET)
      expect(statuses(text)).toEqual(['500'])
      expect(text).not.toContain('Evil')
    })

    it.each([
      ['a text', 'late', 'late'],
      ['a whole answer', { body: Buffer.from('late') }, 'late'],
      ['a stream', stream('late'), '4\r\nlate\r\n0\r\n\r\n'],
    ])(
      'finishes the answer under way when the server stops, and says that it is the last: %s',
      async (...all) => {
        const [_name, answer, body] = all
        let give: (answer: HttpOutput) => void = () => {}
        const later = new Promise<HttpOutput>((resolve) => {
          give = resolve
        })
        let isStopping = (): boolean => false
        const { server, connect } = await start(poller, (_request, c) => {
          isStopping = () => c.loop.stopping
          return later
        })
        const client = await connect()
        client.write(GET)
        await until('the request is there', () => server.stats().total.messagesIn > 0)
        const stopped = server.stop({ drain: 5000 })
        await until('the loop stops', () => isStopping())
        give(answer)
        await stopped
        await client.whenEnded()
        expect(bodyOf(client.text)).toBe(body)
        expect(client.text).toContain('Connection: close\r\n')
      },
    )
  })

  describe('the signal of a request', () => {
    it('is one, and is not aborted once the request is answered', async () => {
      const signals: AbortSignal[] = []
      const { talk } = await start(poller, (request) => {
        signals.push(request.signal, request.signal)
        return request.path === '/' ? 'x' : Promise.resolve('x')
      })
      expect(statuses(await talk(GET + LAST_GET))).toEqual(['200', '200'])
      expect(signals[0]).toBe(signals[1])
      expect(signals.map((signal) => signal.aborted)).toEqual([false, false, false, false])
    })

    it('is aborted where the server stops before the answer', async () => {
      const signals: AbortSignal[] = []
      const { server, connect } = await start(poller, (request) => {
        signals.push(request.signal)
        return new Promise(() => {})
      })
      const client = await connect()
      client.write(GET)
      await until('it is asked', () => signals.length === 1)
      await server.stop({ drain: 1 })
      expect(signals[0]!.aborted).toBe(true)
    })

    it('is aborted, asked for before or after, and nothing more can be answered', async () => {
      const errors: unknown[] = []
      const { connect, requests, logger, reasons } = await start(poller, (request, c) => {
        if (request.path === '/last') return new Promise(() => {})
        return new Promise((_resolve, reject) => {
          request.signal.addEventListener('abort', () => {
            try {
              c.send('too late')
            } catch (error) {
              errors.push(error)
            }
            reject(request.signal.reason)
          })
        })
      })
      for (const text of [GET, LAST_GET]) {
        const client = await connect()
        client.write(text)
        await until('it is asked', () => requests.length === (text === GET ? 1 : 2))
        if (text === GET) client.socket.end()
        else client.reset()
      }
      await until('both are closed', () => reasons.length === 2)
      for (const { signal } of requests) {
        expect(signal.aborted).toBe(true)
        expect(signal.reason).toMatchObject({ code: 'ERR_RINGLOOP_CLOSED' })
      }
      expect(errors).toMatchObject([{ code: 'ERR_RINGLOOP_PACKET' }])
      expect(logger.lines.filter((line) => line.level === 'error')).toEqual([])
    })
  })

  describe('request bodies', () => {
    const echo: Answer = (request) => request.body

    it.each([
      ['of a length', 'Content-Length: 5\r\n', 'hello', 'hello'],
      ['of length zero', 'Content-Length: 0\r\n', '', ''],
      ['of a length with leading zeros', 'Content-Length: 0000000000000000000005\r\n', 'hello', 'hello'],
      ['in chunks', 'Transfer-Encoding: chunked\r\n', '2\r\nhe\r\n03\r\nllo\r\n0\r\n\r\n', 'hello'],
      [
        'in chunks with Latin letters in size',
        'Transfer-Encoding: Chunked\r\n',
        'A\r\n0123456789\r\n00\r\n\r\n',
        '0123456789',
      ],
      ['in no chunks', 'Transfer-Encoding: chunked\r\n', '0\r\n\r\n', ''],
      [
        'with chunk extensions',
        'Transfer-Encoding: chunked\r\n',
        '5;a=b;c="d e"\r\nhello\r\n0;x\r\n\r\n',
        'hello',
      ],
      [
        'with chunk extensions that have blanks where they may',
        'Transfer-Encoding: chunked\r\n',
        '5 ; a = b ;\tc\t=\t"\\"; \\\\=é"\r\nhello\r\n0;x\r\n\r\n',
        'hello',
      ],
      ['with trailers', 'Transfer-Encoding: chunked\r\n', '5\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n', 'hello'],
    ])('takes a body %s, and the next request behind it', async (_name, head, body, expected) => {
      const { talk, requests } = await start(poller, echo)
      const text = await talk(post(head, body) + LAST_GET)
      expect(statuses(text)).toEqual(['200', '200'])
      expect(requests[0]!.text()).toBe(expected)
      expect(requests[1]!.path).toBe('/last')
    })

    it('takes a large body in whatever pieces', async () => {
      const { connect } = await start(poller, echo)
      const body = randomBytes(900_000)
      const client = await connect()
      client.write(post(`Content-Length: ${body.length}\r\n`))
      for (let at = 0; at < body.length; at += 77_777) {
        client.write(body.subarray(at, at + 77_777))
        await sleep(1)
      }
      const head = await client.bytes(body.length + 100).then(() => client.received.indexOf('\r\n\r\n') + 4)
      await client.bytes(head + body.length)
      expect(client.received.subarray(head).equals(body)).toBe(true)
    })

    it('sends 100 Continue before the body, once, and not where the body has come already', async () => {
      const { connect, talk } = await start(poller, echo)
      const client = await connect()
      client.write(post('Content-Length: 2\r\nExpect: 100-Continue\r\nConnection: close\r\n'))
      await client.bytes(25)
      expect(client.text).toBe('HTTP/1.1 100 Continue\r\n\r\n')
      client.write('hi')
      await client.whenEnded()
      expect(statuses(client.text)).toEqual(['100', '200'])
      const text = await talk(
        post('Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n', 'hi'),
      )
      expect(statuses(text)).toEqual(['200'])
    })

    it('takes POST without a length where requireLength is off', async () => {
      const { talk } = await start(poller, echo, { requireLength: false })
      expect(statuses(await talk(post('') + LAST_GET))).toEqual(['200', '200'])
    })
  })

  describe('what is refused', () => {
    const limits = { maxHeaderBytes: 1000, maxHeaders: 8, maxBodyBytes: 1000 }
    const chunked = (body: string): string => post('Transfer-Encoding: chunked\r\n', body)

    it.each<readonly [number, string, string]>([
      [
        400,
        'both Transfer-Encoding and Content-Length',
        post('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
      ],
      [
        400,
        'both the other way round',
        post('Transfer-Encoding: chunked\r\nContent-Length: 5\r\n', '0\r\n\r\n'),
      ],
      [400, 'two equal lengths', post('Content-Length: 5\r\nContent-Length: 5\r\n', 'hello')],
      [400, 'two lengths', post('Content-Length: 5\r\nContent-Length: 6\r\n', 'hello')],
      [400, 'two lengths in one field', post('Content-Length: 5, 5\r\n', 'hello')],
      [400, 'a length with a plus', post('Content-Length: +5\r\n', 'hello')],
      [400, 'a negative length', post('Content-Length: -5\r\n', 'hello')],
      [400, 'a length with a blank', post('Content-Length: 5 0\r\n', 'hello')],
      [400, 'a hexadecimal length', post('Content-Length: 0x5\r\n', 'hello')],
      [400, 'a length with a fraction', post('Content-Length: 5.0\r\n', 'hello')],
      [400, 'an empty length', post('Content-Length:\r\n', 'hello')],
      [501, 'another transfer coding', post('Transfer-Encoding: gzip\r\n')],
      [501, 'another transfer coding before chunked', post('Transfer-Encoding: gzip, chunked\r\n')],
      [501, 'identity', post('Transfer-Encoding: identity\r\n')],
      [501, 'a coding that only looks like chunked', post('Transfer-Encoding: xchunked\r\n')],
      [501, 'a coding behind a blank that is none', post('Transfer-Encoding: \xa0chunked\r\n')],
      [501, 'chunked in quotes', post('Transfer-Encoding: "chunked"\r\n')],
      [400, 'chunked that is not last', post('Transfer-Encoding: chunked, gzip\r\n')],
      [400, 'chunked twice', post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n')],
      [400, 'an empty transfer coding', post('Transfer-Encoding:\r\n')],
      [400, 'chunks in HTTP/1.0', 'POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
      [400, 'a blank before the colon', post('Transfer-Encoding : chunked\r\n', '0\r\n\r\n')],
      [400, 'a folded line', post('A: b\r\n c\r\nContent-Length: 0\r\n')],
      [400, 'a bare CR', post('A: b\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n')],
      [400, 'a bare LF', post('A: b\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n')],
      [400, 'a NUL', post('A: b\0\r\nContent-Length: 0\r\n')],
      [400, 'no Host', 'GET / HTTP/1.1\r\n\r\n'],
      [400, 'two Hosts', 'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n'],
      ...['a:b:c', '%zz', 'u@b', 'u:p@b', ':80', '@', 'a b', '[::1', '[x]', 'a\\b', 'a|b'].map(
        (authority) =>
          [
            400,
            `the target of ${authority}`,
            `GET http://${authority}/s HTTP/1.1\r\nHost: x\r\n\r\n`,
          ] as const,
      ),
      [400, 'a wrong target and the same Host', 'GET http://:80/s HTTP/1.1\r\nHost: :80\r\n\r\n'],
      [400, 'a wrong Host and a target', 'GET http://a/s HTTP/1.1\r\nHost: a/b\r\n\r\n'],
      [400, 'two empty Hosts', 'GET / HTTP/1.1\r\nHost:\r\nHost:\r\n\r\n'],
      ...[
        'a/b',
        'a:b:c',
        'a:b',
        '%zz',
        '%4',
        'a@b',
        'a b',
        '::1',
        '[::1',
        '[::1]x',
        '[::g]',
        '[fe80::1%25a]',
        '[]',
      ].map((host) => [400, `the Host ${host}`, `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`] as const),
      [400, 'an empty chunk size', chunked('\r\nhello\r\n0\r\n\r\n')],
      [400, 'a chunk size with a sign', chunked('+5\r\nhello\r\n0\r\n\r\n')],
      [400, 'a chunk size with 0x', chunked('0x5\r\nhello\r\n0\r\n\r\n')],
      [400, 'a chunk size that is no number', chunked('z\r\nhello\r\n0\r\n\r\n')],
      [400, 'a blank behind a chunk size', chunked('5 \r\nhello\r\n0\r\n\r\n')],
      [400, 'a blank before a chunk size', chunked(' 5\r\nhello\r\n0\r\n\r\n')],
      [400, 'a chunk size above all numbers', chunked('fffffffffffffffff\r\n')],
      [400, 'a chunk size ended by LF', chunked('5\nhello\r\n0\r\n\r\n')],
      [400, 'a chunk size ended by CR', chunked('5\rXhello\r\n0\r\n\r\n')],
      [400, 'a chunk that is longer than its size', chunked('5\r\nhelloX\r\n0\r\n\r\n')],
      [400, 'a chunk ended by LF', chunked('5\r\nhello\n0\r\n\r\n')],
      [400, 'a LF in a chunk extension', chunked('5;a\nb\r\nhello\r\n0\r\n\r\n')],
      [400, 'a control character in a chunk extension', chunked('5;a\x01\r\nhello\r\n0\r\n\r\n')],
      [400, 'a chunk extension without a name', chunked('5;\r\nhello\r\n0\r\n\r\n')],
      [400, 'a second chunk extension without a name', chunked('5;a;\r\nhello\r\n0\r\n\r\n')],
      [400, 'a chunk extension without a value', chunked('5;a=\r\nhello\r\n0\r\n\r\n')],
      [400, 'a chunk extension with an open quote', chunked('5;a="b\r\nhello\r\n0\r\n\r\n')],
      [400, 'a chunk extension of two words', chunked('5;a b\r\nhello\r\n0\r\n\r\n')],
      [400, 'a blank behind a chunk extension', chunked('5;a \r\nhello\r\n0\r\n\r\n')],
      [400, 'a DEL in a chunk extension', chunked('5;a="\x7f"\r\nhello\r\n0\r\n\r\n')],
      [413, 'blanks without end behind a chunk size', chunked(`5${' '.repeat(1100)}`)],
      [400, 'a folded trailer', chunked('0\r\nA: b\r\n c\r\n\r\n')],
      [400, 'a trailer with a bare LF', chunked('0\r\nA: b\n\r\n')],
      [400, 'no HTTP at all', '\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03'],
      [411, 'a POST that does not say its length', post('')],
      [413, 'a length above the limit', post('Content-Length: 1001\r\nExpect: 100-continue\r\n')],
      [413, 'a length above all numbers', post(`Content-Length: ${'9'.repeat(400)}\r\n`)],
      [413, 'a chunk above the limit', chunked('3e9\r\n')],
      [413, 'chunks above the limit', chunked(`300\r\n${'x'.repeat(768)}\r\n300\r\n`)],
      [413, 'a long chunk extension', chunked(`5;${'x'.repeat(1100)}`)],
      [413, 'many chunk extensions', chunked(`1;${'x'.repeat(900)}\r\nx\r\n`.repeat(20))],
      [414, 'a long request line', `GET /${'x'.repeat(1100)} HTTP/1.1\r\nHost: x\r\n\r\n`],
      [414, 'a request line that does not end', `GET /${'x'.repeat(1100)}`],
      [417, 'another expectation', post('Content-Length: 2\r\nExpect: 200-ok\r\n')],
      [431, 'long header fields', post(`A: ${'x'.repeat(1000)}\r\nContent-Length: 0\r\n`)],
      [431, 'many header fields', post(`${'A: b\r\n'.repeat(8)}Content-Length: 0\r\n`)],
      [431, 'long trailers', chunked(`0\r\n${`A: ${'x'.repeat(200)}\r\n`.repeat(6)}\r\n`)],
      [501, 'CONNECT', 'CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n'],
      [501, 'a method longer than any', `${'A'.repeat(40)} / HTTP/1.1\r\nHost: x\r\n\r\n`],
      [505, 'HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ])('answers %i to %s, closes, and reads nothing behind it', async (status, _name, bytes) => {
      const { connect, requests, reasons } = await start(poller, () => 'ok', limits)
      const client = await connect()
      client.write(Buffer.from(bytes, 'latin1'))
      // What a smuggled request would be: it must not be answered.
      client.write(LAST_GET)
      await client.whenEnded()
      expect(statuses(client.text)).toEqual([String(status)])
      expect(client.text).toContain('Connection: close\r\n')
      expect(requests).toHaveLength(0)
      await until('it is closed', () => reasons.length === 1)
      expect(reasons[0]!.code).toBe('protocol-error')
    })

    it('answers the requests before the bad one first', async () => {
      const { talk } = await start(poller, () => 'ok')
      expect(statuses(await talk(`${GET}${GET}BAD\r\n\r\n`))).toEqual(['200', '200', '400'])
    })
  })

  describe('time-outs', () => {
    it('answers 408 to a head that does not end, and not before the time', async () => {
      const { talk } = await start(poller, () => 'x', { headersTimeout: 200 })
      const since = performance.now()
      expect(statuses(await talk('GET / HTTP/1.1\r\nHost:'))).toEqual(['408'])
      expect(performance.now() - since).toBeGreaterThan(195)
    })

    it('answers 408 to a body that does not end', async () => {
      const { talk, requests } = await start(poller, () => 'x', { bodyTimeout: 100 })
      expect(statuses(await talk(post('Content-Length: 5\r\n', 'hell')))).toEqual(['408'])
      expect(requests).toHaveLength(0)
    })

    it('closes silently a connection on which no request comes, and one that waits too long for the next', async () => {
      const { talk, connect, reasons } = await start(poller, () => 'x', {
        headersTimeout: 150,
        keepAliveTimeout: 100,
      })
      expect(await talk('')).toBe('')
      const client = await connect()
      client.write(GET)
      await client.whenEnded()
      expect(statuses(client.text)).toEqual(['200'])
      await until('both are closed', () => reasons.length === 2)
      expect(reasons.map((reason) => reason.code)).toEqual(['idle', 'idle'])
    })

    it('does not count a time in which the loop itself was busy', async () => {
      const { connect } = await start(poller, () => 'x', { keepAliveTimeout: 300 })
      const client = await connect()
      client.write(GET)
      await until('it is answered', () => client.length > 0)
      client.write(LAST_GET)
      const since = performance.now()
      while (performance.now() - since < 1000);
      await client.whenEnded()
      expect(statuses(client.text)).toEqual(['200', '200'])
    })

    it('does not count the time in which a client takes a large answer, and answers its next request', async () => {
      const large = Buffer.alloc(64 * 1024 * 1024, 'a')
      const { connect } = await start(poller, ({ path }) => (path === '/' ? large : 'x'), {
        keepAliveTimeout: 500,
      })
      const client = await connect()
      const { socket } = client
      let slow = true
      let taken = 0
      socket.on('data', ({ length }: Buffer) => {
        taken += length
        if (!slow || taken < 65_536) return
        taken = 0
        socket.pause()
        setTimeout(() => socket.resume(), 5)
      })
      client.write(GET)
      await sleep(1500)
      expect(client.length).toBeLessThan(large.length)
      client.write(LAST_GET)
      slow = false
      socket.resume()
      await client.whenEnded()
      expect(client.length).toBeGreaterThan(large.length)
      expect(client.received.subarray(large.length).toString()).toContain('HTTP/1.1 200 OK')
    })

    it('ends a connection whose client takes nothing of a streamed answer', async () => {
      async function* endless(): AsyncGenerator<Buffer> {
        for (;;) yield Buffer.alloc(65_536)
      }
      let connected = (): boolean => true
      const answer: Answer = (_request, c) => {
        connected = () => c.connected
        return endless()
      }
      const { connect, reasons } = await start(poller, answer, { bodyTimeout: 200 })
      const client = await connect()
      client.socket.pause()
      client.write(GET)
      await until('it is being closed', () => !connected())
      client.destroy()
      await until('it is closed', () => reasons.length === 1)
      expect(reasons[0]!.code).toBe('slow-consumer')
    })

    it('logs handlers that do not answer once, however many they are', async () => {
      const { connect, logger, reasons } = await start(poller, () => new Promise(() => {}), {
        responseTimeout: 100,
      })
      for (let i = 0; i < 5; i++) (await connect()).write(GET)
      await until('all are closed', () => reasons.length === 5)
      expect(reasons[0]!.code).toBe('handler-error')
      expect(logger.find('error', 'no answer within responseTimeout')).toHaveLength(1)
    })

    it('gives the handler the time that it takes', async () => {
      const { talk } = await start(poller, () => sleep(400).then(() => 'x'), {
        headersTimeout: 100,
        bodyTimeout: 100,
        keepAliveTimeout: 100,
      })
      expect(statuses(await talk(GET))).toEqual(['200'])
    })
  })

  describe('streamed answers', () => {
    async function* parts(...all: (string | Buffer)[]): AsyncGenerator<string | Buffer> {
      for (const part of all) {
        await sleep(1)
        yield part
      }
    }

    it('sends chunks, leaves out empty ones, and answers the next request behind them', async () => {
      const { talk } = await start(poller, (request) =>
        request.path === '/' ? parts('one', '', Buffer.from('grün')) : 'x',
      )
      const text = withoutDate(await talk(GET + LAST_GET))
      expect(text).toContain(
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n5\r\ngrün\r\n0\r\n\r\nHTTP/1.1 200',
      )
    })

    it('sends a stream of known length without chunks', async () => {
      const headers = { 'content-length': 6 }
      const { talk } = await start(poller, () => ({ headers, body: parts('abc', 'def') }))
      const text = await talk(LAST_GET)
      expect(text).toContain('Content-Length: 6\r\n')
      expect(bodyOf(text)).toBe('abcdef')
    })

    it.each([
      ['longer', 3],
      ['shorter', 9],
    ])('breaks off where the stream is %s than its content-length', async (_name, length) => {
      const { talk, reasons } = await start(poller, () => ({
        headers: { 'content-length': length },
        body: parts('abc', 'def'),
      }))
      expect(statuses(await talk(GET + GET))).toEqual(['200'])
      await until('it is closed', () => reasons.length === 1)
      expect(reasons[0]!.code).toBe('handler-error')
    })

    it('ends the body with the connection for HTTP/1.0', async () => {
      const { talk } = await start(poller, () => parts('abc', 'def'))
      const text = await talk('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
      expect(text).toContain('Connection: close\r\n')
      expect(bodyOf(text)).toBe('abcdef')
    })

    describe('to HTTP/1.0', () => {
      const ASK = 'GET / HTTP/1.0\r\n\r\n'
      const never = new Promise<never>(() => {})
      async function* failing(): AsyncGenerator<string> {
        yield 'abc'
        throw new Error('broken')
      }
      async function* stuck(): AsyncGenerator<string> {
        yield 'abc'
        await never
      }

      async function expectReset(client: RawClient): Promise<void> {
        await client.whenClosed()
        expect([client.ended, client.error?.code]).toEqual([false, 'ECONNRESET'])
      }

      // Node's clients take a reset for an end where bytes come with it: it is sent when they have what came before.
      it('is reset where the stream fails', async () => {
        let fail = (): void => {}
        const { connect } = await start(poller, async function* () {
          yield 'abc'
          await new Promise<void>((resolve) => {
            fail = resolve
          })
          throw new Error('broken')
        } as Answer)
        const client = await connect()
        client.write(ASK)
        await until('the part has come', () => bodyOf(client.text) === 'abc')
        fail()
        await expectReset(client)
      })

      it('is reset where the handler closes, responseTimeout is over, or the server stops', async () => {
        for (const cut of ['close', 'time', 'stop']) {
          const options = { responseTimeout: cut === 'time' ? 100 : 0 }
          let close = (): void => {}
          const answer: Answer = (_request, c) => {
            close = () => c.close()
            return stuck()
          }
          const { connect, server } = await start(poller, answer, options)
          const client = await connect()
          client.write(ASK)
          await until('the part has come', () => bodyOf(client.text) === 'abc')
          if (cut === 'close') close()
          if (cut === 'stop') await server.stop()
          await expectReset(client)
        }
      })

      it('ends as ever where it is whole, or has a length that says that it is not', async () => {
        const { connect } = await start(poller, ({ path }) => {
          if (path === '/whole') return stream('abc', 'def')
          return { headers: { 'content-length': 9 }, body: failing() }
        })
        for (const [target, body] of [
          ['/whole', 'abcdef'],
          ['/length', 'abc'],
        ]) {
          const client = await connect()
          client.write(ASK.replace('/', target!))
          await client.whenEnded()
          expect([bodyOf(client.text), client.error]).toEqual([body, undefined])
        }
      })
    })

    it('breaks off without a last chunk where the stream fails', async () => {
      const { talk, logger } = await start(poller, async function* () {
        yield 'abc'
        throw new Error('broken')
      } as Answer)
      const text = await talk(GET)
      expect(logger.find('error', 'broken')).toHaveLength(1)
      expect(statuses(text)).toEqual(['200'])
      expect(bodyOf(text)).toBe('3\r\nabc\r\n')
    })

    it('sends views and buffers as their bytes', async () => {
      const memory = Uint8Array.from([97, 98, 99, 100, 101, 102]).buffer
      const all = [
        memory,
        new DataView(memory, 1, 2),
        new Uint16Array(memory, 0, 1),
        new Uint8Array(memory, 5),
      ]
      const { talk } = await start(poller, async function* () {
        yield* all as unknown as string[]
      } as Answer)
      expect(bodyOf(await talk(LAST_GET))).toBe('6\r\nabcdef\r\n2\r\nbc\r\n2\r\nab\r\n1\r\nf\r\n0\r\n\r\n')
    })

    it.each([5, null, undefined, true, { length: 3 }, [1, 2], new Blob(['x'])])(
      'breaks off, and says so, where a part is %s',
      async (part) => {
        const { talk, reasons } = await start(poller, async function* () {
          yield 'abc'
          yield part as never
          yield 'def'
        } as Answer)
        expect(bodyOf(await talk(GET))).toBe('3\r\nabc\r\n')
        await until('it is closed', () => reasons.length === 1)
        expect(reasons[0]!.code).toBe('handler-error')
      },
    )

    it('does not begin a stream for HEAD', async () => {
      let begun = false
      const { talk } = await start(poller, async function* () {
        begun = true
        yield 'abc'
      } as Answer)
      const text = await talk('HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
      expect(bodyOf(text)).toBe('')
      expect(begun).toBe(false)
    })

    it('asks for no more than the client takes, and ends the stream when the client goes', async () => {
      let made = 0
      let ended = false
      const { connect } = await start(poller, async function* () {
        try {
          for (;;) {
            made++
            yield Buffer.alloc(64 * 1024)
          }
        } finally {
          ended = true
        }
      } as Answer)
      const client = await connect()
      client.socket.pause()
      client.write(GET)
      let before = -1
      await until('the stream stands still', async () => {
        const stands = made > 0 && made === before
        before = made
        await sleep(50)
        return stands
      })
      expect(made).toBeLessThan(400)
      client.reset()
      await until('the stream is ended', () => ended)
    })
  })

  describe('streamed requests', () => {
    const streaming = { streamBody: true, maxBodyBytes: 100_000_000 }

    async function collect(request: HttpRequest): Promise<Buffer> {
      const all: Buffer[] = []
      for await (const piece of request.stream!) all.push(piece)
      return Buffer.concat(all)
    }

    /** Collects, and keeps what the stream fails with. */
    function collectOrKeep(failures: unknown[]): (request: HttpRequest) => Promise<Buffer> {
      return (request) =>
        collect(request).catch((error: unknown) => {
          failures.push(error)
          throw error
        })
    }

    it('hands the request over before its body, and gives the body as it comes', async () => {
      const { connect, requests } = await start(poller, collect, streaming)
      const client = await connect()
      client.write(post('Transfer-Encoding: chunked\r\n'))
      await until('the request is handed over', () => requests.length === 1)
      client.write('3\r\nabc\r\n')
      client.write('3\r\ndef\r\n0\r\n\r\n')
      client.write(LAST_GET)
      await client.whenEnded()
      expect(statuses(client.text)).toEqual(['200', '200'])
      expect(client.text).toContain('\r\n\r\nabcdefHTTP')
    })

    it('sends the body back while it comes', async () => {
      const { connect } = await start(poller, (request) => request.stream!, streaming)
      const client = await connect()
      client.write(post('Content-Length: 6\r\n', 'abc'))
      await until('the first part is back', () => client.text.includes('3\r\nabc\r\n'))
      client.write(`def${LAST_GET}`)
      await client.whenEnded()
      expect(client.text).toContain('3\r\ndef\r\n0\r\n\r\nHTTP/1.1 200')
    })

    it('holds the client back while the handler does not read', async () => {
      let read: () => void = () => {}
      const wanted = new Promise<void>((resolve) => {
        read = resolve
      })
      const size = 40_000_000
      const { connect, server } = await start(
        poller,
        async (request) => {
          await wanted
          return String((await collect(request)).length)
        },
        streaming,
      )
      const client = await connect()
      client.write(post(`Content-Length: ${size}\r\nConnection: close\r\n`))
      client.write(Buffer.alloc(size))
      let before = -1
      await until('no more is read', async () => {
        const now = server.stats().total.bytesIn
        const stands = now > 0 && now === before
        before = now
        await sleep(100)
        return stands
      })
      expect(before).toBeLessThan(1_000_000)
      read()
      await client.whenEnded()
      expect(bodyOf(client.text)).toBe(String(size))
    })

    it.each([30_000, 300_000])(
      'gives a slow reader all of %i bytes that came before the client went away',
      async (size) => {
        let length = 0
        let failure: unknown
        const { connect, reasons } = await start(
          poller,
          async (request) => {
            await sleep(200)
            try {
              for await (const piece of request.stream!) length += piece.length
            } catch (error) {
              failure = error
            }
          },
          streaming,
        )
        const client = await connect()
        client.write(post('Content-Length: 1000000\r\n'))
        client.socket.end(Buffer.alloc(size))
        await until('the stream has failed', () => failure !== undefined)
        expect(length).toBe(size)
        await until('it is closed', () => reasons.length === 1)
      },
    )

    it('refuses a second reader', async () => {
      const { connect } = await start(
        poller,
        async (request) => {
          const reader = request.stream![Symbol.asyncIterator]()
          const first = reader.next()
          const second = await reader.next().catch((error: { code: string }) => error.code)
          return `${second} ${(await first).value}`
        },
        streaming,
      )
      const client = await connect()
      client.write(post('Content-Length: 1\r\nConnection: close\r\n'))
      client.write('x')
      await client.whenEnded()
      expect(bodyOf(client.text)).toBe('ERR_RINGLOOP_STATE x')
    })

    it('throws away what the handler does not read', async () => {
      const { connect } = await start(poller, () => 'no thanks', streaming)
      const client = await connect()
      client.write(post('Content-Length: 500000\r\n'))
      client.write(Buffer.alloc(500_000))
      client.write(LAST_GET)
      await client.whenEnded()
      expect(statuses(client.text)).toEqual(['200', '200'])
    })

    it('says nothing more where the body turns out bad after the answer', async () => {
      const { talk, reasons } = await start(poller, () => 'no thanks', streaming)
      expect(statuses(await talk(post('Transfer-Encoding: chunked\r\n', '3\r\nabc\r\nxx\r\n')))).toEqual([
        '200',
      ])
      await until('it is closed', () => reasons.length === 1)
      expect(reasons[0]!.code).toBe('protocol-error')
    })

    it('sends 100 Continue when the handler begins to read, and closes where it never does', async () => {
      const { talk, connect } = await start(
        poller,
        (request) => (request.path === '/p' ? collect(request) : 'no'),
        streaming,
      )
      const head = 'Content-Length: 2\r\nExpect: 100-continue\r\n'
      const client = await connect()
      client.write(post(head))
      await client.bytes(25)
      client.write('hi')
      await until('it is answered', () => statuses(client.text).length === 2)
      expect(statuses(client.text)).toEqual(['100', '200'])
      expect(statuses(await talk(post(head).replace('/p', '/no')))).toEqual(['200'])
    })

    it('fails the stream, and answers 400, where the body turns out bad', async () => {
      const failures: unknown[] = []
      const { talk } = await start(poller, collectOrKeep(failures), streaming)
      expect(statuses(await talk(post('Transfer-Encoding: chunked\r\n', '3\r\nabc\r\nxx\r\n')))).toEqual([
        '400',
      ])
      await until('the stream has failed', () => failures[0] !== undefined)
    })

    it.each(['end', 'reset'] as const)('fails the stream where the client goes away by %s', async (how) => {
      const failures: unknown[] = []
      const { connect, requests, logger } = await start(poller, collectOrKeep(failures), streaming)
      const client = await connect()
      client.write(post('Content-Length: 6\r\n', 'abc'))
      await until('the request is handed over', () => requests.length === 1)
      if (how === 'reset') client.reset()
      else client.socket.end()
      await until('the stream has failed', () => failures[0] !== undefined)
      await until('that is noted', () => logger.find('debug', 'after the connection was closed').length > 0)
      expect(logger.lines.filter((line) => line.level === 'error')).toEqual([])
    })

    it('answers in order while requests wait for their turn, however many bytes they have', async () => {
      const { connect } = await start(
        poller,
        async (request) => {
          if (request.path === '/0') await sleep(100)
          return `<${request.path}:${(await collect(request)).length}>`
        },
        streaming,
      )
      const client = await connect()
      const count = 40
      for (let i = 0; i < count; i++) {
        client.write(`PUT /${i} HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n`)
        client.write(Buffer.alloc(20_000))
      }
      client.write(LAST_GET)
      await client.whenEnded()
      const answers = [...client.text.matchAll(/<[^>]*>/g)].map((match) => match[0])
      expect(answers).toEqual([...Array.from({ length: count }, (_, i) => `</${i}:20000>`), '</last:0>'])
    })
  })
})

describe('options of HttpProtocol', () => {
  it.each([{ maxHeaderBytes: 0 }, { maxBodyBytes: -1 }, { headersTimeout: Number.NaN }, { maxHeaders: 1.5 }])(
    'refuses %j',
    (options) => {
      expect(() => new HttpProtocol(options)).toThrow(
        expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }),
      )
    },
  )
})
