import { once } from 'node:events'
import net from 'node:net'
import { ErrorCode, EventLoop, type ModuleServerOptions, Server } from 'ringloop'
import { HttpProtocol, httpHandler } from 'ringloop/http'
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest'
import { Authority } from './support/certificates.js'
import { fixtureUrl } from './support/child.js'
import { openSockets } from './support/descriptors.js'
import { memoryLogger } from './support/memory-logger.js'
import { connectRaw, type RawClient } from './support/raw-client.js'
import { connectTls } from './support/tls-client.js'
import { until, within } from './support/wait.js'

const echo = { onMessage: (_c: unknown, _ctx: unknown, data: Buffer): Buffer => data }
const authority = new Authority()
const { key, cert, ca } = authority.issue()
const servers: (Server | Server<never>)[] = []
const loops: EventLoop[] = []
const sockets: net.Socket[] = []

afterAll(() => authority.remove())

afterEach(async () => {
  vi.unstubAllEnvs()
  for (const socket of sockets.splice(0)) socket.destroy()
  await Promise.all(loops.splice(0).map((loop) => loop.stop()))
  await Promise.all(servers.splice(0).map((server) => within('stop', server.stop())))
})

async function startServer(source: typeof echo | URL, options: ModuleServerOptions = {}): Promise<Server> {
  const server = new Server(source as URL, {
    address: '127.0.0.1:0',
    logger: false,
    tls: { key, cert },
    ...options,
  })
  servers.push(server)
  await within('start', server.start())
  return server
}

async function connect(port: number): Promise<RawClient> {
  const client = await within('the handshake', connectTls({ port }, { ca }))
  sockets.push(client.socket, client.raw)
  return client
}

function makeLoop(): EventLoop {
  const loop = new EventLoop({ logger: false })
  loops.push(loop)
  return loop
}

describe('a TLS server', () => {
  it('resets what is not whole, as without TLS', async () => {
    let fail = (): void => {}
    const answer = async function* (): AsyncGenerator<string> {
      yield 'half'
      await new Promise<void>((resolve) => {
        fail = resolve
      })
      throw new Error('broken')
    }
    const options = { address: '127.0.0.1:0', logger: false, tls: { key, cert } } as const
    const server = new Server(httpHandler(answer), { ...options, protocol: new HttpProtocol() })
    servers.push(server as Server<never>)
    await within('start', server.start())
    const client = await connect(server.address.port)
    client.write('GET / HTTP/1.0\r\n\r\n')
    await until('the part has come', () => client.text.endsWith('half'))
    fail()
    await client.whenClosed()
    expect([client.ended, client.error?.code]).toEqual([false, 'ECONNRESET'])
    expect(server.stats().total.connections).toBe(0)
  })

  for (const [name, numLoops] of [
    ['here', undefined],
    ['1 thread', 1],
    ['3 threads', 3],
  ] as const) {
    it(`${name}: echoes a megabyte to several clients`, async () => {
      const server = await startServer(
        numLoops === undefined ? echo : fixtureUrl('echo.mjs'),
        numLoops === undefined ? {} : { numLoops },
      )
      const list = await Promise.all(Array.from({ length: 4 }, () => connect(server.address.port)))
      const message = Buffer.alloc(1_000_000, 'tls!')
      for (const client of list) client.write(message)
      for (const client of list) expect((await client.bytes(message.length)).equals(message)).toBe(true)
      // A turn is counted at its end.
      await until('everything is counted', () => server.stats().total.bytesOut === 4_000_000)
      expect(server.stats().total).toMatchObject({ connections: 4, bytesIn: 4_000_000 })
      list[0]!.socket.end()
      await until('one is closed', () => server.stats().total.connections === 3)
      await server.stop()
      for (const client of list) await client.whenEnded()
      expect(server.stats().total.connections).toBe(0)
    })

    it(`${name}: a peer that speaks no TLS, or leaves in the handshake, costs nothing`, async () => {
      const logger = memoryLogger()
      const server = await startServer(numLoops === undefined ? echo : fixtureUrl('echo.mjs'), {
        ...(numLoops !== undefined && { numLoops }),
        logger,
        maxConnections: 2,
      })
      for (let i = 0; i < 6; i++) {
        const plain = await connectRaw({ port: server.address.port })
        sockets.push(plain.socket)
        plain.write(i % 2 === 0 ? 'GET / HTTP/1.1\r\n\r\n' : '\x16\x03\x01')
        if (i % 3 === 0) plain.reset()
        else if (i % 2 === 1) plain.destroy()
        else await plain.whenEnded()
      }
      await until('none is counted', () => server.stats().total.connections === 0)
      expect(String(await (await connect(server.address.port)).echo('fine'))).toBe('fine')
    })
  }

  for (const [name, numLoops] of [
    ['here', undefined],
    ['1 thread', 1],
    ['2 threads', 2],
  ] as const) {
    it(`${name}: silent handshakes are bounded by maxConnections, and make room when their time is over`, async () => {
      const server = await startServer(numLoops === undefined ? echo : fixtureUrl('echo.mjs'), {
        ...(numLoops !== undefined && { numLoops }),
        maxConnections: 5,
        handshakeTimeout: 2000,
      })
      const before = openSockets()
      const clients = await Promise.all(
        Array.from({ length: 300 }, () => connectRaw({ port: server.address.port })),
      )
      sockets.push(...clients.map((each) => each.socket))
      const refused = (): RawClient[] => clients.filter((each) => each.ended || each.closed)
      await until('all but five are closed', () => refused().length >= 295)
      expect(server.stats().total.connections).toBeLessThanOrEqual(5)
      for (const each of refused()) each.destroy()
      // Both ends of those five, and one more that is on its way through a mailbox.
      await until('their sockets are gone', () => openSockets() - before <= 11)
      await until('the five are late', () => refused().length === 300)
      await until('nobody is counted', () => server.stats().total.connections === 0)
      expect(String(await (await connect(server.address.port)).echo('fine'))).toBe('fine')
    })
  }

  for (const numLoops of [1, 2]) {
    for (const poller of ['native', 'net'] as const) {
      for (const wish of poller === 'native' ? ['1', '0'] : ['1']) {
        it(`${poller}, ${numLoops} loops, io_uring ${wish}: what goes to many goes to each of them`, async () => {
          vi.stubEnv('RINGLOOP_IO_URING', wish)
          const server = await startServer(fixtureUrl('broker-topics.mjs'), { numLoops, poller })
          const list = await Promise.all(Array.from({ length: 100 }, () => connect(server.address.port)))
          for (const client of list) client.write('sub news\n')
          await until('all are subscribed', () => list.every(({ text }) => text === 'subscribed true\n'))
          const results = [await server.publish('news', 'published'), await server.broadcast('told')]
          for (const result of results) expect(result).toMatchObject({ sent: 100 })
          const expected = 'subscribed true\npublished\ntold\n'
          await until('all have all', () => list.every(({ text }) => text.length >= expected.length))
          expect(new Set(list.map(({ text }) => text))).toEqual(new Set([expected]))
        })
      }
    }
  }

  it('refuses a key and a certificate that are none', async () => {
    const server = new Server(echo as never, {
      address: '127.0.0.1:0',
      logger: false,
      tls: { key: 'x', cert: 'y' },
    })
    await expect(server.start()).rejects.toMatchObject({ code: ErrorCode.OPTION })
  })
})

