/**
 * Half-open connections: proxies between peers that end their sides one by one lose nothing, hold back who is too fast,
 * and end when both have ended; and a server that knows nothing of it answers what was sent before the end.
 */
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import type net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import {
  connectHalfOpen,
  expected,
  type Received,
  readAll,
  readText,
  sendAll,
  type Target,
  Upstream,
} from '../support/half-closing-peer.js'
import { HostedServer, SHAPES } from '../support/hosted-server.js'
import { until, within } from '../support/wait.js'

type Shape = (typeof SHAPES)[number]
type Kind = 'hand' | 'pipe'

const MIB = 1024 * 1024
const EACH = 5 * MIB
const CLIENTS = 20
const LONG_MS = 45_000

const servers: HostedServer[] = []
const upstreams: Upstream[] = []
const sockets: net.Socket[] = []
const folders: string[] = []

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy()
  for (const server of servers.splice(0)) server.kill()
  await Promise.all(upstreams.splice(0).map((upstream) => upstream.close()))
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true })
})

interface Proxy {
  readonly server: HostedServer
  readonly target: Target
}

async function proxy(
  shape: Shape,
  kind: Kind,
  serve: (socket: net.Socket) => unknown,
  unix = false,
): Promise<Proxy> {
  const upstream = new Upstream(serve)
  upstreams.push(upstream)
  const folder = await mkdtemp(path.join(tmpdir(), 'ringloop-'))
  folders.push(folder)
  const address = await upstream.listen(unix ? path.join(folder, 'upstream') : undefined)
  const own = path.join(folder, 'proxy')
  const server = await HostedServer.start('proxy.mjs', {
    ...shape,
    options: {
      ...(unix ? { address: { path: own } } : {}),
      allowHalfOpen: true,
      highWaterMark: 256 * 1024,
      data: { kind, upstream: address, allowHalfOpen: true },
    },
  })
  servers.push(server)
  return { server, target: unix ? { path: own } : { port: server.port } }
}

async function client(target: Target): Promise<net.Socket> {
  const socket = await connectHalfOpen(target)
  sockets.push(socket)
  return socket
}

/** Nothing is open any more, and both sides of every pair have been told once that they ended. */
async function expectOver({ server }: Proxy, kind: Kind, pairs: number): Promise<void> {
  await until('nothing is open', async () => (await server.total()).connections === 0, LONG_MS)
  expect(await server.told('client', pairs)).toHaveLength(pairs)
  expect(await server.told('upstream', pairs)).toHaveLength(pairs)
  expect(server.events('astray')).toEqual([])
  if (kind !== 'pipe') return
  expect(await server.told('piped', pairs)).toEqual(Array.from({ length: pairs }, () => ({ closed: true })))
}

const echo = (socket: net.Socket): unknown => socket.pipe(socket)

/** Sends, ends its side at once, and reads the rest; as slowly as is said. */
async function sendAndEnd(target: Target, seed: number, restMs = 0): Promise<Received> {
  const socket = await client(target)
  const got = readAll(socket, restMs)
  await sendAll(socket, seed, EACH)
  socket.end()
  return within('all of the other side', got, LONG_MS)
}

