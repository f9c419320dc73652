import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import {
  type BroadcastResult,
  ErrorCode,
  type Handler,
  type LoadBalance,
  type ModuleServerOptions,
  RawProtocol,
  Server,
  type ServerOptions,
} from 'ringloop'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { fixtureUrl } from './support/child.js'
import { memoryLogger } from './support/memory-logger.js'
import { connectRaw, type RawClient } from './support/raw-client.js'
import { until, within } from './support/wait.js'

// biome-ignore lint/suspicious/noExplicitAny: wrong types are what is tested
type Any = any
/** Of whatever serves. */
type Options = ServerOptions & { protocol?: Any; numLoops?: number; loadBalance?: LoadBalance }

const LOCAL = '127.0.0.1:0'
const echo: Handler = { onMessage: (_c, _ctx, data) => data }
const POLLERS = ['native', 'net'] as const

const servers: Server<Any, Any>[] = []
const clients: RawClient[] = []
const folders: string[] = []

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  await Promise.all(servers.splice(0).map((server) => within('a server’s stop', server.stop())))
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true })
})

function makeServer(handler: Handler<Any, Any> | URL | string, options: Options = {}): Server<Any, Any> {
  const server = new Server(handler as URL, {
    address: LOCAL,
    logger: false,
    ...(options as ModuleServerOptions),
  })
  servers.push(server)
  return server
}

async function startServer(
  handler: Handler<Any, Any> | URL | string,
  options: Options = {},
): Promise<Server<Any, Any>> {
  const server = makeServer(handler, options)
  await within('the start', server.start())
  return server
}

async function connect(server: Server<Any, Any>): Promise<RawClient> {
  const { host, port, path: socketPath } = server.address
  const client = await connectRaw({ host, port, path: socketPath })
  clients.push(client)
  return client
}

async function tempPath(name: string): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'ringloop-'))
  folders.push(folder)
  return path.join(folder, name)
}

function startFailure(handler: Any, options: Options = {}): Promise<Any> {
  return within(
    'the start to fail',
    makeServer(handler, options)
      .start()
      .then(
        () => expect.unreachable('it started'),
        (error: unknown) => error,
      ),
  )
}