describe('a TLS connect', () => {
  it('verifies the certificate by default', async () => {
    const server = await startServer(echo)
    const connecting = makeLoop().connect(`localhost:${server.address.port}`, {
      handler: { onMessage() {} },
      tls: true,
    })
    await expect(within('connect', connecting)).rejects.toMatchObject({ code: ErrorCode.CONNECT })
  })

  it('works with the right ca, on a loop with the native poller too, and carries bytes both ways', async () => {
    const server = await startServer(echo)
    const got: Buffer[] = []
    const closes: string[] = []
    const loop = makeLoop()
    const c = await within(
      'connect',
      loop.connect(`localhost:${server.address.port}`, {
        handler: {
          onMessage: (_c, _ctx, data) => void got.push(data),
          onClose: (_c, reason) => void closes.push(reason.code),
        },
        tls: { ca },
      }),
    )
    const message = Buffer.alloc(500_000, 'abc')
    c.send(message)
    await until('it is back', () => got.reduce((n, each) => n + each.length, 0) === message.length)
    expect(Buffer.concat(got).equals(message)).toBe(true)
    expect([...loop.connections]).toHaveLength(1)
    c.close()
    await until('it is closed', () => closes.length === 1)
    expect(closes).toEqual(['closed'])
    expect([...loop.connections]).toHaveLength(0)
  })

  it('refuses a certificate of another name', async () => {
    const server = await startServer(echo)
    const connecting = makeLoop().connect(`localhost:${server.address.port}`, {
      handler: { onMessage() {} },
      tls: { ca, servername: 'example.org' },
    })
    await expect(within('connect', connecting)).rejects.toMatchObject({ code: ErrorCode.CONNECT })
  })

  it('ends with its timeout when the server never answers the handshake', async () => {
    const silent = net.createServer((socket) => sockets.push(socket)).listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const { port } = silent.address() as net.AddressInfo
    const connecting = makeLoop().connect(`127.0.0.1:${port}`, {
      handler: { onMessage() {} },
      tls: true,
      timeout: 200,
    })
    await expect(within('connect', connecting)).rejects.toMatchObject({ code: ErrorCode.CONNECT })
    silent.close()
  })
})