describe.each(SHAPES)('$name', (shape) => {
  describe.each(['hand', 'pipe'] as const)('a proxy by %s', (kind) => {
    it(`gives ${CLIENTS} clients that end first all of their echo back, however slow they read`, async () => {
      const proxied = await proxy(shape, kind, echo)
      await Promise.all(
        Array.from({ length: CLIENTS }, async (_, seed) => {
          expect(await sendAndEnd(proxied.target, seed, seed % 3)).toEqual(expected(seed, EACH))
        }),
      )
      await expectOver(proxied, kind, CLIENTS)
    })

    it('hands over what the server sends before it ends, and then what the client sends', async () => {
      const upstream: Promise<Received>[] = []
      const proxied = await proxy(shape, kind, async (socket) => {
        await sendAll(socket, 1, EACH)
        socket.end()
        await sleep(20)
        upstream.push(readAll(socket, 1))
      })
      for (let i = 0; i < 4; i++) {
        const socket = await client(proxied.target)
        expect(await within('the server’s bytes', readAll(socket, 1), LONG_MS)).toEqual(expected(1, EACH))
        await sendAll(socket, i, EACH)
        socket.end()
      }
      await until('the server has read', () => upstream.length === 4)
      expect(await within('the clients’ bytes', Promise.all(upstream), LONG_MS)).toEqual(
        [0, 1, 2, 3].map((seed) => expected(seed, EACH)),
      )
      await expectOver(proxied, kind, 4)
    })

    it('carries both ways at once over unix sockets, and ends with the later end', async () => {
      const upstream: Promise<Received>[] = []
      const serve = async (socket: net.Socket): Promise<void> => {
        upstream.push(readAll(socket, 1))
        await sendAll(socket, 7, EACH)
        socket.end()
      }
      const proxied = await proxy(shape, kind, serve, true)
      const got = await Promise.all([1, 2, 3].map((seed) => sendAndEnd(proxied.target, seed)))
      expect(got).toEqual(got.map(() => expected(7, EACH)))
      const hashes = (await within('the clients’ bytes', Promise.all(upstream), LONG_MS)).map(
        (each) => each.hash,
      )
      expect(hashes.sort()).toEqual([1, 2, 3].map((seed) => expected(seed, EACH).hash).sort())
      await expectOver(proxied, kind, 3)
    })

    it('loses no greeting of a server that speaks first, and no word of a client that cannot wait', async () => {
      const proxied = await proxy(shape, kind, (socket) => {
        socket.write('welcome\n')
        socket.pipe(socket)
      })
      const answers = await Promise.all(
        Array.from({ length: 30 }, async () => {
          const socket = await client(proxied.target)
          socket.end('at once')
          return within('the answer', readText(socket))
        }),
      )
      expect(new Set(answers)).toEqual(new Set(['welcome\nat once']))
      await expectOver(proxied, kind, 30)
    })

    it('ends the one side when the other is reset in the middle', async () => {
      const proxied = await proxy(shape, kind, (socket) => {
        socket.pipe(socket)
        if (randomInt(2) === 0) setTimeout(() => socket.resetAndDestroy(), 50)
      })
      await Promise.all(
        Array.from({ length: 10 }, async () => {
          const socket = await client(proxied.target)
          const got = readAll(socket).catch(() => undefined)
          const sending = sendAll(socket, 1, 50 * MIB).catch(() => {})
          setTimeout(() => socket.resetAndDestroy(), 100)
          await within('the end', once(socket, 'close'), LONG_MS)
          await within('the end of its reading', got)
          void sending
        }),
      )
      await expectOver(proxied, kind, 10)
      await until('the server’s sides ended', () => upstreams[0]!.sockets.every((each) => each.destroyed))
    })

    it('holds back clients whose bytes nobody reads, in bounded memory', async () => {
      const proxied = await proxy(shape, kind, (socket) => socket.pause())
      const before = proxied.server.memory()
      const written = await Promise.all(
        Array.from({ length: 5 }, async () => {
          const socket = await client(proxied.target)
          void sendAll(socket, 1, 500 * MIB).catch(() => {})
          let last = -1
          await until(
            'it is held back',
            async () => {
              const stands = last === socket.bytesWritten - socket.writableLength
              last = socket.bytesWritten - socket.writableLength
              await sleep(500)
              return stands
            },
            LONG_MS,
          )
          return last
        }),
      )
      for (const bytes of written) expect(bytes).toBeLessThan(100 * MIB)
      expect(proxied.server.memory() - before).toBeLessThan(128 * MIB)
      for (const socket of sockets) socket.destroy()
      for (const socket of upstreams[0]!.sockets) socket.destroy()
      await expectOver(proxied, kind, 5)
    })
  })

  describe('a server of lines', () => {
    async function lines(allowHalfOpen?: boolean): Promise<HostedServer> {
      const options = allowHalfOpen === undefined ? {} : { allowHalfOpen }
      const server = await HostedServer.start('half-close.mjs', { ...shape, options })
      servers.push(server)
      return server
    }

    /** Sends everything with its end, and reads to the end of the other side. */
    async function say(server: HostedServer, text: string): Promise<string> {
      const socket = await client(server)
      socket.end(text)
      return within('the answers', readText(socket))
    }

    for (const allowHalfOpen of [undefined, false] as const) {
      it(`answers all that came before the end, and closes (allowHalfOpen ${allowHalfOpen})`, async () => {
        const server = await lines(allowHalfOpen)
        const text = Array.from({ length: 20_000 }, (_, i) => `line ${i}\n`).join('')
        expect(await say(server, text)).toBe(text)
        expect(await server.told('closed')).toMatchObject([{ code: 'peer-closed', lines: 20_000 }])
        expect(await server.told('ended')).toMatchObject([{ lines: 20_000, connected: true }])
      })
    }

    it('says the end after a pending answer, and sends what onEnd sends', async () => {
      const server = await lines()
      expect(await say(server, 'at-end bye\nslow 100\nx\n')).toBe('slow\nx\nbye\n')
      expect(await server.told('ended')).toMatchObject([{ lines: 3 }])
      expect(await server.told('closed')).toMatchObject([{ code: 'peer-closed' }])
    })

    it('says the end with allowHalfOpen after a pending answer too, and sends on until its own', async () => {
      const server = await lines(true)
      expect(await say(server, 'at-end later\nslow 100\nx\n')).toBe('slow\nx\n0\n1\n2\nthe end\n')
      expect(await say(server, 'at-end end\n')).toBe('the end\n')
      expect(await say(server, 'at-end close\n')).toBe('')
      await server.told('closed', 3)
      expect(server.events('ended')).toHaveLength(3)
      expect(server.child.stdout.indexOf('ended ')).toBeLessThan(server.child.stdout.indexOf('closed '))
      await until('nothing is open', async () => (await server.total()).connections === 0)
    })

    it('stays half open with allowHalfOpen until it ends or stops, however long', async () => {
      const server = await lines(true)
      const socket = await client(server)
      const got = readAll(socket)
      socket.end('at-end nothing\n')
      await server.told('ended')
      await sleep(500)
      expect(await server.total()).toMatchObject({ connections: 1 })
      await server.ask('stop', 0)
      await within('its end', got)
      expect(await server.told('closed')).toMatchObject([{ code: 'server-stopped' }])
    })

    for (const way of ['throw', 'reject']) {
      for (const allowHalfOpen of [false, true]) {
        it(`closes when onEnd fails: ${way}, allowHalfOpen ${allowHalfOpen}`, async () => {
          const server = await lines(allowHalfOpen)
          expect(await say(server, `x\nat-end ${way}\n`)).toBe('x\n')
          // Without allowHalfOpen a rejection may come when it is closed already.
          const codes = way === 'throw' || allowHalfOpen ? /^handler-error$/ : /^(handler-error|peer-closed)$/
          expect((await server.told<{ code: string }>('closed'))[0]!.code).toMatch(codes)
          if (!allowHalfOpen) expect(await say(server, 'y\n')).toBe('y\n')
        })
      }
    }

    for (const allowHalfOpen of [false, true]) {
      for (const command of ['end good bye', 'shut']) {
        it(`goes on reading after its own end: ${command}, allowHalfOpen ${allowHalfOpen}`, async () => {
          const server = await lines(allowHalfOpen)
          const socket = await client(server)
          socket.write(`${command}\n`)
          expect(await within('its end', readText(socket))).toBe(command === 'shut' ? '' : 'good\n')
          const line = `count ${'.'.repeat(1000)}\n`
          socket.end(line.repeat(1000))
          expect(await server.told('closed')).toMatchObject([
            { lines: 1001, bytes: command.length + (line.length - 1) * 1000 },
          ])
          if (command === 'shut') return
          expect(server.events('send')).toEqual([{ name: 'behind', returned: false }])
          await server.told('sent', 2)
          expect(server.events('sent')).toHaveLength(2)
          expect(server.events('sent')).toContainEqual({ name: 'end', failed: false })
          expect(server.events('sent')).toContainEqual({ name: 'behind', failed: true })
        })
      }
    }
  })
})