describe('options', () => {
  const bad: [string, Any, RegExp][] = [
    ['address', 'nonsense', /address/],
    ['address', ':99999', /port/],
    ['address', '127.0.0.1', /address/],
    ['address', 5, /address/],
    ['address', {}, /port/],
    ['address', { port: -1 }, /port/],
    ['address', { port: 1.5 }, /port/],
    ['address', { path: '' }, /path/],
    ['numLoops', 0, /numLoops/],
    ['numLoops', -1, /numLoops/],
    ['numLoops', 1.5, /numLoops/],
    ['numLoops', '2', /numLoops/],
    ['numLoops', Number.POSITIVE_INFINITY, /numLoops/],
    ['loadBalance', 'random', /loadBalance/],
    ['reusePort', 'yes', /reusePort/],
    ['maxConnections', 0, /maxConnections/],
    ['maxConnections', Number.NaN, /maxConnections/],
    ['backlog', 0, /backlog/],
    ['backlog', Number.POSITIVE_INFINITY, /backlog/],
    ['poller', 'kqueue', /poller/],
    ['highWaterMark', 0, /highWaterMark/],
    ['highWaterMark', '1k', /highWaterMark/],
    ['lowWaterMark', 2 ** 40, /lowWaterMark/],
    ['lowWaterMark', -1, /lowWaterMark/],
    ['maxReadBuffer', 0, /maxReadBuffer/],
    ['idleTime', -5, /idleTime/],
    ['idleTime', Number.NaN, /idleTime/],
    ['idleTime', Number.POSITIVE_INFINITY, /idleTime/],
    ['closeTimeout', 0, /closeTimeout/],
    ['handshakeTimeout', -1, /handshakeTimeout/],
    ['closeTimeout', Number.POSITIVE_INFINITY, /closeTimeout/],
    ['noDelay', 1, /noDelay/],
    ['keepAlive', -1, /keepAlive/],
    ['tick', 0, /tick/],
    ['tick', 'fast', /tick/],
    ['wheelSize', 100, /wheel/],
    ['wheelSize', 0, /wheel/],
    ['logger', 'loud', /logger/],
    ['logger', {}, /logger/],
    ['execArgv', '--expose-gc', /execArgv/],
    ['execArgv', [1], /execArgv/],
    ['resourceLimits', 512, /resourceLimits/],
    ['resourceLimits', [512], /resourceLimits/],
    ['resourceLimits', { maxHeap: 512 }, /maxHeap/],
    ['resourceLimits', { stackSizeMb: '4' }, /stackSizeMb/],
    ['onLoopDied', true, /onLoopDied/],
  ]

  for (const [name, value, sentence] of bad) {
    it(`${name}: ${JSON.stringify(value) ?? String(value)} is refused by start, here and with threads`, async () => {
      for (const source of [echo, fixtureUrl('echo.mjs')]) {
        const error = await startFailure(source, { [name]: value })
        expect(error).toMatchObject({ code: ErrorCode.OPTION })
        expect(error.message).toMatch(sentence)
      }
    })
  }

  it('a handler that is none is refused', async () => {
    for (const handler of [undefined, null, {}, { onMessage: 'x' }, 5]) {
      expect(await startFailure(handler)).toMatchObject({ code: ErrorCode.OPTION })
    }
  })

  it('a protocol that is none is refused', async () => {
    expect(await startFailure(echo, { protocol: {} as Any })).toMatchObject({ code: ErrorCode.OPTION })
  })

  it('a handler object with several loops says what to do', async () => {
    const error = await startFailure(echo, { numLoops: 2 })
    expect(error.code).toBe(ErrorCode.HANDLER_NEEDS_MODULE)
    expect(error.message).toContain('URL of a module')
  })

  it('data that cannot be cloned into threads is refused with a sentence', async () => {
    const error = await startFailure(fixtureUrl('echo.mjs'), { data: { callback: () => {} } })
    expect(error).toMatchObject({ code: ErrorCode.OPTION })
    expect(error.message).toMatch(/data/)
  })

  it('an option of tls that the native poller does not know is refused where that is insisted on', async () => {
    const tls = { crl: 'none' }
    const error = await startFailure(echo, { tls, poller: 'native' })
    expect([error.code, error.message]).toEqual([ErrorCode.OPTION, 'the native poller does not know tls.crl'])
  })

  it('reusePort with a unix socket is refused', async () => {
    const error = await startFailure(echo, { address: { path: '/tmp/ringloop-never' }, reusePort: true })
    expect(error.code).toBe(ErrorCode.OPTION)
  })

  it('a host that is no text, and one that does not exist, are refused', async () => {
    expect(await startFailure(echo, { address: { host: 5 as Any, port: 0 } })).toMatchObject({
      code: ErrorCode.OPTION,
    })
    expect(await startFailure(echo, { address: 'no.such.host.invalid:0' })).toMatchObject({
      code: ErrorCode.LISTEN,
    })
  })
})

describe('the loop module', () => {
  const cases: [string, string, RegExp][] = [
    ['does-not-exist.mjs', ErrorCode.MODULE_LOAD, /does-not-exist/],
    ['throws-at-import.mjs', ErrorCode.MODULE_LOAD, /thrown at import/],
    ['no-default.mjs', ErrorCode.MODULE_EXPORT, /default/],
    ['bad-handler.mjs', ErrorCode.MODULE_EXPORT, /onMessage/],
    ['bad-protocol.mjs', ErrorCode.MODULE_EXPORT, /unPacket/],
    ['start-throws.mjs', ErrorCode.LOOP_START, /no database/],
    ['start-throws-with-timer.mjs', ErrorCode.LOOP_START, /no database/],
    ['no-default-with-timer.mjs', ErrorCode.MODULE_EXPORT, /default/],
  ]
  for (const [name, code, sentence] of cases) {
    for (const numLoops of [1, 3]) {
      it(`${name} makes start reject with ${code}, ${numLoops} loop(s)`, async () => {
        const error = await startFailure(fixtureUrl(name), { numLoops })
        expect(error.code).toBe(code)
        expect(error.message).toMatch(sentence)
      })
    }
  }

  it('may be a path, and export classes that get the loop', async () => {
    const server = await startServer(fixtureUrl('classes.mjs').pathname, { numLoops: 1 })
    const client = await connect(server)
    client.write('hel')
    client.write('lo\n')
    await client.bytes(18)
    expect(client.text).toBe('0 line of 0 hello\n')
  })

  it('gets the data of the options', async () => {
    const server = await startServer(fixtureUrl('commands.mjs'), {
      numLoops: 2,
      data: { a: [1, new Date(0)] },
    })
    const client = await connect(server)
    client.write('data')
    await client.bytes(10)
    expect(JSON.parse(client.text)).toEqual({ a: [1, '1970-01-01T00:00:00.000Z'] })
  })

  it('a protocol option beside a module is refused', async () => {
    const error = await startFailure(fixtureUrl('echo.mjs'), {
      protocol: { unPacket() {}, packet() {} } as Any,
    })
    expect(error.code).toBe(ErrorCode.OPTION)
  })
})

