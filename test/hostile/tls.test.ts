// What bad peers get over TLS: their connection ends, counted by reason, and nobody else is harmed.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import net from 'node:net'
import { type Handler, Server, type ServerStats, type TlsFailure } from 'ringloop'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { NativePoller } from '../../src/loop/poller/native-poller.js'
import { Authority } from '../support/certificates.js'
import { fixture, fixtureUrl } from '../support/child.js'
import { type MemoryLogger, memoryLogger } from '../support/memory-logger.js'
import { connectRaw, type RawClient } from '../support/raw-client.js'
import { Recorder } from '../support/recorder.js'
import { connectTls, startTls, type TlsClient, type TlsClientOptions } from '../support/tls-client.js'
import { rounds, until, within } from '../support/wait.js'

const authority = new Authority()
const credentials = authority.issue()
afterAll(() => authority.remove())

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

const echo: Handler = { onMessage: (_c, _ctx, data) => data }

interface Served {
  readonly server: Server
  readonly logger: MemoryLogger
  readonly total: () => ServerStats['total']
  readonly plain: () => Promise<RawClient>
  readonly secure: (options?: TlsClientOptions) => Promise<TlsClient>
}

const SHAPES = [
  { name: 'here', source: echo, numLoops: 1 },
  { name: 'two loops', source: fixtureUrl('echo.mjs'), numLoops: 2 },
] as const

async function serve(
  shape: (typeof SHAPES)[number],
  options: object = {},
  tls: object = {},
): Promise<Served> {
  const logger = memoryLogger()
  const server = new Server(shape.source as URL, {
    ...{ address: '127.0.0.1:0', poller: 'native', numLoops: shape.numLoops, logger },
    ...{ tls: { ...credentials, ...tls }, ...options },
  })
  ends.push(() => within('stop', server.stop()))
  await within('start', server.start())
  const keep = <T extends RawClient>(client: T): T => {
    ends.push(() => client.destroy())
    return client
  }
  return {
    ...{ server, logger, total: () => server.stats().total },
    plain: async () => keep(await connectRaw(server.address)),
    secure: async (more) =>
      keep(await within('the handshake', connectTls(server.address, { ca: authority.cert, ...more }))),
  }
}

/** A ClientHello of TLS 1.1, with one cipher and nothing else. */
const OLD_HELLO = Buffer.from(`16030100${'2d'}01000029${'0302'}${'ab'.repeat(32)}000002002f0100`, 'hex')
const ALERT = Buffer.from('15030100020228', 'hex')
const HELLO_START = Buffer.from('16030102000100', 'hex')

