import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import tls from 'node:tls'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { AcceptOnlySink } from '../src/loop/poller/accept-only-sink.js'
import { loadNativeAddon, type NativeAddon } from '../src/loop/poller/native-addon.js'
import { NativePoller } from '../src/loop/poller/native-poller.js'
import { errno } from '../src/system-error.js'
import { testPoller } from './poller.case.js'
import { Authority } from './support/certificates.js'
import { connectRaw, RawClient } from './support/raw-client.js'
import { Recorder } from './support/recorder.js'
import { until } from './support/wait.js'

const authority = new Authority()
afterAll(() => authority.remove())

testPoller('native', (sink, options) => new NativePoller(sink, options))

class Accepts extends AcceptOnlySink {
  readonly slots: number[] = []
  lost = 0
  handleAccept(slot: number): void {
    this.slots.push(slot)
  }
  handleAcceptError(): void {}
  handleFileLeft(): void {}
  handleLost(): void {
    this.lost++
  }
}

/** Sockets that are served. */
class Many extends Accepts {
  override handleRead(): void {}
  override handleEnd(): void {}
  override handleError(): void {}
  override handleWritable(): void {}
}

const LISTEN = { noDelay: true, keepAlive: 0, backlog: 128, reusePort: false }

interface Accepted {
  readonly poller: NativePoller
  readonly slot: number
  readonly client: RawClient
}

/** A poller and the one connection that it has accepted. */
async function accepted(park: boolean): Promise<Accepted> {
  const sink = new Accepts()
  const poller = new NativePoller(sink)
  const { endpoint } = await poller.listen({ host: '127.0.0.1', port: 0 }, { ...LISTEN, park })
  const client = await connectRaw(endpoint as { port: number })
  await until('it is accepted', () => sink.slots.length === 1)
  return { poller, slot: sink.slots[0]!, client }
}

describe('native: hand-off between pollers', () => {
  it('gives a parked socket to another poller, with its peer’s address, and can do it once', async () => {
    const from = await accepted(true)
    const to = new Accepts()
    const target = new NativePoller(to)
    target.parkMailbox()
    const peer = from.poller.peerAddr(from.slot)
    expect(from.poller.handOff(from.slot, target.mailbox)).toBe(0)
    expect(from.poller.handOff(from.slot, target.mailbox)).toBeLessThan(0)
    await until('it has arrived', () => to.slots.length === 1)
    expect(target.peerAddr(to.slots[0]!)).toBe(peer)
    expect(peer).toBe(`127.0.0.1:${from.client.socket.localPort}`)
    target.destroy()
    await from.client.whenEnded()
    from.poller.destroy()
    from.client.destroy()
  })

  it('keeps the socket when there is no such mailbox, or it is gone', async () => {
    const from = await accepted(true)
    const gone = new NativePoller(new Accepts())
    gone.destroy()
    for (const mailbox of [-1, 0, 1 << 30, gone.mailbox]) {
      expect(from.poller.handOff(from.slot, mailbox)).toBeLessThan(0)
    }
    expect(from.poller.peerAddr(from.slot)).not.toBe('')
    from.poller.destroy()
    await from.client.whenEnded()
    from.client.destroy()
  })

  it('closes what waits in a mailbox when its poller is destroyed', async () => {
    const from = await accepted(true)
    const target = new NativePoller(new Accepts())
    expect(from.poller.handOff(from.slot, target.mailbox)).toBe(0)
    target.destroy()
    await from.client.whenEnded()
    from.poller.destroy()
    from.client.destroy()
  })
})

