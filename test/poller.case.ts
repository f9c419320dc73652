/**
 * What every poller must do: one suite, called with each of them, without TLS and with it. It uses the interface alone; the
 * peers are sockets of `node:net` or `node:tls`, in this process.
 */
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, renameSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { mkdtemp, realpath, rm } from 'node:fs/promises'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import tls from 'node:tls'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import {
  COUNTED,
  type Endpoint,
  type ListenOptions,
  OUT_STRIDE,
  type Poller,
  type PollerConnectOptions,
  type PollerOptions,
  type PollerSink,
} from '../src/loop/poller/poller.js'
import { errno } from '../src/system-error.js'
import type { Credentials } from './support/certificates.js'
import { openSockets } from './support/descriptors.js'
import { connectRaw, RawClient, type Where } from './support/raw-client.js'
import { Recorder } from './support/recorder.js'
import { connectTls, startTls } from './support/tls-client.js'
import { rounds, until } from './support/wait.js'
import { frame, unmasked } from './support/websocket.js'

const LISTEN: ListenOptions = { noDelay: true, keepAlive: 0, backlog: 128, reusePort: false, park: false }
const NOBODY = 65_534
const MAX_PATH = process.platform === 'linux' ? 107 : 103
const LOCAL: Endpoint = { host: '127.0.0.1', port: 0 }