const BAD: readonly [string, Uint8Array | string, readonly TlsFailure[]][] = [
  ['HTTP', 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', ['not-tls']],
  ['garbage', Buffer.alloc(3000, 0xff), ['not-tls', 'broken']],
  ['a TLS 1.1 hello', OLD_HELLO, ['old-version']],
  ['an alert', ALERT, ['alert', 'broken']],
]

for (const shape of SHAPES) {
  describe(`TLS, native, ${shape.name}`, () => {
    for (const [what, bytes, failures] of BAD) {
      it(`${what} ends its connection, counted, with a line a second at most`, async () => {
        const { total, plain, secure, logger } = await serve(shape)
        const good = await secure()
        for (let i = 0; i < 20; i++) {
          const peer = await plain()
          peer.write(bytes)
          await peer.whenEnded()
          peer.destroy()
        }
        const counted = (): number => failures.reduce((n, each) => n + total().tlsFailures[each], 0)
        await until('all are counted', () => counted() === 20)
        await until('nobody else is there', () => total().connections === 1)
        expect(String(await good.echo('fine'))).toBe('fine')
        const lines = logger.find('info', 'TLS failed with a peer')
        expect(lines.length).toBeGreaterThan(0)
        expect(lines.length).toBeLessThan(20)
        expect(failures).toContain((lines[0]!.fields as { readonly reason?: TlsFailure }).reason)
      })
    }

    it('a handshake that stalls is late, and one that is left is none', async () => {
      const { total, plain, secure } = await serve(shape, { handshakeTimeout: 300 })
      const [silent, stalled, gone] = [await plain(), await plain(), await plain()]
      stalled.write(HELLO_START)
      gone.socket.end(HELLO_START)
      await until('all are closed', () => [silent, stalled, gone].every((each) => each.ended || each.closed))
      await until('nobody is counted', () => total().connections === 0)
      expect(total().tlsFailures).toMatchObject({ late: 2, left: 1 })
      expect(String(await (await secure()).echo('fine'))).toBe('fine')
    })

    it('more handshakes than may be under way are closed', async () => {
      const { total, plain, secure } = await serve(shape, {}, { maxHandshakes: 3 })
      const peers = await Promise.all(Array.from({ length: 20 }, plain))
      const open = (): RawClient[] => peers.filter((each) => !each.ended && !each.closed)
      await until('the others are closed', () => open().length === 3 * shape.numLoops)
      await until('they are counted', () => total().tlsFailures['too-many'] === 20 - 3 * shape.numLoops)
      await until('the open ones too', () => total().connections === 3 * shape.numLoops)
      for (const each of open()) each.destroy()
      await until('they are gone', () => total().connections === 0)
      expect(String(await (await secure()).echo('fine'))).toBe('fine')
    })

    for (const [what, ...reads] of [['nothing'], ['all answers', 'reads']] as const) {
      it.skipIf(!existsSync('/usr/include/openssl/ssl.h'))(
        `one who wants new keys again and again, and reads ${what}, ends its connection`,
        async () => {
          const { server, total, secure } = await serve(shape)
          const good = await secure()
          const child = spawn(keyUpdates(), [`${server.address.port}`, '10000000', ...reads])
          ends.push(() => child.kill())
          let said = ''
          child.stdout.on('data', (text) => {
            said += text
          })
          expect(await within('its end', once(child, 'close'), 60_000)).toEqual([0, null])
          expect(said).toMatch(/^connected\nasked \d+\n$/)
          await until('it is counted', () => total().tlsFailures.flood === 1)
          expect(String(await good.echo('fine'))).toBe('fine')
          expect(total().closed['tls-error']).toBe(1)
        },
      )
    }

    it('a renegotiation ends its connection', async () => {
      const { total, secure } = await serve(shape)
      const [bad, good] = [await secure({ maxVersion: 'TLSv1.2' }), await secure()]
      await bad.echo('x')
      bad.socket.renegotiate({ rejectUnauthorized: true }, () => {})
      await bad.whenEnded()
      await until('it is counted', () => total().tlsFailures.renegotiation === 1)
      await until('it is closed', () => total().closed['tls-error'] === 1)
      expect(String(await good.echo('fine'))).toBe('fine')
    })

    for (const maxVersion of ['TLSv1.3', 'TLSv1.2'] as const) {
      it(`${maxVersion}: every byte may come alone`, async () => {
        const { server } = await serve(shape)
        const port = await relay(server, async (bytes, forward) => {
          for (const byte of bytes) {
            forward(Uint8Array.of(byte))
            await rounds(1)
          }
        })
        const client = startTls({ port }, { ca: authority.cert, maxVersion })
        ends.push(() => client.destroy())
        for (const length of [1, 100, 1000]) {
          const message = Buffer.alloc(length, `${length}`)
          expect((await client.echo(message)).equals(message)).toBe(true)
        }
        client.socket.end()
        await until('it has ended', () => server.stats().total.closed['peer-closed'] === 1)
      })

      it(`${maxVersion}: a byte that is changed, wherever it is, harms its own connection alone`, async () => {
        // Where the changed byte makes a record longer the server waits for the rest.
        const { server, secure, total } = await serve(shape, { handshakeTimeout: 200, idleTime: 200 })
        let [at, change] = [0, 0]
        const port = await relay(server, async (bytes, forward, from) => {
          const copy = Buffer.from(bytes)
          const index = at - from
          if (index >= 0 && index < copy.length) copy[index] = copy[index]! ^ change
          forward(copy)
        })
        for (at = 0; at < 700; at += 13) {
          change = 1 << (at % 8)
          const client = startTls({ port }, { ca: authority.cert, maxVersion })
          client.socket.on('secureConnect', () => client.write(Buffer.alloc(60, 'x')))
          await until('it is closed or answered', () => client.closed || client.ended || client.length >= 60)
          if (client.length >= 60) expect(client.received.equals(Buffer.alloc(60, 'x'))).toBe(true)
          client.destroy()
        }
        await until('nobody is there', () => total().connections === 0)
        expect(String(await (await secure()).echo('fine'))).toBe('fine')
      })
    }

    it('stop with a drain delivers everything, and says that it was everything', async () => {
      const { server, secure } = await serve(shape)
      const client = await secure()
      client.socket.pause()
      const message = Buffer.alloc(3_000_000, 'drain')
      client.write(message)
      await until('it is being answered', () => server.stats().total.bytesOut > 0)
      const stopping = server.stop({ drain: 20_000 })
      client.socket.resume()
      const { bytesIn } = server.stats().total
      await within('stop', stopping, 30_000)
      await client.whenEnded()
      expect(client.error).toBeUndefined()
      expect(client.length).toBeGreaterThanOrEqual(Math.min(bytesIn, message.length))
      expect(client.received.equals(message.subarray(0, client.length))).toBe(true)
    })
  })
}

/** The program of test/fixtures/key-updates.c. */
function keyUpdates(): string {
  const program = authority.file('key-updates', '')
  const compiler = process.env.CC ?? 'cc'
  execFileSync(compiler, ['-o', program, fixture('key-updates.c'), '-lssl', '-lcrypto'], { stdio: 'pipe' })
  return program
}

/** Between a client and the server; `pass` gives on what the client sends. Resolves with its port. */
async function relay(
  server: Server,
  pass: (bytes: Buffer, forward: (bytes: Uint8Array) => void, from: number) => Promise<void>,
): Promise<number> {
  const sockets: net.Socket[] = []
  const between = net.createServer({ noDelay: true, allowHalfOpen: true }, (down) => {
    const up = net.connect({
      host: '127.0.0.1',
      port: server.address.port,
      noDelay: true,
      allowHalfOpen: true,
    })
    sockets.push(down, up)
    let from = 0
    let passing = Promise.resolve()
    down.on('data', (bytes: Buffer) => {
      const begin = from
      from += bytes.length
      passing = passing.then(() => pass(bytes, (each) => up.write(each), begin))
    })
    down.on('end', () => void passing.then(() => up.end()))
    up.on('data', (bytes: Buffer) => down.write(bytes))
    up.on('end', () => down.end())
    down.on('error', () => up.destroy())
    up.on('error', () => down.destroy())
  })
  between.listen(0, '127.0.0.1')
  await once(between, 'listening')
  ends.push(() => {
    for (const socket of sockets) socket.destroy()
    between.close()
  })
  return (between.address() as net.AddressInfo).port
}

it('no turn does more than a few handshakes, however many there are', async () => {
  const sink = new Recorder()
  let most = 0
  let inThis = 0
  const start = sink.handleBatchStart.bind(sink)
  sink.handleBatchStart = () => {
    inThis = 0
    start()
  }
  sink.onAccept = () => {
    inThis++
    most = Math.max(most, inThis)
  }
  const poller = new NativePoller(sink, { tls: credentials })
  ends.push(() => poller.destroy())
  const { endpoint } = await poller.listen(
    { host: '127.0.0.1', port: 0 },
    { noDelay: true, keepAlive: 0, backlog: 512, reusePort: false, park: false },
  )
  const clients = Array.from({ length: 100 }, () =>
    startTls(endpoint as { port: number }, { ca: authority.cert }),
  )
  ends.push(() => {
    for (const client of clients) client.destroy()
  })
  await until('all are through', () => sink.accepted.length === 100, 30_000)
  expect(most).toBeLessThanOrEqual(8)
})