describe('life', () => {
  it('start twice is refused, and the first goes on', async () => {
    const server = await startServer(echo)
    await expect(server.start()).rejects.toMatchObject({ code: ErrorCode.STATE })
    expect(String(await (await connect(server)).echo('x'))).toBe('x')
  })

  it('stop before start is harmless, and a start after it is refused instead of never being stopped', async () => {
    const server = makeServer(echo)
    await server.stop()
    await server.stop()
    await expect(server.start()).rejects.toMatchObject({ code: ErrorCode.STATE })
  })

  it('start again after a stop is refused', async () => {
    const server = await startServer(echo)
    await server.stop()
    await expect(server.start()).rejects.toMatchObject({ code: ErrorCode.STATE })
  })

  for (const [name, source] of [
    ['here', echo],
    ['threads', fixtureUrl('echo.mjs')],
  ] as const) {
    it(`stop during start (${name}) ends in a stopped server`, async () => {
      const server = makeServer(source, source instanceof URL ? { numLoops: 2 } : {})
      const starting = server.start().catch((error: unknown) => error)
      await within('stop', server.stop())
      expect(await within('start', starting)).toMatchObject({ code: ErrorCode.CLOSED })
      const refused = await connect(server).then(
        () => 'connected',
        () => 'refused',
      )
      expect(refused).toBe('refused')
    })

    it(`use after stop (${name}) is harmless`, async () => {
      const server = await startServer(source, source instanceof URL ? { numLoops: 2 } : {})
      const client = await connect(server)
      await client.echo('x')
      await server.stop()
      await client.whenEnded()
      await server.stop()
      await server.stop({ drain: 100 })
      expect(await server.broadcast('x')).toEqual({ sent: 0, dropped: 0, closed: 0 })
      expect(server.runAfter(1, () => expect.unreachable()).active).toBe(false)
      expect(server.runEvery(1, () => expect.unreachable()).active).toBe(false)
      expect(server.stats().total.bytesIn).toBe(1)
      expect(server.stats().total.connections).toBe(0)
      expect(server.address.port).toBeGreaterThan(0)
      await expect(connect(server)).rejects.toThrow('ECONNREFUSED')
    })
  }

  it('a start that fails ends the timers of the server', async () => {
    const first = new Server(echo, { address: '127.0.0.1:0', logger: false })
    await first.start()
    const second = new Server(echo, { address: String(first.address), logger: false })
    const timer = second.runEvery(1, () => {})
    await expect(second.start()).rejects.toMatchObject({ code: ErrorCode.ADDRESS_IN_USE })
    expect(timer.active).toBe(false)
    expect(second.runEvery(1, () => {}).active).toBe(false)
    await Promise.all([first.stop(), second.stop()])
  })

  it('use before start: address throws, broadcast sends to nobody, stats are zero, timers run', async () => {
    const server = makeServer(echo)
    expect(() => server.address).toThrow(expect.objectContaining({ code: ErrorCode.STATE }))
    expect(await server.broadcast('x')).toEqual({ sent: 0, dropped: 0, closed: 0 })
    expect(server.stats().total.bytesIn).toBe(0)
    await new Promise<void>((resolve) => void server.runAfter(5, resolve))
  })

  it('a failed start leaves a server whose stop is harmless', async () => {
    const server = makeServer(echo, { address: 'nonsense' })
    await expect(server.start()).rejects.toThrow()
    await within('stop', server.stop())
  })

  it('an address in use says so, with every way to listen', async () => {
    const taken = await startServer(echo)
    const address = { host: '127.0.0.1', port: taken.address.port }
    for (const poller of POLLERS) {
      for (const source of [echo, fixtureUrl('echo.mjs')]) {
        const error = await startFailure(source, {
          address,
          poller,
          ...(source instanceof URL && { numLoops: 2 }),
        })
        expect(error.code).toBe(ErrorCode.ADDRESS_IN_USE)
        expect(error.message).toMatch(/in use/)
        expect(error.cause).toMatchObject({ code: 'EADDRINUSE' })
      }
    }
    expect(String(await (await connect(taken)).echo('x'))).toBe('x')
  })

  it('an address in use with a loop thread that listens by itself says so', async () => {
    const taken = await startServer(echo)
    const address = { host: '127.0.0.1', port: taken.address.port }
    const error = await startFailure(fixtureUrl('echo.mjs'), { address, poller: 'net', numLoops: 1 })
    expect(error.code).toBe(ErrorCode.ADDRESS_IN_USE)
  })
})

