/** Clients of HTTP and WebSocket that end their side in the middle of an answer: they leave nothing behind. */
import { expect, it } from 'vitest'
import { type HostedServer, SHAPES } from '../support/hosted-server.js'
import type { RawClient } from '../support/raw-client.js'
import { hostedScene } from '../support/scene.js'
import { until } from '../support/wait.js'
import { frame, request, told } from '../support/websocket.js'

const CLIENTS = 20
const MANY = 5000
/** More bytes than are read ahead. */
const BEHIND = 100_000

const { serve, client } = hostedScene()

const get = (target: string): string => `GET ${target} HTTP/1.1\r\nHost: x\r\n\r\n`

type Leave = (client: RawClient) => void
const end: Leave = (one) => one.socket.end()
const reset: Leave = (one) => one.reset()

/** All of them have sent `bytes`, the handler has heard of it, and the first part has come; then they end their sides. */
async function leave(
  server: HostedServer,
  bytes: string | Buffer,
  first = '',
  how: Leave = end,
): Promise<void> {
  const before = server.events('asked').length
  const all: RawClient[] = []
  for (let i = 0; i < CLIENTS; i++) {
    const one = await client(server)
    one.write(bytes)
    all.push(one)
  }
  await server.told('asked', before + CLIENTS)
  await until('the first part has come', () => all.every((one) => one.text.includes(first)))
  for (const one of all) how(one)
  for (const one of all) await one.whenEnded()
}

async function expectNobody(server: HostedServer, sockets: number): Promise<void> {
  await until('nobody is left', async () => (await server.total()).connections === 0)
  await until('their descriptors are closed', () => server.sockets() <= sockets)
}

/** What comes back when all is said at once, with the end. */
async function say(server: HostedServer, bytes: string | Buffer): Promise<RawClient> {
  const one = await client(server)
  one.socket.end(bytes)
  await one.whenEnded()
  return one
}

const bodies = (text: string): string[] =>
  text
    .split('HTTP/1.1 200 OK')
    .slice(1)
    .map((each) => each.slice(each.indexOf('\r\n\r\n') + 4))

