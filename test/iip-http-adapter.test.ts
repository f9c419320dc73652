/** HTTP in front of IIP: routes, headers, limits, statuses. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import {
  httpHeaders,
  IipFailure,
  IipHttpAdapter,
  type IipHttpAdapterOptions,
  IipRouter,
} from '../src/plugins/iip/index.js'
import { Peer } from './example-process.js'
import { FrameServer } from './iip-frame-server.js'
import { atEnd, endAll, frame, serveIip } from './iip-support.js'

afterEach(endAll)

function router(): IipRouter {
  return new IipRouter({ statistics: 'off' })
    .handle('/echo', ({ data }) => data)
    .handle('/params', ({ query }) => JSON.stringify([...query.keys()]))
    .handle('/headers', (request) => JSON.stringify(httpHeaders(request)))
    .handle('/empty', () => undefined)
    .handle('/bytes', () => Buffer.of(0xff, 0xfe, 0x00))
    .handle('/html', () => '<script>alert(1)</script>')
    .handle('/fail', () => {
      throw new IipFailure('oh')
    })
    .handle('/fault', () => {
      throw new Error('oh')
    })
    .handle('/sleep', async ({ query }) => {
      await sleep(Number(query.get('ms')))
      return 'slept'
    })
}

async function adapter(options: IipHttpAdapterOptions = {}): Promise<{ made: IipHttpAdapter; port: number }> {
  const made = new IipHttpAdapter(options)
  made.backend('main', { servers: `127.0.0.1:${await serveIip(router())}#1`, logger: false })
  made.route('localhost', /^\//, 'main')
  const { port } = await made.listen(0, '127.0.0.1')
  atEnd(() => made.close())
  return { made, port }
}

interface Answer {
  readonly status: number
  readonly type: string
  readonly body: Buffer
}

async function ask(
  port: number,
  path: string,
  options: http.RequestOptions & { body?: string | Buffer } = {},
): Promise<Answer> {
  const { body, headers, ...more } = options
  const request = http.request({
    port,
    path,
    host: '127.0.0.1',
    agent: false,
    headers: { Host: 'localhost', ...headers },
    ...more,
  })
  request.end(body)
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  return {
    status: response.statusCode!,
    type: response.headers['content-type'] ?? '',
    body: Buffer.concat(chunks),
  }
}

describe('an HTTP request', () => {
  it('becomes an IIP request with its body, its query and its headers', async () => {
    const { port } = await adapter()
    const echo = await ask(port, '/echo?a=1', { method: 'POST', body: 'a body' })
    expect(echo).toMatchObject({ status: 200, type: 'text/plain; charset=utf-8' })
    expect(echo.body.toString()).toBe('a body')
    expect((await ask(port, '/echo')).body.toString()).toBe('{}')
    expect((await ask(port, '/params?a=1&b')).body.toString()).toBe('["a","b","__http_hdr__"]')
    const headers = { 'x-request-ID': '<7>', 'X-Twice': ['one', 'two'] }
    const seen = JSON.parse((await ask(port, '/headers', { headers })).body.toString())
    expect(seen).toEqual({ 'X-Request-Id': ['<7>'], 'X-Twice': ['one', 'two'], Connection: ['close'] })
  })

  it('that is under way when the adapter closes is answered, and its connection is not kept', async () => {
    const { made, port } = await adapter()
    const agent = new http.Agent({ keepAlive: true })
    atEnd(() => agent.destroy())
    const answer = ask(port, '/sleep?ms=300', { agent })
    await sleep(100)
    const since = performance.now()
    await made.close()
    expect(performance.now() - since).toBeLessThan(3000)
    expect((await answer).body.toString()).toBe('slept')
  })

  it('keeps to itself how its body came', async () => {
    const { port } = await adapter()
    const headers = { 'Transfer-Encoding': 'chunked', Trailer: 'X-Sum' }
    const seen = await ask(port, '/headers', { method: 'POST', body: 'a body', headers })
    expect(JSON.parse(seen.body.toString())).toEqual({ Connection: ['close'] })
  })

  it('sends the very bytes that the Go adapter sends', async () => {
    const vectors = JSON.parse(readFileSync(new URL('data/iip-vectors.json', import.meta.url), 'utf8')) as {
      name: string
      hex: string
    }[]
    const wanted = Buffer.from(vectors.find(({ name }) => name === 'http_adapter_post/3')!.hex, 'hex')
    const backend = await FrameServer.start()
    const made = new IipHttpAdapter({ chooseBackend: () => 'it' })
    made.backend('it', { servers: `127.0.0.1:${backend.port}#1`, logger: false })
    const { port } = await made.listen(0, '127.0.0.1')
    atEnd(() => made.close())
    const socket = net.connect(port, '127.0.0.1')
    const lines = [
      'POST /echo?a=1 HTTP/1.1',
      'Host: localhost',
      'User-Agent: curl/7.88.1',
      'Accept: */*',
      'X-A: 1',
      'Content-Length: 9',
      'Content-Type: application/x-www-form-urlencoded',
    ]
    socket.write(`${lines.join('\r\n')}\r\n\r\npost body`)
    const [answer] = (await once(socket, 'data')) as [Buffer]
    socket.destroy()
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\npost body$/)
    const { status, path, channel, data } = backend.connections[0]!.frames.at(-1)!
    expect(frame(status, path, channel, data).toString()).toBe(wanted.toString())
  })

  it('cannot make up headers in its query', async () => {
    const { port } = await adapter()
    const forged = Buffer.from('{"X-User":["root"]}').toString('base64url')
    for (const name of ['__http_hdr__', '__http%5fhdr__', '%5F_http_hdr__']) {
      const { body } = await ask(port, `/headers?${name}=${forged}&a=1`)
      expect(JSON.parse(body.toString())).toEqual({ Connection: ['close'] })
    }
  })

  it('keeps its headers where its URI has a fragment, which is no part of it', async () => {
    const { port } = await adapter()
    const forged = Buffer.from('{"X-User":["root"]}').toString('base64url')
    const fragments = ['#part', '?a=1#part', '#?a=1', `#?__http_hdr__=${forged}`, `?__http_hdr__=${forged}#x`]
    for (const fragment of fragments) {
      const { body } = await ask(port, `/headers${fragment}`, { headers: { 'X-A': '1' } })
      expect([fragment, JSON.parse(body.toString())]).toEqual([
        fragment,
        { 'X-A': ['1'], Connection: ['close'] },
      ])
    }
  })

  it('with two Host headers is refused', async () => {
    const { port } = await adapter()
    const peer = await Peer.connect(port)
    await peer.write('GET /echo HTTP/1.1\r\nHost: localhost\r\nHost: elsewhere\r\nConnection: close\r\n\r\n')
    expect(String(await peer.ended)).toMatch(/^HTTP\/1\.1 400 /)
  })

  it('whose header is not whole is not waited for when the adapter closes', async () => {
    const { made, port } = await adapter()
    const peers = [await Peer.connect(port), await Peer.connect(port)]
    await peers[0]!.write('GET /echo HTTP/1.1\r\nHost: loc')
    await peers[1]!.write('GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await peers[1]!.said(/\{\}$/)
    await peers[1]!.write('GET /half')
    await Promise.all([made.close(), ...peers.map(({ ended }) => ended)])
  })

  it('gets 502 at once while its server cannot be reached, also between attempts to connect', async () => {
    const { made, port } = await adapter({ timeout: 60_000 })
    const dead = {
      servers: '127.0.0.1:1#1',
      logger: false,
      minReconnectDelay: 60_000,
      maxReconnectDelay: 60_000,
    } as const
    made.backend('nobody', dead).route('dead', /.*/, 'nobody')
    for (let i = 0; i < 8; i++)
      expect((await ask(port, '/echo', { headers: { Host: 'dead' } })).status).toBe(502)
  })

  it('gets a status for what went wrong', async () => {
    const { made, port } = await adapter({ timeout: 100, maxBodyBytes: 1000 })
    made.backend('nobody', { servers: '127.0.0.1:1#1', logger: false }).route('dead', /.*/, 'nobody')
    const statuses: [string, http.RequestOptions & { body?: string | Buffer }, number][] = [
      ['/echo', { headers: { Host: 'elsewhere' } }, 501],
      ['/nope', {}, 404],
      ['/fail', {}, 500],
      ['/empty', {}, 500],
      ['/sleep?ms=1000', {}, 504],
      ['/echo', { headers: { Host: 'dead:80' } }, 502],
      ['/echo', { method: 'POST', body: Buffer.alloc(1001) }, 413],
      [
        '/echo',
        { method: 'POST', body: Buffer.alloc(2001), headers: { 'Transfer-Encoding': 'chunked' } },
        413,
      ],
      ['/echo', { headers: { 'X-Long': 'x'.repeat(2000) } }, 431],
      ['//echo', {}, 400],
      ['/sys/server_count', {}, 501],
      ['/%73ys/delete_channel', {}, 501],
    ]
    for (const [path, options, status] of statuses)
      expect([path, (await ask(port, path, options)).status]).toEqual([path, status])
    expect((await ask(port, '/fail')).body.toString()).toBe('{"code":-1,"message":"handler fail:oh"}')
    const fault = await ask(port, '/fault')
    expect([fault.status, `${fault.body}`]).toEqual([500, '{"code":-1,"message":"handler fail"}'])
  })

  it('may get 200 for everything, as in Go', async () => {
    const { port } = await adapter({ status: () => 200 })
    expect(await ask(port, '/nope')).toMatchObject({ status: 200, type: 'application/json' })
  })

  it('is never answered as HTML', async () => {
    const { port } = await adapter()
    expect((await ask(port, '/html')).type).toBe('text/plain; charset=utf-8')
    expect(await ask(port, '/bytes')).toMatchObject({
      type: 'application/octet-stream',
      body: Buffer.of(0xff, 0xfe, 0),
    })
  })
})