for (const poller of POLLERS) {
  describe(`a server on the ${poller} poller`, () => {
    it('a handler that throws or rejects loses its connection and no other', async () => {
      const closes: string[] = []
      const logger = memoryLogger()
      const server = await startServer(
        {
          onMessage: (_c: Any, _ctx: Any, data: Buffer) => {
            if (String(data) === 'throw') throw new Error('thrown')
            if (String(data) === 'reject') return Promise.reject(new Error('rejected'))
            return data
          },
          onClose: (_c: Any, reason: Any) => void closes.push(reason.code),
        },
        { poller, logger },
      )
      const good = await connect(server)
      await good.echo('hello')
      for (const word of ['throw', 'reject']) {
        const bad = await connect(server)
        bad.write(word)
        await bad.whenEnded()
      }
      expect(String(await good.echo('still here'))).toBe('still here')
      expect(closes).toEqual(['handler-error', 'handler-error'])
      expect(server.stats().total.handlerErrors).toBe(2)
      const [line] = logger.find('error', 'thrown')
      expect(line?.fields).toMatchObject({ peer: expect.stringMatching(/^127\.0\.0\.1:\d+$/) })
    })

    it('keeps to maxConnections, counts the rejected, and takes new ones when there is room', async () => {
      const server = await startServer(echo, { poller, maxConnections: 2 })
      const [a, b] = [await connect(server), await connect(server)]
      await a.echo('x')
      await b.echo('x')
      const third = await connect(server)
      await third.whenEnded()
      expect(third.length).toBe(0)
      expect(server.stats().total.rejected).toBe(1)
      a.destroy()
      await until('one has gone', () => server.stats().total.connections === 1)
      expect(String(await (await connect(server)).echo('again'))).toBe('again')
    })

    it('serves a unix socket and removes its file at stop', async () => {
      const file = await tempPath('s.sock')
      const addrs: string[] = []
      const server = await startServer(
        { ...echo, onConnect: (c: Any) => void addrs.push(c.peerAddr) },
        { poller, address: { path: file } },
      )
      expect(String(server.address)).toBe(file)
      const client = await connect(server)
      expect(String(await client.echo('over a file'))).toBe('over a file')
      expect(addrs).toEqual([''])
      const error = await startFailure(echo, { poller, address: { path: file } })
      expect(error.code).toBe(ErrorCode.ADDRESS_IN_USE)
      expect(String(await client.echo('after the second'))).toBe('after the second')
      await server.stop()
      expect(existsSync(file)).toBe(false)
    })

    it('serves IPv6', async () => {
      const addrs: string[] = []
      const server = await startServer(
        { ...echo, onConnect: (c: Any) => void addrs.push(c.peerAddr, c.localAddr) },
        { poller, address: '[::1]:0' },
      )
      expect(String(server.address)).toBe(`[::1]:${server.address.port}`)
      const client = await connect(server)
      await client.echo('x')
      expect(addrs).toEqual([`[::1]:${client.socket.localPort}`, `[::1]:${server.address.port}`])
    })

    it('listens on every interface for :port, and shows IPv4 peers as IPv4', async () => {
      const peers: string[] = []
      const server = await startServer(
        { ...echo, onConnect: (c: Any) => void peers.push(c.peerAddr) },
        { poller, address: ':0' },
      )
      const client = await connectRaw({ host: '127.0.0.1', port: server.address.port })
      clients.push(client)
      await client.echo('x')
      expect(peers).toEqual([`127.0.0.1:${client.socket.localPort}`])
    })

    it('counts exactly what went in and out', async () => {
      const server = await startServer(echo, { poller })
      const list = await Promise.all([1, 2, 3].map(() => connect(server)))
      let bytes = 0
      for (const [i, client] of list.entries()) {
        for (let k = 1; k <= 5; k++) {
          await client.echo(Buffer.alloc(1000 * k + i))
          bytes += 1000 * k + i
        }
      }
      list[0]!.socket.end()
      await until('it is closed', () => server.stats().total.connections === 2)
      const { total, loops } = server.stats()
      expect(total).toMatchObject({
        accepted: 3,
        connections: 2,
        bytesIn: bytes,
        bytesOut: bytes,
        rejected: 0,
      })
      expect(total.messagesIn).toBe(total.messagesOut)
      expect(total.closed['peer-closed']).toBe(1)
      expect(loops).toHaveLength(1)
    })

    it('the answer to a peer that ends its side at once reaches it', async () => {
      const server = await startServer(echo, { poller })
      const client = await connect(server)
      const message = Buffer.alloc(3_000_000, 'abc')
      client.socket.end(message)
      await client.whenEnded()
      expect(client.received.equals(message)).toBe(true)
      expect(client.error).toBeUndefined()
    })

    it('close after an answer delivers all of it to a peer that is still sending', async () => {
      const answer = Buffer.alloc(2_000_000, 'xyz')
      const server = await startServer(
        {
          onMessage: (c: Any) => {
            c.send(answer)
            c.close()
          },
        },
        { poller, highWaterMark: 1 << 24 },
      )
      const client = await connect(server)
      for (let i = 0; i < 20; i++) client.write(Buffer.alloc(50_000))
      await client.whenEnded()
      expect(client.length).toBe(answer.length)
      expect(client.error).toBeUndefined()
    })

    it('stop with drain delivers the answers of a peer that is still sending', async () => {
      const answer = Buffer.alloc(3_000_000, 'xyz')
      let asked = 0
      const server = await startServer(
        {
          onMessage: () =>
            ++asked === 1
              ? new Promise<Buffer>((resolve) => setTimeout(() => resolve(answer), 100))
              : undefined,
        },
        { poller, highWaterMark: 1 << 24 },
      )
      const client = await connect(server)
      client.socket.pause()
      client.write('question')
      await until('it was asked', () => asked === 1)
      const stopped = server.stop({ drain: 5000 })
      const chatter = setInterval(() => client.write(Buffer.alloc(10_000)), 20)
      try {
        await new Promise((resolve) => setTimeout(resolve, 300))
        client.socket.resume()
        await stopped
        await client.whenEnded()
        expect(client.length).toBe(answer.length)
      } finally {
        clearInterval(chatter)
      }
    })

    it('reaps idle connections', async () => {
      const closes: string[] = []
      const server = await startServer(
        { ...echo, onClose: (_c: Any, reason: Any) => void closes.push(reason.code) },
        { poller, idleTime: 150 },
      )
      const client = await connect(server)
      await client.whenEnded()
      expect(closes).toEqual(['idle'])
    })

    it('a peer’s reset ends in onClose once', async () => {
      const closes: string[] = []
      const server = await startServer(
        { ...echo, onClose: (_c: Any, reason: Any) => void closes.push(reason.code) },
        { poller },
      )
      for (let i = 0; i < 20; i++) {
        const client = await connect(server)
        if (i % 2 === 0) await client.echo('x')
        else client.write('x')
        client.reset()
      }
      await until('all are gone', () => closes.length === 20)
      expect(server.stats().total.connections).toBe(0)
    })
  })
}