for (const shape of SHAPES) {
  it.each(['/deaf', '/wait', '/quiet'])(`${shape.name}: HTTP clients that leave within %s`, async (path) => {
    const server = await serve('http.mjs', shape)
    const sockets = server.sockets()
    await leave(server, get(path), path === '/quiet' ? 'first' : '')
    const reasons = await server.told('closed', CLIENTS)
    expect(reasons[0]).toMatchObject({ code: 'peer-closed' })
    await expectNobody(server, sockets)
    if (path === '/quiet') await server.told('source-ended', CLIENTS)
    if (path !== '/wait') return
    const aborted = await server.told('aborted', CLIENTS)
    expect(aborted[0]).toMatchObject({ code: 'ERR_RINGLOOP_CLOSED' })
  })

  it(`${shape.name}: HTTP clients that end their side at once get what is answered at once`, async () => {
    const server = await serve('http.mjs', shape)
    const one = await say(server, get('/now') + get('/async') + get('/now') + get('/deaf') + get('/now'))
    expect(bodies(one.text)).toEqual(['now', 'async', 'now'])
    const many = await say(server, get('/async').repeat(MANY))
    expect(bodies(many.text)).toHaveLength(MANY)
    await expectNobody(server, server.sockets())
  })

  it(`${shape.name}: HTTP clients may end their side where the server says allowHalfOpen`, async () => {
    const server = await serve('http.mjs', { ...shape, options: { allowHalfOpen: true } })
    const one = await say(server, get('/later?100') + get('/parts?20') + get('/now'))
    expect(bodies(one.text)).toEqual(['later', '1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n', 'now'])
    await expectNobody(server, server.sockets())
  })

  it(`${shape.name}: WebSocket clients that leave while an answer is pending`, async () => {
    const server = await serve('websocket-waits.mjs', shape)
    const sockets = server.sockets()
    await leave(server, Buffer.concat([Buffer.from(request()), frame(1, 'never')]), '101')
    const reasons = await server.told('closed', CLIENTS)
    expect(reasons[0]).toMatchObject({ code: 'peer-closed', status: 1006 })
    await expectNobody(server, sockets)
  })

  it.each([get('/never'), request({}, 'GET /never HTTP/1.1')])(
    `${shape.name}: WebSocket clients that leave while a hook decides: %j`,
    async (bytes) => {
      const server = await serve('websocket-waits.mjs', shape)
      const sockets = server.sockets()
      await leave(server, bytes)
      await expectNobody(server, sockets)
    },
  )

  it(`${shape.name}: a WebSocket server’s page comes to clients that end their side, where it comes at once`, async () => {
    for (const allowHalfOpen of [false, true]) {
      const server = await serve('websocket-waits.mjs', { ...shape, options: { allowHalfOpen } })
      expect((await say(server, get('/async'))).text).toMatch(/page$/)
      expect((await say(server, get('/later'))).text).toMatch(allowHalfOpen ? /page$/ : /^$/)
      await expectNobody(server, server.sockets())
    }
  })

  it(`${shape.name}: a client that goes on while a hook decides is held back, and all of it is read then`, async () => {
    const server = await serve('websocket-waits.mjs', shape)
    const one = await client(server)
    one.write(request({}, 'GET /later HTTP/1.1'))
    const frames = Array.from({ length: 100 }, (_, i) => frame(1, `${i} `.padEnd(4000, '.')))
    one.write(Buffer.concat(frames))
    await server.told('asked', 101)
    await until('all has come back', () => one.length > 100 * 4004)
  })

  it(`${shape.name}: WebSocket clients that end without a close frame get what is answered at once`, async () => {
    const server = await serve('websocket-waits.mjs', shape)
    const frames = Array.from({ length: MANY }, (_, i) => frame(1, `now ${i}`))
    const one = await say(server, Buffer.concat([Buffer.from(request()), ...frames, frame(1, 'never')]))
    const head = one.received.indexOf('\r\n\r\n') + 4
    expect(told(one.received.subarray(head))).toEqual(frames.map((_, i) => `text now ${i}`))
    expect(await server.told('closed')).toMatchObject([{ code: 'peer-closed', status: 1006 }])
    await expectNobody(server, server.sockets())
  })

  // A socket that is not read says nothing of its end under the net poller: there the times do that bound it.
  if (shape.poller === 'native') {
    const requests = get('/now').repeat(BEHIND / get('/now').length)
    const frames = Buffer.concat(Array.from({ length: BEHIND / 1006 }, () => frame(1, '.'.repeat(1000))))
    const pending = Buffer.concat([Buffer.from(request()), frame(1, 'never'), frames])
    const deciding = Buffer.concat([Buffer.from(request({}, 'GET /never HTTP/1.1')), frames])

    for (const how of [end, reset]) {
      it.each([
        ['HTTP', 'http.mjs', get('/deaf') + requests, ''],
        ['HTTP with a stream', 'http.mjs', get('/quiet') + requests, 'first'],
        ['WebSocket', 'websocket-waits.mjs', pending, '101'],
        ['WebSocket while a hook decides', 'websocket-waits.mjs', deciding, ''],
      ])(
        `${shape.name}: %s clients that leave (${how.name}) with much unread behind`,
        async (_name, file, bytes, first) => {
          const server = await serve(file, shape)
          const sockets = server.sockets()
          await leave(server, bytes, first, how)
          await expectNobody(server, sockets)
        },
      )
    }
  }

  it(`${shape.name}: WebSocket clients that are gone with much unread behind are found by the heartbeat`, async () => {
    const options = { data: { protocol: { heartbeat: 200 } } }
    const server = await serve('websocket-waits.mjs', { ...shape, options })
    const sockets = server.sockets()
    const behind = Buffer.concat(Array.from({ length: 1000 }, () => frame(1, '.'.repeat(1000))))
    const bytes = Buffer.concat([Buffer.from(request()), frame(1, 'never'), behind])
    await leave(server, bytes, '101', (one) => one.destroy())
    await expectNobody(server, sockets)
  })

  it(`${shape.name}: WebSocket clients may end their side where the server says allowHalfOpen`, async () => {
    const server = await serve('websocket-waits.mjs', { ...shape, options: { allowHalfOpen: true } })
    const one = await client(server)
    one.socket.end(Buffer.concat([Buffer.from(request()), frame(1, 'later 100')]))
    await until('the answer has come', () => one.text.endsWith('later 100'))
  })
}