describe.each([
  ['with an io_uring, where there is one', '1'],
  ['without', '0'],
])('native: a flush of many, %s', (_what, wish) => {
  const COUNT = 600

  it('sends each its own, and says of each what was taken', { timeout: 30_000 }, async () => {
    vi.stubEnv('RINGLOOP_IO_URING', wish)
    const sink = new Many()
    const poller = new NativePoller(sink)
    const clients: RawClient[] = []
    try {
      const { endpoint } = await poller.listen({ host: '127.0.0.1', port: 0 }, { ...LISTEN, park: false })
      while (clients.length < COUNT) clients.push(await connectRaw(endpoint as { port: number }))
      await until('all are accepted', () => sink.slots.length === COUNT)
      const full = sink.slots[100]!
      clients[100]!.socket.pause()
      while (poller.write(full, poller.outSlab, 0, poller.outSlab.length) > 0);
      poller.shutdownWrite(sink.slots[200]!)
      poller.outSlab.write(Array.from({ length: COUNT }, (_, i) => String(i).padStart(4, '0')).join(''))
      const wanted = sink.slots.map((slot, i) => [slot, i * 4, 4])
      wanted[0] = [123_456, 0, 4]
      wanted[300] = [sink.slots[300]!, -1, 4]
      wanted[301] = [sink.slots[301]!, 300_000, 4]
      poller.outRecords.set(wanted.flat())
      const expected: number[] = Array(COUNT).fill(4)
      expected[0] = errno.EBADF
      expected[100] = 0
      expected[200] = errno.EPIPE
      for (const i of [300, 301]) expected[i] = -14
      expect(poller.flush(COUNT)).toBe(5)
      expect(wanted.map((_, i) => poller.outRecords[i * 3 + 2])).toEqual(expected)
      const whole = clients.filter((_, i) => expected[i] === 4)
      await until('all have theirs', () => whole.every(({ length }) => length === 4))
      expect(whole.map(({ text }) => Number(text)).sort((a, b) => a - b)).toEqual(
        expected.flatMap((taken, i) => (taken === 4 ? [i] : [])),
      )
      clients[100]!.socket.resume()
      await until('the full one has room', () => poller.write(full, poller.outSlab, 0, 1) === 1)
    } finally {
      vi.unstubAllEnvs()
      poller.destroy()
      for (const one of clients) one.destroy()
    }
  })

  it('encrypts what is for those that speak TLS', { timeout: 30_000 }, async () => {
    vi.stubEnv('RINGLOOP_IO_URING', wish)
    const EACH = 100
    const credentials = authority.issue()
    const sink = new Recorder()
    const poller = new NativePoller(sink)
    sink.poller = poller
    const clients: RawClient[] = []
    const server = tls.createServer(credentials, (socket) => clients.push(new RawClient(socket)))
    try {
      server.listen(0, '127.0.0.1')
      await once(server, 'listening')
      const { port } = server.address() as AddressInfo
      const options = { noDelay: true, keepAlive: 0, tls: { ca: credentials.ca, servername: 'localhost' } }
      const secure = Array.from({ length: EACH }, () => poller.connect({ host: '127.0.0.1', port }, options))
      await until('all are secure', () => secure.every((slot) => sink.has(`connect ${slot}`)))
      const { endpoint } = await poller.listen({ host: '127.0.0.1', port: 0 }, { ...LISTEN, park: false })
      for (let i = 0; i < EACH; i++) clients.push(await connectRaw(endpoint as { port: number }))
      await until('all are accepted', () => sink.accepted.length === EACH)
      const [first, ...others] = secure
      const mixed = others.flatMap((slot, i) => [sink.accepted[i]!, slot])
      const slots = [...mixed, first!, sink.accepted[EACH - 1]!]
      poller.outSlab.write(slots.map((_, i) => String(i).padStart(4, '0')).join(''))
      poller.outRecords.set(slots.flatMap((slot, i) => [slot, i * 4, 4]))
      expect(poller.flush(slots.length)).toBe(0)
      expect(slots.map((_, i) => poller.outRecords[i * 3 + 2])).toEqual(slots.map(() => 4))
      await until('all have theirs', () => clients.every(({ length }) => length === 4))
      expect(clients.map(({ text }) => Number(text)).sort((a, b) => a - b)).toEqual(slots.map((_, i) => i))
    } finally {
      vi.unstubAllEnvs()
      poller.destroy()
      for (const one of clients) one.destroy()
      server.close()
    }
  })
})

describe('the addon', () => {
  const addon = loadNativeAddon() as NativeAddon
  // biome-ignore lint/suspicious/noExplicitAny: wrong arguments are what is tested
  const any = addon as any

  it('refuses wrong arguments with a TypeError and pollers that are none with a negative number', () => {
    for (const [name, method] of Object.entries(any) as [string, (...args: unknown[]) => unknown][]) {
      if (name === 'constants') continue
      for (const args of [
        [],
        ['x'],
        [{}, {}],
        [Symbol(), 1, 2],
        [null, null, null, null, null, null, null, null],
      ]) {
        if (name === 'openGroup' && args.length === 0) continue
        expect(() => method(...args), name).toThrow(TypeError)
      }
    }
    for (const poller of [-1, 0x7fffffff, 12345]) {
      expect(any.write(poller, 0, Buffer.alloc(4), 0, 4)).toBeLessThan(0)
      expect(any.close(poller, 0, false)).toBeLessThan(0)
      expect(any.listenTcp(poller, '127.0.0.1', 0, 1, true, 0, false, 0, false)).toBeLessThan(0)
      any.destroy(poller)
      any.setRef(poller, true)
    }
  })

  it('checks every range of a write', () => {
    const { poller } = addon.create(() => {}, 10, true)
    for (const [start, end] of [
      [-1, 2],
      [0, 5],
      [3, 2],
      [0, Number.MAX_SAFE_INTEGER],
      [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
    ]) {
      expect(() => any.write(poller, 0, Buffer.alloc(4), start, end)).toThrow(TypeError)
    }
    expect(() => any.write(poller, 0, 'text', 0, 1)).toThrow(TypeError)
    expect(() => any.write(poller, 0, new ArrayBuffer(4), 0, 1)).toThrow(TypeError)
    addon.destroy(poller)
  })

  it('trusts nothing in the shared tables', async () => {
    const { poller, slot, client } = await accepted(false)
    const wild = [-1, 2 ** 31 - 1, -(2 ** 31), 256 * 1024, 256 * 1024 + 1]
    for (const offset of wild) {
      for (const length of wild) {
        poller.outRecords.set([slot, offset, length])
        poller.flush(1)
      }
    }
    for (const count of [-1, 4097, 2 ** 31 - 1]) expect(() => poller.flush(count)).not.toThrow()
    poller.destroy()
    client.destroy()
  })

  it('lends a typed array of any kind only its own bytes', async () => {
    const { poller, slot, client } = await accepted(false)
    const bytes = Buffer.from('0123456789').subarray(2, 6)
    expect(poller.write(slot, bytes, 1, 4)).toBe(3)
    await client.bytes(3)
    expect(client.text).toBe('345')
    poller.destroy()
    client.destroy()
  })
})