describe('one loop here', () => {
  it('a publication that cannot be packed rejects with the code that several loops have', async () => {
    let subscribed = false
    const onConnect: Handler['onConnect'] = (c) => {
      subscribed = c.subscribe('t')
    }
    class Refusing extends RawProtocol {
      override broadcast(): never {
        throw new TypeError('not a message of mine')
      }
    }
    const server = await startServer({ onConnect, onMessage() {} }, { protocol: new Refusing() })
    await connect(server)
    await until('it is subscribed', () => subscribed)
    await expect(server.publish('t', 'x')).rejects.toMatchObject({
      code: 'ERR_RINGLOOP_PACKET',
      message: 'not a message of mine',
    })
  })

  it('broadcast reaches every connection', async () => {
    const server = await startServer(echo)
    const list = await Promise.all([connect(server), connect(server)])
    for (const client of list) await client.echo('hi')
    expect(await server.broadcast('news')).toEqual({ sent: 2, dropped: 0, closed: 0 })
    for (const client of list) expect(String(await client.bytes(6))).toBe('hinews')
  })

  it('a timer of the server that throws is logged, and others go on', async () => {
    const logger = memoryLogger()
    const server = await startServer(echo, { logger })
    server.runAfter(1, () => {
      throw new Error('a bad timer')
    })
    await new Promise<void>((resolve) => void server.runAfter(20, resolve))
    expect(logger.find('error', 'a bad timer')).toHaveLength(1)
  })
})