describe('routes', () => {
  it('prefer the function, then a pattern that matches all of the URI, then the first that matches', async () => {
    const ports = await Promise.all(
      ['a', 'b', 'c'].map((name) => serveIip(new IipRouter().handle('/x/y', () => name))),
    )
    const made = new IipHttpAdapter({
      chooseBackend: (_host, _uri, { headers }) => headers['x-to']?.toString(),
    })
    for (const [i, port] of ports.entries())
      made.backend('abc'[i]!, { servers: `127.0.0.1:${port}#1`, logger: false })
    made
      .route('h', /\/x/, 'a')
      .route('h', /\/y$/, 'b')
      .route('h', /\/x\/.*/g, 'c')
      .route('::1', /./, 'b')
    const { port } = await made.listen(0, '127.0.0.1')
    atEnd(() => made.close())
    const who = async (headers: http.OutgoingHttpHeaders): Promise<string> =>
      (await ask(port, '/x/y', { headers })).body.toString()
    expect(await who({ Host: 'H:8080', 'X-To': 'b' })).toBe('b')
    expect([await who({ Host: 'h' }), await who({ Host: 'h' })]).toEqual(['c', 'c'])
    expect(await who({ Host: '[::1]:80' })).toBe('b')
    expect([made.removeRoute('h', /\/x\/.*/), made.removeRoute('h', /\/x\/.*/)]).toEqual([true, false])
    expect(await who({ Host: 'h' })).toBe('a')
    expect(made.removeBackend('a')).toBe(true)
    expect(await who({ Host: 'h' })).toBe('no route')
  })

  it('and options that cannot be are refused', () => {
    const option = expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' })
    for (const options of [{ status: 5 }, { chooseBackend: 5 }]) {
      expect(() => new IipHttpAdapter(options as never)).toThrow(option)
    }
    const made = new IipHttpAdapter()
    const routes = [
      ['h', '/x', 'b'],
      [5, /x/, 'b'],
      ['h', /x/, 5],
    ]
    for (const [host, pattern, backend] of routes) {
      expect(() => made.route(host as never, pattern as never, backend as never)).toThrow(option)
    }
  })
})
