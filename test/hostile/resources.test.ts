/**
 * Descriptors and memory of a server under peers that take all they can get: `maxConnections` bounds sockets, a limit
 * of bytes bounds memory, and what one handler does to its own memory is its own affair.
 */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import tls from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type HostedServer, SHAPES } from '../support/hosted-server.js'
import { hostedScene } from '../support/scene.js'
import { until, within } from '../support/wait.js'

const MIB = 1024 * 1024
const CURVE = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '36500']

const { serve, client } = hostedScene()
const sockets: net.Socket[] = []
let folder = ''
let certificate: { readonly key: string; readonly cert: string }

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'ringloop-'))
  const [key, cert] = [path.join(folder, 'key.pem'), path.join(folder, 'cert.pem')]
  const files = ['-keyout', key, '-out', cert, '-subj', '/CN=localhost']
  execFileSync('openssl', ['req', '-x509', ...CURVE, ...files], { stdio: 'pipe' })
  certificate = { key: await readFile(key, 'utf8'), cert: await readFile(cert, 'utf8') }
})

afterAll(() => rm(folder, { recursive: true }))

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy()
})

/** A socket that never ends by itself. */
async function open(where: net.NetConnectOpts): Promise<net.Socket> {
  const socket = net.connect({ ...where, allowHalfOpen: true })
  sockets.push(socket)
  socket.on('error', () => {})
  // A reset is a close too, which \`once\` tells as an error.
  await Promise.race([once(socket, 'connect'), once(socket, 'close')]).catch(() => {})
  return socket
}

async function answered(server: HostedServer): Promise<boolean> {
  const one = await client(server)
  const answer = await one.echo('hello\n').catch(() => Buffer.alloc(0))
  one.destroy()
  return answer.toString() === 'hello\n'
}

describe.skipIf(process.platform !== 'linux')('open sockets are bounded', () => {
  for (const { name, loops } of SHAPES.filter((shape) => shape.poller === 'net')) {
    it(`${name}: 300 silent TLS handshakes with a limit of 5`, async () => {
      const options = { tls: certificate, maxConnections: 5, handshakeTimeout: 1000 }
      const server = await serve('busy.mjs', { poller: 'net', loops, options })
      const before = server.sockets()
      await Promise.all(
        Array.from({ length: 300 }, () =>
          open({ host: '127.0.0.1', port: server.port }).then((s) => s.resume()),
        ),
      )
      let most = 0
      await until('the silent ones are gone', () => {
        const now = server.sockets() - before
        most = Math.max(most, now)
        return most > 0 && now === 0
      })
      expect(most).toBeLessThan(100)
      const one = tls.connect({ host: '127.0.0.1', port: server.port, rejectUnauthorized: false })
      sockets.push(one)
      one.write('hello\n')
      const [answer] = await within('an answer', once(one, 'data'))
      expect(String(answer)).toBe('hello\n')
    })
  }

  for (const shape of SHAPES) {
    it(`${shape.name}: 1,500 clients that are closed and linger, with a limit of 10`, async () => {
      const server = await serve('busy.mjs', { ...shape, options: { maxConnections: 10 } })
      const before = server.sockets()
      let most = 0
      for (let i = 0; i < 150; i++) {
        const all = await Promise.all(
          Array.from({ length: 10 }, () => open({ host: '127.0.0.1', port: server.port })),
        )
        await Promise.all(
          all.map(async (socket) => {
            socket.write('bye\n')
            socket.resume()
            if (!socket.readableEnded && !socket.destroyed) {
              await Promise.race([once(socket, 'end'), once(socket, 'close')]).catch(() => {})
            }
          }),
        )
        most = Math.max(most, server.sockets() - before)
      }
      expect(most).toBeLessThan(500)
      await until('another client is served', () => answered(server))
      for (const socket of sockets) socket.destroy()
      await until('nothing is open', () => server.sockets() <= before)
    })

    it(`${shape.name}: 3,000 clients that asked something slow and left leave nothing behind`, async () => {
      const server = await serve('busy.mjs', shape)
      const [before, memory] = [server.sockets(), server.memory()]
      let answers = 0
      for (let i = 0; i < 30; i++) {
        await Promise.all(
          Array.from({ length: 100 }, async () => {
            const socket = await open({ host: '127.0.0.1', port: server.port })
            socket.on('data', () => answers++)
            socket.end('slow 500\n')
          }),
        )
      }
      await until('all were answered and closed', async () => {
        const { connections, accepted } = await server.total()
        return accepted === 3000 && connections === 0 && answers === 3000
      })
      await until('nothing is open', () => server.sockets() <= before)
      expect(server.memory() - memory).toBeLessThan(128 * MIB)
      expect(new Set(server.events('closed').map((each) => each.code))).toEqual(new Set(['peer-closed']))
    })
  }
})