describe('several loops', () => {
  const started: [string, Options][] = [
    ['native', { poller: 'native' }],
    ['net', { poller: 'net' }],
    ['native with reusePort', { poller: 'native', reusePort: true }],
  ]
  for (const [name, options] of started) {
    it(`${name}: broadcast reaches every connection of every loop, stats agree, stop ends all`, async () => {
      const server = await startServer(fixtureUrl('echo.mjs'), { ...options, numLoops: 3 })
      const list = await Promise.all(Array.from({ length: 12 }, () => connect(server)))
      await Promise.all(list.map((client) => client.echo('hi')))
      const counted = { connections: 12, accepted: 12, bytesIn: 24, bytesOut: 24 }
      // An answer can be here before its loop has counted it.
      await vi.waitFor(() => expect(server.stats().total).toMatchObject(counted), { timeout: 5000 })
      expect(await server.broadcast('news')).toEqual({ sent: 12, dropped: 0, closed: 0 })
      for (const client of list) expect(String(await client.bytes(6))).toBe('hinews')
      expect(await server.broadcast(Buffer.from('!'))).toMatchObject({ sent: 12 })
      await server.stop()
      await Promise.all(list.map((client) => client.whenEnded()))
      expect(server.stats().total.connections).toBe(0)
      expect(server.stats().total.closed['server-stopped']).toBe(12)
    })
  }

  it('a broadcast of what cannot be cloned rejects with a code, and nothing breaks', async () => {
    const server = await startServer(fixtureUrl('echo.mjs'), { numLoops: 2 })
    const client = await connect(server)
    await client.echo('x')
    await expect(server.broadcast(() => {})).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_RINGLOOP_/),
    })
    expect(String(await client.echo('y'))).toBe('y')
  })

  it('a broadcast that the protocol cannot pack rejects, and no loop dies of it', async () => {
    const logger = memoryLogger()
    const server = await startServer(fixtureUrl('picky-protocol.mjs'), { numLoops: 2, logger })
    const list = await Promise.all([connect(server), connect(server)])
    for (const client of list) await client.echo('x')
    const result = await within(
      'the broadcast',
      server.broadcast(5 as Any).catch((error: unknown) => error as Error),
    )
    expect(logger.find('error', 'died')).toEqual([])
    for (const client of list) expect(String(await client.echo('alive'))).toBe('alive')
    expect(result).toBeInstanceOf(Error)
  })

  it('a broadcast of null does not kill the loops', async () => {
    const logger = memoryLogger()
    const server = await startServer(fixtureUrl('echo.mjs'), { numLoops: 2, logger })
    const client = await connect(server)
    await client.echo('x')
    await within(
      'the broadcast',
      (server.broadcast(null) as Promise<BroadcastResult>).catch(() => {}),
    )
    expect(String(await client.echo('alive'))).toBe('alive')
    expect(logger.find('error', 'died')).toEqual([])
  })

  it('a handler’s error is logged in the server’s thread with its text, even with a cause that cannot be cloned', async () => {
    const logger = memoryLogger()
    const server = await startServer(fixtureUrl('commands.mjs'), { numLoops: 2, logger })
    for (const [command, text] of [
      ['throw', 'a throw on demand'],
      ['reject', 'a rejection on demand'],
      ['odd-throw', 'a throw with a cause that cannot be cloned'],
    ] as const) {
      const client = await connect(server)
      client.write(command)
      await client.whenEnded()
      await until(`'${text}' is logged`, () =>
        logger.lines.some(
          (line) =>
            line.level === 'error' &&
            JSON.stringify(line, (_k, v) => (v instanceof Error ? v.message : v)).includes(text),
        ),
      )
    }
  })

  it('a loadBalance function that throws is logged; with what is no loop, too, everyone is served', async () => {
    for (const answer of [Number.NaN, -1, 7, 'throw']) {
      const logger = memoryLogger()
      const loadBalance = (): number => {
        if (answer === 'throw') throw new Error('a bad choice')
        return answer as number
      }
      const server = await startServer(fixtureUrl('echo.mjs'), { numLoops: 2, loadBalance, logger })
      const client = await connect(server)
      expect(String(await client.echo('x'))).toBe('x')
      expect(logger.find('error', 'loadBalance')).toHaveLength(answer === 'throw' ? 1 : 0)
    }
  })

  it('maxConnections holds over all loops', async () => {
    for (const poller of POLLERS) {
      const server = await startServer(fixtureUrl('echo.mjs'), { poller, numLoops: 3, maxConnections: 5 })
      const list = await Promise.all(Array.from({ length: 5 }, () => connect(server)))
      await Promise.all(list.map((client) => client.echo('x')))
      const more = await Promise.all(Array.from({ length: 4 }, () => connect(server)))
      await Promise.all(more.map((client) => client.whenEnded()))
      expect(server.stats().total).toMatchObject({ connections: 5, rejected: 4 })
      list[0]!.destroy()
      await until('one has gone', () => server.stats().total.connections === 4)
      expect(String(await (await connect(server)).echo('room'))).toBe('room')
    }
  })
})