export function testPoller(
  name: string,
  create: (sink: PollerSink, options?: PollerOptions) => Poller,
  credentials?: Credentials,
): void {
  const CONNECT: PollerConnectOptions = {
    noDelay: true,
    keepAlive: 0,
    tls: credentials && { ca: credentials.ca, servername: 'localhost' },
  }
  const dial = (where: Where, options: { readonly paused?: boolean } = {}): Promise<RawClient> =>
    credentials === undefined
      ? connectRaw(where, options)
      : connectTls(where, { ca: credentials.ca, ...options })
  /** Its connect or handshake may fail. */
  const start = (where: Where): RawClient =>
    credentials === undefined
      ? new RawClient(net.connect({ host: '127.0.0.1', ...where, allowHalfOpen: true } as net.NetConnectOpts))
      : startTls(where, { ca: credentials.ca })
  const pollers: Poller[] = []
  const peers: RawClient[] = []
  const closers: (() => Promise<unknown>)[] = []

  afterEach(async () => {
    for (const peer of peers.splice(0)) peer.destroy()
    for (const poller of pollers.splice(0)) poller.destroy()
    for (const close of closers.splice(0)) await close()
  })

  function makePoller(options?: PollerOptions): { poller: Poller; sink: Recorder } {
    const sink = new Recorder()
    const poller = create(sink, { tls: credentials, ...options })
    sink.poller = poller
    pollers.push(poller)
    return { poller, sink }
  }

  async function listening(
    endpoint: Endpoint = LOCAL,
    options?: PollerOptions,
  ): Promise<{ poller: Poller; sink: Recorder; endpoint: Endpoint; listener: number }> {
    const made = makePoller(options)
    const { endpoint: bound, listener } = await made.poller.listen(endpoint, LISTEN)
    return { ...made, endpoint: bound, listener }
  }

  /** A peer that is connected, and the poller's side of it. */
  async function pair(
    paused = false,
  ): Promise<{ poller: Poller; sink: Recorder; peer: RawClient; slot: number }> {
    const { poller, sink, endpoint } = await listening()
    const peer = await dial(endpoint as net.NetConnectOpts as { port: number }, { paused })
    peers.push(peer)
    await until('it is accepted', () => sink.accepted.length === 1)
    return { poller, sink, peer, slot: sink.accepted[0]! }
  }

  /** Writes all of `bytes` by the contract: after a short write, the rest when there is room. */
  async function writeAll(poller: Poller, sink: Recorder, slot: number, bytes: Buffer): Promise<number> {
    let at = 0
    let shorts = 0
    while (at < bytes.length) {
      const before = sink.count(`writable ${slot}`)
      const taken = poller.write(slot, bytes, at, bytes.length)
      expect(taken).toBeGreaterThanOrEqual(0)
      at += taken
      if (at === bytes.length) break
      shorts++
      await until('there is room again', () => sink.count(`writable ${slot}`) > before)
    }
    return shorts
  }

  function createServer(allowHalfOpen: boolean, accept?: (socket: net.Socket) => void): net.Server {
    return credentials === undefined
      ? net.createServer({ allowHalfOpen }, accept)
      : tls.createServer({ ...credentials, allowHalfOpen } as tls.TlsOptions, accept)
  }

  /** A server of node:net or node:tls to connect to. */
  async function netServer(
    options: net.ListenOptions = { host: '127.0.0.1', port: 0 },
  ): Promise<{ endpoint: Endpoint; sockets: RawClient[] }> {
    const sockets: RawClient[] = []
    const server = createServer(true, (socket) => {
      const client = new RawClient(socket)
      sockets.push(client)
      peers.push(client)
    })
    server.listen(options)
    await once(server, 'listening')
    closers.push(async () => new Promise((resolve) => server.close(resolve)))
    const address = server.address()
    if (typeof address === 'string') return { endpoint: { path: address }, sockets }
    return { endpoint: { host: address!.address, port: address!.port }, sockets }
  }

  async function tempFolder(): Promise<string> {
    const folder = await realpath(await mkdtemp(path.join(tmpdir(), 'ringloop-')))
    closers.push(() => rm(folder, { recursive: true }))
    return folder
  }

  describe(`${name}: listening and connecting`, () => {
    it('accepts over IPv4, with both addresses', async () => {
      const { poller, sink, peer, slot } = await pair()
      expect(poller.peerAddr(slot)).toBe(`127.0.0.1:${peer.socket.localPort}`)
      expect(poller.localAddr(slot)).toBe(`127.0.0.1:${peer.socket.remotePort}`)
      peer.write('hello')
      await until('it is read', () => sink.bytes(slot).length === 5)
      expect(String(sink.bytes(slot))).toBe('hello')
    })

    it('accepts over IPv6, with both addresses', async () => {
      const { poller, sink, endpoint } = await listening({ host: '::1', port: 0 })
      const peer = await dial(endpoint as { port: number })
      peers.push(peer)
      await until('it is accepted', () => sink.accepted.length === 1)
      expect(poller.peerAddr(0)).toBe(`[::1]:${peer.socket.localPort}`)
      expect(poller.localAddr(0)).toBe(`[::1]:${peer.socket.remotePort}`)
    })

    it('accepts on ::, and writes an IPv4 peer as IPv4', async () => {
      const { poller, sink, endpoint } = await listening({ host: '::', port: 0 })
      const peer = await dial({ host: '127.0.0.1', port: (endpoint as { port: number }).port })
      peers.push(peer)
      await until('it is accepted', () => sink.accepted.length === 1)
      expect(poller.peerAddr(0)).toBe(`127.0.0.1:${peer.socket.localPort}`)
      expect(poller.localAddr(0)).toMatch(/^127\.0\.0\.1:/)
    })

    it('accepts on a unix socket, without addresses', async () => {
      const file = path.join(await tempFolder(), 'p.sock')
      const { poller, sink } = await listening({ path: file })
      const peer = await dial({ path: file })
      peers.push(peer)
      await until('it is accepted', () => sink.accepted.length === 1)
      peer.write('x')
      await until('it is read', () => sink.bytes(0).length === 1)
      expect(poller.peerAddr(0)).toBe('')
    })

    it('refuses an address in use, and one that is not of this machine', async () => {
      const { endpoint } = await listening()
      const { poller } = makePoller()
      await expect(poller.listen(endpoint, LISTEN)).rejects.toMatchObject({ code: 'EADDRINUSE' })
      await expect(poller.listen({ host: '192.0.2.1', port: 0 }, LISTEN)).rejects.toMatchObject({
        code: 'EADDRNOTAVAIL',
      })
      await expect(poller.listen({ path: '/nowhere/p.sock' }, LISTEN)).rejects.toMatchObject({
        code: expect.stringMatching(/^E/),
      })
    })

    it('listens several times at once, each listener with its own number', async () => {
      const { poller, sink } = makePoller()
      const both = await Promise.all([poller.listen(LOCAL, LISTEN), poller.listen(LOCAL, LISTEN)])
      expect(both[0].listener).not.toBe(both[1].listener)
      for (const { endpoint } of both) peers.push(await dial(endpoint as { port: number }))
      await until('both are accepted', () => sink.accepted.length === 2)
      expect(
        sink.log
          .filter((line) => line.startsWith('accept'))
          .map((line) => Number(line.split(' ')[2]))
          .sort(),
      ).toEqual(both.map((each) => (credentials === undefined ? each.listener : COUNTED)).sort())
    })

    it('accepts no more after closeListener, and what is open goes on', async () => {
      const { poller, sink, endpoint, listener } = await listening()
      const peer = await dial(endpoint as { port: number })
      peers.push(peer)
      await until('it is accepted', () => sink.accepted.length === 1)
      poller.closeListener(listener)
      poller.closeListener(listener)
      await rounds(2)
      await expect(dial(endpoint as { port: number })).rejects.toThrow('ECONNREFUSED')
      peer.write('x')
      await until('it is read', () => sink.bytes(0).length === 1)
    })

    for (const [where, host] of [
      ['IPv4', '127.0.0.1'],
      ['IPv6', '::1'],
    ] as const) {
      it(`connects over ${where}`, async () => {
        const { endpoint, sockets } = await netServer({ host, port: 0 })
        const { poller, sink } = makePoller()
        const slot = poller.connect(endpoint, CONNECT)
        expect(slot).toBeGreaterThanOrEqual(0)
        await until('it is through', () => sink.has(`connect ${slot}`))
        poller.write(slot, Buffer.from('hi'), 0, 2)
        await until('the server has it', () => sockets[0]?.length === 2)
        sockets[0]!.write('back')
        await until('it is read', () => sink.bytes(slot).length === 4)
        const port = (endpoint as { port: number }).port
        expect(poller.peerAddr(slot)).toBe(host === '::1' ? `[::1]:${port}` : `127.0.0.1:${port}`)
        expect(poller.localAddr(slot)).toMatch(/:\d+$/)
      })
    }

    it('connects to a unix socket', async () => {
      const { endpoint, sockets } = await netServer({ path: path.join(await tempFolder(), 'q.sock') })
      const { poller, sink } = makePoller()
      const slot = poller.connect(endpoint, CONNECT)
      await until('it is through', () => sink.has(`connect ${slot}`))
      poller.write(slot, Buffer.from('hi'), 0, 2)
      await until('the server has it', () => sockets[0]?.length === 2)
    })

    it('knows the peer’s address of a connect that takes its time', async () => {
      // A full backlog makes the kernel drop the first SYN: the connect is through about a second later.
      const full = createServer(false)
      full.listen({ host: '127.0.0.1', port: 0, backlog: 1 })
      await once(full, 'listening')
      const parked = await listening()
      void parked
      const { port } = full.address() as net.AddressInfo
      closers.push(async () => new Promise((resolve) => full.close(resolve)))
      const { poller, sink } = makePoller()
      const slot = poller.connect({ host: '127.0.0.1', port }, CONNECT)
      expect(poller.peerAddr(slot)).toBe(`127.0.0.1:${port}`)
      await until('it is through', () => sink.has(`connect ${slot}`))
      poller.close(slot, false)
      const { poller: other } = makePoller()
      const unreachable = other.connect({ host: '192.0.2.1', port: 9 }, CONNECT)
      if (unreachable >= 0) expect(other.peerAddr(unreachable)).toBe('192.0.2.1:9')
    })

    it('reports a refused connect, now or as an error of the slot', async () => {
      const { endpoint, sockets } = await netServer()
      void sockets
      await closers.pop()!()
      const { poller, sink } = makePoller()
      const slot = poller.connect(endpoint, CONNECT)
      if (slot >= 0) {
        await until('it has failed', () => sink.has(`error ${slot}`))
        expect(sink.log).toEqual([`error ${slot} ${errno.ECONNREFUSED}`])
        poller.close(slot, false)
      } else {
        expect(slot).toBe(errno.ECONNREFUSED)
      }
    })
  })

  describe(`${name}: reading and writing`, () => {
    it('reads what many peers send at once, each in its order', async () => {
      const { sink, endpoint } = await listening()
      const list = await Promise.all(Array.from({ length: 30 }, () => dial(endpoint as { port: number })))
      peers.push(...list)
      for (const [i, peer] of list.entries()) {
        for (let k = 0; k < 20; k++) peer.write(Buffer.alloc(5000, i * 20 + k))
      }
      await until(
        'all is read',
        () =>
          [...sink.data.values()].every(
            (chunks) => chunks.reduce((n, chunk) => n + chunk.length, 0) === 100_000,
          ) && sink.accepted.length === 30,
      )
      const seen = new Set<number>()
      for (const slot of sink.accepted) {
        const bytes = sink.bytes(slot)
        const i = Math.floor(bytes[0]! / 20) | 0
        void i
        const expected = Buffer.concat(
          Array.from({ length: 20 }, (_, k) => Buffer.alloc(5000, bytes[0]! + k)),
        )
        expect(bytes.equals(expected)).toBe(true)
        seen.add(slot)
      }
      expect(seen.size).toBe(30)
    })

    it('takes short writes, says when there is room, and loses nothing', async () => {
      const { poller, sink, peer, slot } = await pair(true)
      const bytes = Buffer.alloc(12_000_000)
      for (let i = 0; i < bytes.length; i += 4) bytes.writeUInt32LE(i, i)
      setTimeout(() => peer.socket.resume(), 100)
      const shorts = await writeAll(poller, sink, slot, bytes)
      expect(shorts).toBeGreaterThan(0)
      await peer.bytes(bytes.length)
      expect(peer.received.equals(bytes)).toBe(true)
    })

    it('says writable only after a short write', async () => {
      const { poller, sink, peer, slot } = await pair()
      expect(poller.write(slot, Buffer.from('abc'), 1, 2)).toBe(1)
      await peer.bytes(1)
      await rounds(10)
      expect(peer.text).toBe('b')
      expect(sink.has('writable')).toBe(false)
    })

    it('writes bytes behind those of the out slab, in one piece where the kernel has room', async () => {
      const { poller, peer, slot } = await pair()
      poller.outSlab.write('##head##', 1)
      expect(poller.writeBehind(slot, 3, 4, Buffer.from(' and body'))).toBe(13)
      await peer.bytes(13)
      expect(peer.text).toBe('head and body')
      expect(poller.writeBehind(12345, 0, 1, Buffer.from('x'))).toBe(errno.EBADF)
    })

    it('says of both together how much was taken when that was not all', async () => {
      const { poller, sink, peer, slot } = await pair(true)
      const head = Buffer.alloc(1000, 'h')
      const body = Buffer.alloc(1_000_000, 'b')
      poller.outSlab.set(head)
      const sent: Buffer[] = []
      let taken = head.length + body.length
      while (taken === head.length + body.length) {
        taken = poller.writeBehind(slot, 0, head.length, body)
        expect(taken).toBeGreaterThanOrEqual(0)
        sent.push(head, body)
      }
      const rest = Buffer.concat([head, body]).subarray(taken)
      peer.socket.resume()
      await until('there is room again', () => sink.has(`writable ${slot}`))
      await writeAll(poller, sink, slot, rest)
      const all = Buffer.concat(sent)
      await peer.bytes(all.length)
      expect(peer.received.equals(all)).toBe(true)
    })

    it('takes masks off, if at all, so that the same frames are left, whatever pieces they come in', async () => {
      const anyFrame = fc.record({
        opcode: fc.constantFrom(0, 1, 2, 8, 9, 10),
        payload: fc.oneof(
          { weight: 4, arbitrary: fc.uint8Array({ maxLength: 200 }) },
          {
            weight: 1,
            arbitrary: fc.integer({ min: 0, max: 200_000 }).map((n) => new Uint8Array(n).fill(n)),
          },
        ),
        mask: fc.constantFrom(true, true, true, true, true, false),
      })
      await fc.assert(
        fc.asyncProperty(
          fc.array(anyFrame, { minLength: 1, maxLength: 12 }),
          fc.array(fc.nat(), { maxLength: 8 }),
          async (frames, cuts) => {
            const { poller, sink, peer, slot } = await pair()
            poller.unmask(slot)
            const sent = frames.map(({ opcode, payload, mask }) => frame(opcode, payload, { mask }))
            const bytes = Buffer.concat(sent)
            const ends = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort((a, b) => a - b)
            let from = 0
            for (const to of ends) {
              peer.write(bytes.subarray(from, to))
              from = to
              await until('the piece has been read', () => sink.bytes(slot).length === to)
            }
            expect(unmasked(sink.bytes(slot)).equals(unmasked(bytes))).toBe(true)
            poller.destroy()
          },
        ),
        { numRuns: 40 },
      )
    })

    it('flush writes records of several slots and puts what was taken in their place', async () => {
      const { poller, sink, endpoint } = await listening()
      for (let i = 0; i < 3; i++) peers.push(await dial(endpoint as { port: number }))
      await until('all are accepted', () => sink.accepted.length === 3)
      poller.outSlab.write('onetwothree')
      const records = [sink.accepted[0]!, 0, 3, sink.accepted[1]!, 3, 3, 12345, 0, 3, sink.accepted[2]!, 6, 5]
      records.forEach((value, i) => {
        poller.outRecords[i] = value
      })
      expect(poller.flush(4)).toBe(1)
      expect([2, 5, 8, 11].map((i) => poller.outRecords[i])).toEqual([3, 3, errno.EBADF, 5])
      await until('all have theirs', () => peers.every((peer) => peer.length >= 3))
      expect(peers.map((peer) => peer.text).sort()).toEqual(['one', 'three', 'two'])
      expect(OUT_STRIDE).toBe(3)
    })

    it('reads nothing while reading is off, and all of it afterwards', async () => {
      const { poller, sink, peer, slot } = await pair()
      poller.setReading(slot, false)
      peer.write(Buffer.alloc(200_000, 'x'))
      await new Promise((resolve) => setTimeout(resolve, 50))
      const { batches } = sink
      await new Promise((resolve) => setTimeout(resolve, 100))
      expect(sink.bytes(slot).length).toBe(0)
      expect(sink.batches - batches).toBeLessThan(3)
      poller.setReading(slot, true)
      await until('all is read', () => sink.bytes(slot).length === 200_000)
    })

    it('reading can be turned off from within a read, in the middle of a batch', async () => {
      const { poller, sink, peer, slot } = await pair()
      sink.onRead = () => poller.setReading(slot, false)
      for (let i = 0; i < 50; i++) peer.write(Buffer.alloc(64 * 1024))
      await until('something is read', () => sink.bytes(slot).length > 0)
      const { length } = sink.bytes(slot)
      await new Promise((resolve) => setTimeout(resolve, 50))
      expect(sink.bytes(slot).length).toBe(length)
      sink.onRead = () => {}
      poller.setReading(slot, true)
      await until('the rest is read', () => sink.bytes(slot).length === 50 * 64 * 1024)
    })
  })

  describe(`${name}: the ends`, () => {
    it('reports the peer’s end once, after its bytes; writing goes on', async () => {
      const { poller, sink, peer, slot } = await pair()
      peer.socket.end('last')
      await until('the end is seen', () => sink.has(`end ${slot}`))
      await rounds(10)
      expect(String(sink.bytes(slot))).toBe('last')
      expect(sink.count('end')).toBe(1)
      expect(sink.log.at(-1)).toBe(`end ${slot}`)
      expect(poller.write(slot, Buffer.from('answer'), 0, 6)).toBe(6)
      await peer.bytes(6)
    })

    it('shutdownWrite ends our side after what was taken; reading goes on', async () => {
      const { poller, sink, peer, slot } = await pair()
      const bytes = Buffer.alloc(3_000_000, 'q')
      await writeAll(poller, sink, slot, bytes)
      expect(poller.shutdownWrite(slot)).toBe(0)
      await until('the peer sees the end', () => peer.ended)
      expect(peer.length).toBe(bytes.length)
      expect(poller.write(slot, bytes, 0, 10)).toBeLessThan(0)
      peer.write('still')
      await until('it is read', () => String(sink.bytes(slot)) === 'still')
      peer.socket.end()
      await until('the end is seen', () => sink.has(`end ${slot}`))
    })

    it('close with linger delivers everything to a peer that is still sending', async () => {
      const { poller, sink, peer, slot } = await pair()
      const bytes = Buffer.alloc(1_500_000, 'w')
      let sending = true
      const chatter = setInterval(() => sending && peer.write(Buffer.alloc(20_000)), 2)
      try {
        await until('it is chatting', () => sink.bytes(slot).length > 50_000)
        poller.setReading(slot, false)
        peer.socket.pause()
        await new Promise((resolve) => setTimeout(resolve, 30))
        poller.write(slot, bytes, 0, 200_000)
        poller.close(slot, true)
        await new Promise((resolve) => setTimeout(resolve, 100))
        peer.socket.resume()
        await until('the peer sees the end', () => peer.ended || peer.closed)
      } finally {
        sending = false
        clearInterval(chatter)
      }
      expect(peer.error).toBeUndefined()
      expect(peer.length).toBe(200_000)
      const { log } = sink
      const events = log.length
      peer.socket.end()
      await until('the peer is closed', () => peer.closed)
      expect(log.length).toBe(events)
    })

    it('reset breaks off what the peer has got so far', async () => {
      const { poller, sink, peer, slot } = await pair()
      expect(poller.write(slot, Buffer.from('half'), 0, 4)).toBe(4)
      await peer.bytes(4)
      poller.reset(slot)
      poller.reset(slot)
      await until('the peer is closed', () => peer.closed)
      expect([String(peer.received), peer.ended, peer.error?.code]).toEqual(['half', false, 'ECONNRESET'])
      expect(sink.log.at(-1)).toMatch(new RegExp(`^accept ${slot} `))
      expect(poller.write(slot, Buffer.from('x'), 0, 1)).toBeLessThan(0)
    })

    it('reset of a side that has ended already is its close', async () => {
      const { poller, peer, slot } = await pair()
      poller.shutdownWrite(slot)
      poller.reset(slot)
      await until('the peer sees the end', () => peer.ended || peer.closed)
    })

    it('reset ends a unix socket', async () => {
      const folder = await tempFolder()
      const { poller, sink, endpoint } = await listening({ path: path.join(folder, 'socket') })
      const peer = await dial(endpoint as { path: string })
      peers.push(peer)
      await until('it is accepted', () => sink.accepted.length === 1)
      poller.reset(sink.accepted[0]!)
      await until('the peer sees the end', () => peer.ended || peer.closed)
    })

    it('close without linger and with unread bytes is over at once', async () => {
      const { poller, peer, slot } = await pair()
      poller.setReading(slot, false)
      peer.write(Buffer.alloc(100_000))
      await new Promise((resolve) => setTimeout(resolve, 30))
      poller.close(slot, false)
      await until('the peer sees the end', () => peer.ended || peer.closed)
    })

    it('reports a reset as an error, once', async () => {
      const { sink, peer, slot } = await pair()
      peer.reset()
      await until('the error is seen', () => sink.has('error'))
      await rounds(10)
      expect(sink.log.filter((line) => /error|end|hangup/.test(line))).toEqual([
        `error ${slot} ${errno.ECONNRESET}`,
      ])
    })

    it('a reset while reading is off is reported at most twice and does not spin; later reading finds it', async () => {
      const { poller, sink, peer, slot } = await pair()
      poller.setReading(slot, false)
      await rounds(2)
      peer.reset()
      await new Promise((resolve) => setTimeout(resolve, 100))
      const { batches } = sink
      await new Promise((resolve) => setTimeout(resolve, 150))
      expect(sink.batches - batches).toBeLessThan(2)
      expect(sink.count('hangup') + sink.count('error')).toBeLessThanOrEqual(2)
      poller.setReading(slot, true)
      await until('the error is seen', () => sink.has('error'))
    })

    it('bytes that came before a reset’s hangup can still be had, or the error comes', async () => {
      const { poller, sink, peer, slot } = await pair()
      poller.setReading(slot, false)
      peer.write('before')
      await new Promise((resolve) => setTimeout(resolve, 30))
      peer.socket.end()
      await new Promise((resolve) => setTimeout(resolve, 30))
      poller.setReading(slot, true)
      await until('the end is seen', () => sink.has('end') || sink.has('error'))
      expect(String(sink.bytes(slot))).toBe('before')
    })

    it('a write to a peer that is gone gives an error in the end and never throws', async () => {
      const { poller, sink, peer, slot } = await pair()
      peer.reset()
      await until('it is gone', () => peer.closed)
      let last = 0
      for (let i = 0; i < 200 && last >= 0; i++) {
        last = poller.write(slot, Buffer.alloc(1000), 0, 1000)
        await rounds(1)
      }
      expect(last < 0 || sink.has('error')).toBe(true)
    })

    it('closing inside handleAccept and handleRead is safe, also when the slot is used again', async () => {
      const { poller, sink, endpoint } = await listening()
      let closed = 0
      sink.onAccept = (slot) => {
        if (slot % 2 === 0 && closed < 10) {
          closed++
          poller.close(slot, false)
        }
      }
      sink.onRead = (slot) => poller.close(slot, true)
      const list = await Promise.all(Array.from({ length: 30 }, () => dial(endpoint as { port: number })))
      peers.push(...list)
      for (const peer of list) peer.socket.write('x')
      await until('all have ended', () => list.every((peer) => peer.ended || peer.closed))
      expect(sink.accepted).toHaveLength(30)
    })

    it('destroy inside a batch closes everything, and nothing more is reported', async () => {
      const { poller, sink, endpoint } = await listening()
      const list = await Promise.all(Array.from({ length: 10 }, () => dial(endpoint as { port: number })))
      peers.push(...list)
      await until('all are accepted', () => sink.accepted.length === 10)
      let after = 0
      sink.onRead = () => {
        if (after++ === 0) poller.destroy()
      }
      for (const peer of list) peer.socket.write('x')
      await until('all have ended', () => list.every((peer) => peer.ended || peer.closed))
      await rounds(5)
      const events = sink.log.length
      await rounds(5)
      expect(sink.log.length).toBe(events)
    })

    it('after destroy every method does nothing', async () => {
      const before = openSockets()
      const { poller, sink, peer, slot } = await pair()
      const { endpoint } = await netServer()
      poller.destroy()
      poller.destroy()
      const events = sink.log.length
      expect(poller.write(slot, Buffer.from('x'), 0, 1)).toBeLessThan(0)
      expect(poller.shutdownWrite(slot)).toBeLessThan(0)
      expect(poller.connect(endpoint, CONNECT)).toBeLessThan(0)
      await expect(poller.listen(LOCAL, LISTEN)).rejects.toBeInstanceOf(Error)
      poller.setReading(slot, true)
      poller.close(slot, true)
      poller.adopt(slot)
      poller.setAccepting(0, true)
      poller.closeListener(0)
      poller.setRef(true)
      poller.setRef(false)
      expect(poller.peerAddr(slot)).toBe('')
      expect(poller.localAddr(slot)).toBe('')
      expect(poller.expireLingering()).toBe(false)
      expect(poller.flush(0)).toBe(0)
      await rounds(5)
      expect(sink.log.length).toBe(events)
      peer.destroy()
      for (const close of closers.splice(0)) await close()
      await until('no socket is left', () => openSockets() <= before)
    })
  })

  describe(`${name}: the file of a unix socket`, () => {
    it('is where its relative path pointed to when listening began', async () => {
      const [before, after] = [await tempFolder(), await tempFolder()]
      const home = process.cwd()
      try {
        process.chdir(before)
        const { poller, endpoint, listener } = await listening({ path: 'r.sock' })
        expect(endpoint).toEqual({ path: path.join(before, 'r.sock') })
        process.chdir(after)
        writeFileSync('r.sock', 'nobody’s socket')
        expect(existsSync(path.join(before, 'r.sock'))).toBe(true)
        poller.closeListener(listener)
        expect(existsSync(path.join(before, 'r.sock'))).toBe(false)
        expect(existsSync(path.join(after, 'r.sock'))).toBe(true)
      } finally {
        process.chdir(home)
      }
    })

    for (const way of ['closeListener', 'destroy'] as const) {
      it(`${way} leaves what a successor has put in its place`, async () => {
        const file = path.join(await tempFolder(), 's.sock')
        const { poller, sink, listener } = await listening({ path: file })
        unlinkSync(file)
        const successor = await listening({ path: file })
        const { ino } = statSync(file)
        if (way === 'destroy') poller.destroy()
        else poller.closeListener(listener)
        await rounds(2)
        expect(statSync(file).ino).toBe(ino)
        peers.push(await dial({ path: file }))
        await until('the successor accepts', () => successor.sink.accepted.length === 1)
        expect(sink.filesLeft).toEqual([])
        successor.poller.destroy()
        await until('the successor’s is removed', () => !existsSync(file))
      })

      it(`${way} goes on where it cannot be removed, and says so once`, async () => {
        const folder = await tempFolder()
        const file = path.join(folder, 'u.sock')
        const { poller, sink, listener } = await listening({ path: file })
        chmodSync(folder, 0o555)
        asUnprivileged(() => {
          if (way === 'destroy') poller.destroy()
          else poller.closeListener(listener)
        })
        poller.destroy()
        chmodSync(folder, 0o755)
        await expect(dial({ path: file })).rejects.toThrow('ECONNREFUSED')
        expect(sink.filesLeft.map(({ code }) => code)).toEqual([expect.stringMatching(/^(EACCES|EPERM)$/)])
        expect(sink.filesLeft[0]!.message).toContain(file)
      })
    }

    it('that was removed or moved away by others is nobody’s concern', async () => {
      const folder = await tempFolder()
      const [removed, moved] = ['a.sock', 'b.sock'].map((each) => path.join(folder, each)) as [string, string]
      const { poller, sink } = await listening({ path: removed })
      await poller.listen({ path: moved }, LISTEN)
      unlinkSync(removed)
      renameSync(moved, `${moved}.old`)
      mkdirSync(moved)
      poller.destroy()
      await rounds(2)
      expect(sink.filesLeft).toEqual([])
      expect(existsSync(`${moved}.old`)).toBe(true)
      expect(existsSync(moved)).toBe(true)
    })

    it('is in use while another server’s file is there', async () => {
      const file = path.join(await tempFolder(), 't.sock')
      await listening({ path: file })
      const { poller } = makePoller()
      await expect(poller.listen({ path: file }, LISTEN)).rejects.toMatchObject({ code: 'EADDRINUSE' })
      poller.destroy()
      peers.push(await dial({ path: file }))
    })

    it('cannot have a path that does not fit, or none, or with a NUL', async () => {
      const folder = await tempFolder()
      const { poller } = makePoller()
      const fits = path.join(folder, 'x'.repeat(MAX_PATH - folder.length - 1))
      await poller.listen({ path: fits }, LISTEN)
      peers.push(await dial({ path: fits }))
      for (const wrong of [`${fits}x`, '', `${folder}/a\0b`, '\0abstract']) {
        await expect(poller.listen({ path: wrong }, LISTEN)).rejects.toThrow(/the path of a unix socket/)
        expect(poller.connect({ path: wrong }, CONNECT)).toBe(errno.EINVAL)
      }
    })
  })

  describe(`${name}: lingering`, () => {
    it('is for as many as it is told, and the oldest go first', async () => {
      const { poller, sink, endpoint } = await listening(LOCAL, { maxLingering: 3 })
      for (let i = 0; i < 12; i++) peers.push(await dial(endpoint as { port: number }))
      await until('all are accepted', () => sink.accepted.length === 12)
      const before = openSockets()
      for (const slot of sink.accepted) poller.close(slot, true)
      await until('all but three are closed', () => openSockets() === before - 9)
      expect(poller.expireLingering()).toBe(true)
      // One that lingers takes what its peer still sends, one that is closed answers with a reset.
      await until('the oldest are reset', () => {
        for (const peer of peers) if (!peer.closed) peer.write('x')
        return peers.slice(0, 9).every((peer) => peer.closed)
      })
      expect(peers.slice(9).some((peer) => peer.closed)).toBe(false)
    })

    it('can be for none', async () => {
      const { poller, sink, endpoint } = await listening(LOCAL, { maxLingering: 0 })
      peers.push(await dial(endpoint as { port: number }))
      await until('it is accepted', () => sink.accepted.length === 1)
      poller.close(sink.accepted[0]!, true)
      expect(poller.expireLingering()).toBe(false)
      await peers[0]!.whenEnded()
    })
  })

  describe(`${name}: calls in any order`, () => {
    const slotOf = fc.oneof(
      fc.integer({ min: -2, max: 12 }),
      fc.constantFrom(2 ** 31 - 1, -(2 ** 31), 1 << 20),
    )
    const call = fc.tuple(
      fc.constantFrom(
        'write',
        'read on',
        'read off',
        'shutdown',
        'close',
        'linger',
        'adopt',
        'flush',
        'connect',
        'peer',
        'end',
        'reset',
        'new peer',
        'accept off',
        'accept on',
        'addr',
        'expire',
        'wait',
      ),
      slotOf,
    )

    it('never crash, never report outside of batches, and leak no descriptor', async () => {
      const before = openSockets()
      const run = async (calls: [string, number][]): Promise<void> => {
        const { poller, sink, endpoint, listener } = await listening()
        const list: RawClient[] = []
        const port = (endpoint as { port: number }).port
        const pick = (n: number): RawClient | undefined => list[Math.abs(n) % Math.max(1, list.length)]
        for (const [what, slot] of calls) {
          switch (what) {
            case 'write':
              poller.write(slot, Buffer.alloc(3000), 10, 2000)
              break
            case 'read on':
              poller.setReading(slot, true)
              break
            case 'read off':
              poller.setReading(slot, false)
              break
            case 'shutdown':
              poller.shutdownWrite(slot)
              break
            case 'close':
              poller.close(slot, false)
              break
            case 'linger':
              poller.close(slot, true)
              break
            case 'adopt':
              poller.adopt(slot)
              break
            case 'flush':
              poller.outRecords.set([slot, 0, 10, slot + 1, 5, 5])
              poller.flush(2)
              break
            case 'connect':
              poller.connect(endpoint, CONNECT)
              break
            case 'peer':
              pick(slot)?.socket.write('hello')
              break
            case 'end':
              pick(slot)?.socket.end()
              break
            case 'reset':
              pick(slot)?.reset()
              break
            case 'new peer': {
              list.push(start({ port }))
              break
            }
            case 'accept off':
              poller.setAccepting(slot % 2 === 0 ? listener : slot, false)
              break
            case 'accept on':
              poller.setAccepting(listener, true)
              break
            case 'addr':
              poller.peerAddr(slot)
              poller.localAddr(slot)
              break
            case 'expire':
              poller.expireLingering()
              break
            default:
              await rounds(2)
          }
        }
        await rounds(1)
        expect(sink.inBatch).toBe(false)
        poller.destroy()
        pollers.splice(0)
        for (const peer of list) peer.destroy()
        await rounds(2)
      }
      await fc.assert(fc.asyncProperty(fc.array(call, { minLength: 5, maxLength: 60 }), run), {
        numRuns: 120,
      })
      await until('no socket is left', () => openSockets() <= before)
    })
  })
}

/** Root may remove every file: for the moment of `act` this process is nobody, if it can be. */
function asUnprivileged(act: () => void): void {
  const isRoot = process.geteuid?.() === 0
  if (isRoot) process.seteuid?.(NOBODY)
  try {
    act()
  } finally {
    if (isRoot) process.seteuid?.(0)
  }
}