describe.each(SHAPES)('$name', (shape) => {
  it('a packet whose memory a handler transfers away is nobody else’s', async () => {
    const server = await serve('busy.mjs', shape)
    const all = await Promise.all(Array.from({ length: 50 }, () => client(server)))
    const thief = await client(server)
    for (let i = 0; i < 20; i++) {
      const parts = all.map((each, n) => [each, `unfinished ${n} `] as const)
      for (const [each, part] of parts) each.write(part)
      const from = thief.length
      thief.write('transfer\n')
      await until('it has tried', () => thief.length > from || thief.ended || thief.closed)
      const lines = parts.map(async ([each, part]) => {
        const at = each.length
        each.write('line\n')
        return (await each.bytes(at + part.length + 5)).subarray(at).toString() === `${part}line\n`
      })
      expect(new Set(await within('the others’ answers', Promise.all(lines)))).toEqual(new Set([true]))
    }
    expect(server.child.exited, server.child.stderr).toBe(false)
    expect((await server.total()).restarts).toBe(0)
  })

  for (const logger of ['info', 'debug']) {
    it.skipIf(process.platform !== 'linux')(
      `a log that cannot be written ends nothing: ${logger}`,
      async () => {
        const server = await serve('throwing.mjs', { ...shape, options: { logger }, stderr: '/dev/full' })
        const one = await client(server)
        for (let i = 0; i < 20; i++) {
          const bad = await client(server)
          bad.write(i % 2 === 0 ? 'message Error\n' : 'unPacket Error\n')
          await within('its end', bad.whenEnded())
          expect(String(await within('another’s answer', one.echo('hello\n')))).toBe('hello\n')
        }
        expect(await server.told('closed', 20)).toHaveLength(20)
        await server.stop()
        expect(server.child.code).toBe(0)
      },
    )
  }

  it('a broadcast to 2,000 of whom half do not read is bounded', { timeout: 120_000 }, async () => {
    const READERS = 1000
    const own = path.join(folder, `broadcast-${shape.poller}-${shape.loops}`)
    const options = { address: { path: own }, highWaterMark: 64 * 1024, closeTimeout: 500 }
    const server = await serve('busy.mjs', { ...shape, options })
    let read = 0
    for (let i = 0; i < 2 * READERS; i += 100) {
      const all = await Promise.all(Array.from({ length: 100 }, () => open({ path: own })))
      for (const socket of all) {
        if (i < READERS) {
          socket.on('data', (data: Buffer) => {
            read += data.length
          })
        } else socket.pause()
      }
      // The backlog of a unix socket is short, and a connection is counted before its loop has it.
      await until('they are in', async () => (await server.total()).accepted === i + 100)
    }
    const memory = server.memory()
    let dropped = 0
    for (let i = 0; i < 40; i++) {
      const result = await server.ask<{ sent: number; dropped: number }>('broadcast', { bytes: 16 * 1024 })
      expect(result.sent + result.dropped).toBe(2 * READERS)
      dropped += result.dropped
    }
    expect(dropped).toBeGreaterThan(READERS)
    expect(server.memory() - memory).toBeLessThan(400 * MIB)
    let last = -1
    await until('the readers have read', async () => {
      const stands = read === last
      last = read
      await sleep(200)
      return stands
    })
    const result = await server.ask('broadcast', { bytes: 16 * 1024, slow: 'close' })
    expect(result).toMatchObject({ sent: READERS, closed: READERS })
    await server.told('closed', READERS)
    expect(new Set(server.events('closed').map((each) => each.code))).toEqual(new Set(['slow-consumer']))
    expect((await server.total()).connections).toBe(READERS)
  })
})