describe('connections made here', () => {
  for (const poller of POLLERS) {
    it(`${poller}: connect refused, wrong port, unix socket that is not there`, async () => {
      let loop: Any
      await startServer(
        {
          ...echo,
          onStart: (each: Any) => {
            loop = each
          },
        },
        { poller },
      )
      const free = net.createServer().listen(0, '127.0.0.1')
      await new Promise((resolve) => free.once('listening', resolve))
      const { port } = free.address() as net.AddressInfo
      await new Promise((resolve) => free.close(resolve))
      for (const [address, code] of [
        [{ host: '127.0.0.1', port }, 'ECONNREFUSED'],
        [{ path: '/nowhere/at.all' }, 'ENOENT'],
      ] as const) {
        const error = await within(
          'connect to fail',
          loop.connect(address, { handler: echo }).catch((e: unknown) => e),
        )
        expect(error).toMatchObject({ code: ErrorCode.CONNECT, cause: { code } })
      }
      expect(loop.stats().connections).toBe(0)
    })

    it(`${poller}: a thousand bytes there and back, by name`, async () => {
      let loop: Any
      const server = await startServer(
        {
          ...echo,
          onStart: (each: Any) => {
            loop = each
          },
        },
        { poller },
      )
      const got: Buffer[] = []
      const onClose = vi.fn()
      const c = await within(
        'connect',
        loop.connect(`localhost:${server.address.port}`, {
          handler: { onMessage: (_c: Any, _ctx: Any, data: Buffer) => void got.push(data), onClose },
        }),
      )
      const connection = c as Any
      expect(connection.peerAddr).toBe(`127.0.0.1:${server.address.port}`)
      connection.send(Buffer.alloc(1000, 'k'))
      await until('it is back', () => Buffer.concat(got).length === 1000)
      connection.close()
      await until('it is closed', () => onClose.mock.calls.length === 1)
      expect(connection.peerAddr).toBe(`127.0.0.1:${server.address.port}`)
    })
  }
})
