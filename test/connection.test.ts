import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import type { AnyConnection } from '../src/connection/host.js'
import type { Connection } from '../src/connection.js'
import { type CloseReason, ErrorCode, ProtocolError, type RingloopError } from '../src/errors.js'
import type { Handler } from '../src/handler.js'
import type { Packed, Protocol } from '../src/protocol/protocol.js'
import { RawProtocol } from '../src/protocol/raw.js'
import { errno } from '../src/system-error.js'
import type { FakeSocket } from './fake-poller.js'
import { type FakeLoop, fakeLoop, settle } from './support/fake-loop.js'
import { bodies, frames, LengthProtocol } from './support/length-protocol.js'

const { ECONNRESET, EPIPE } = errno

const echo: Handler = { onMessage: (_c, _ctx, data) => data }

/** What every scenario must leave behind. */
function expectClean(fake: FakeLoop): void {
  expect(fake.poller.violations).toEqual([])
  for (const socket of fake.poller.all) expect(socket.closed).toBeDefined()
  expect(fake.ringsOut()).toBe(0)
  expect(fake.loop.table.traffic.backlogBytes).toBe(0)
  expect([...fake.loop.connections]).toEqual([])
}

describe('packets and answers', () => {
  it('answers in the batch that brought the question', async () => {
    const fake = await fakeLoop(echo)
    const { socket } = fake.accept()
    socket.read('ping')
    expect(socket.out.toString()).toBe('ping')
  })

  it('gathers the answers of a batch in one write', async () => {
    const fake = await fakeLoop(echo, { protocol: new LengthProtocol() })
    const { socket } = fake.accept()
    socket.read(frames('one', 'two', 'three'))
    expect(bodies(socket.out).map(String)).toEqual(['one', 'two', 'three'])
    expect(socket.offers).toHaveLength(1)
  })

  it('hands over data that stays as it was when the read memory is used again', async () => {
    const kept: Buffer[] = []
    const fake = await fakeLoop(
      { onMessage: (_c, _ctx, data) => void kept.push(data) },
      { protocol: new LengthProtocol() },
    )
    const { socket } = fake.accept()
    socket.read(frames('first', 'second'))
    socket.read(frames('third').subarray(0, 6))
    socket.read(frames('third').subarray(6))
    expect(kept.map(String)).toEqual(['first', 'second', 'third'])
  })

  it('hands over empty packets', async () => {
    const seen: number[] = []
    const fake = await fakeLoop(
      { onMessage: (_c, _ctx, data) => void seen.push(data.length) },
      { protocol: new LengthProtocol() },
    )
    fake.accept().socket.read(frames('', 'x', '', ''))
    expect(seen).toEqual([0, 1, 0, 0])
  })

  it('sends an empty answer as a packet of its own', async () => {
    const fake = await fakeLoop({ onMessage: () => '' }, { protocol: new LengthProtocol() })
    const { socket } = fake.accept()
    socket.read(frames('x', 'y'))
    expect(bodies(socket.out)).toHaveLength(2)
  })

  it('gives an idle connection no ring', async () => {
    const fake = await fakeLoop(echo, { protocol: new LengthProtocol() })
    const { socket, c } = fake.accept()
    socket.read(frames('abc').subarray(0, 5))
    expect(c.readBufferLength).toBe(5)
    expect(fake.ringsOut()).toBe(1)
    socket.read(frames('abc').subarray(5))
    expect(c.readBufferLength).toBe(0)
    expect(fake.ringsOut()).toBe(0)
  })

  it('passes the ctx of the question to packet, and none for send', async () => {
    const asked: unknown[] = []
    class Recorder extends LengthProtocol {
      override packet(c: AnyConnection, out: Uint8Array | string, ctx?: number): Uint8Array[] {
        asked.push(ctx)
        return super.packet(c, out)
      }
    }
    const fake = await fakeLoop(
      {
        onMessage: (c, ctx, data) => {
          if (ctx === 2) return Promise.resolve(data)
          c.send('note')
          return data
        },
      },
      { protocol: new Recorder() },
    )
    fake.accept().socket.read(frames('a', 'b', 'c'))
    await settle()
    expect(asked).toEqual([undefined, 1, 2, undefined, 3])
  })

  it('closes a connection whose protocol returns packets for ever without taking a byte', async () => {
    const reasons: CloseReason[] = []
    const protocol: Protocol = {
      unPacket: () => ({ ctx: undefined, data: Buffer.alloc(0) }),
      packet: () => Buffer.alloc(0),
    }
    const fake = await fakeLoop(
      { onMessage: () => {}, onClose: (_c, reason) => void reasons.push(reason) },
      { protocol },
    )
    fake.accept().socket.read('x')
    await vi.waitFor(() => expect(reasons.map((reason) => reason.code)).toEqual(['handler-error']), {
      timeout: 30_000,
    })
    expectClean(fake)
  })
})

describe('split invariance', () => {
  const messages = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 12 })

  it('gives the same packets however the stream is cut', async () => {
    await fc.assert(
      fc.asyncProperty(messages, fc.array(fc.nat({ max: 60 }), { maxLength: 40 }), async (sent, cuts) => {
        const got: Buffer[] = []
        const fake = await fakeLoop(
          {
            onMessage: (_c, _ctx, data) => {
              got.push(data)
              return data
            },
          },
          { protocol: new LengthProtocol() },
        )
        const { socket } = fake.accept()
        const stream = frames(...sent)
        let at = 0
        for (const cut of cuts) {
          if (cut === 0 || at >= stream.length) continue
          socket.read(stream.subarray(at, at + cut))
          at += cut
        }
        if (at < stream.length) socket.read(stream.subarray(at))
        expect(got.map((data) => data.toString('hex'))).toEqual(
          sent.map((body) => Buffer.from(body).toString('hex')),
        )
        expect(socket.out.equals(stream)).toBe(true)
        expect(fake.ringsOut()).toBe(0)
      }),
      { numRuns: 150 },
    )
  })

  it('gives the same packets at every single cut point', async () => {
    const stream = frames('', 'a', 'bc'.repeat(30), '', 'end')
    for (let cut = 1; cut < stream.length; cut++) {
      const fake = await fakeLoop(echo, { protocol: new LengthProtocol() })
      const { socket } = fake.accept()
      socket.read(stream.subarray(0, cut))
      socket.read(stream.subarray(cut))
      expect(socket.out.equals(stream), `cut at ${cut}`).toBe(true)
    }
  })
})

describe('short writes', () => {
  const message = Buffer.from(Array.from({ length: 300 }, (_, i) => i & 0xff))

  it('loses and repeats nothing when the kernel takes a message in two parts, at every cut point', async () => {
    for (let cut = 0; cut < message.length; cut++) {
      const fake = await fakeLoop(echo)
      const { socket, c } = fake.accept()
      let first = true
      socket.room = (offered) => {
        if (!first) return offered
        first = false
        return cut
      }
      socket.read(message)
      expect(c.writeBufferLength).toBe(message.length - cut)
      socket.drain()
      expect(socket.out.equals(message), `cut at ${cut}`).toBe(true)
      expect(c.writeBufferLength).toBe(0)
      c.close()
      await settle()
      expectClean(fake)
    }
  })

  it('keeps the order of gathered, queued and large sends', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 32_000, max: 70_000 })), {
          minLength: 1,
          maxLength: 12,
        }),
        fc.array(fc.integer({ min: 0, max: 50_000 }), { maxLength: 30 }),
        async (sizes, rooms) => {
          const fake = await fakeLoop(echo, { slabBytes: 65_536, highWaterMark: 1 << 30 })
          const { socket, c } = fake.accept()
          let at = 0
          socket.room = (offered) => (at < rooms.length ? rooms[at++]! : offered)
          const sent: Buffer[] = []
          for (const [i, size] of sizes.entries()) {
            const bytes = Buffer.alloc(size, i + 1)
            const copy = Buffer.from(bytes)
            sent.push(copy)
            c.send(bytes)
            bytes.fill(0xee)
            if (i % 3 === 2) {
              await settle()
              socket.drain()
            }
          }
          await settle()
          while (socket.drain()) await settle()
          expect(socket.out.equals(Buffer.concat(sent))).toBe(true)
          expect(fake.poller.violations).toEqual([])
          expect(fake.ringsOut()).toBe(0)
        },
      ),
      { numRuns: 150 },
    )
  })

  it('serves many connections through a slab and a table that are too small for them', async () => {
    const fake = await fakeLoop(echo, { slabBytes: 1024, records: 3, highWaterMark: 1 << 30 })
    const peers = Array.from({ length: 20 }, () => fake.accept())
    for (const [i, { socket }] of peers.entries())
      socket.room = (offered) => (i % 4 === 0 ? Math.ceil(offered / 2) : offered)
    fake.poller.batch((sink) => {
      for (let round = 0; round < 5; round++) {
        for (const [i, { socket }] of peers.entries()) {
          const bytes = Buffer.alloc(100 + i, round + 1)
          sink.handleRead(socket.slot, bytes, 0, bytes.length)
        }
      }
    })
    await settle()
    for (const [i, { socket }] of peers.entries()) {
      while (socket.drain()) await settle()
      const all = [1, 2, 3, 4, 5].map((fill) => Buffer.alloc(100 + i, fill))
      expect(socket.out.equals(Buffer.concat(all)), `peer ${i}`).toBe(true)
    }
    expect(fake.poller.violations).toEqual([])
  })

  it('ends with network-error when the write fails, and sends nothing any more', async () => {
    const closes: CloseReason[] = []
    const fake = await fakeLoop({ ...echo, onClose: (_c, reason) => void closes.push(reason) })
    const { socket, c } = fake.accept()
    socket.room = () => EPIPE
    socket.read('x')
    expect(c.send('more')).toBe(false)
    socket.reset(ECONNRESET)
    await settle()
    expect(closes.map((reason) => reason.code)).toEqual(['network-error'])
    expect(closes[0]?.error).toMatchObject({ code: 'EPIPE' })
    expectClean(fake)
  })
})

describe('onSent', () => {
  it('is called once, after the bytes are in the kernel, in the order of the sends', async () => {
    const fake = await fakeLoop(echo)
    const { socket, c } = fake.accept()
    const calls: string[] = []
    socket.room = (offered) => Math.min(offered, 5)
    for (const text of ['abc', 'defg', 'hi', '']) {
      c.send(text, (error) => calls.push(`${text}@${socket.out.length}${error === undefined ? '' : '!'}`))
    }
    await settle()
    expect(calls).toEqual(['abc@5'])
    socket.drain()
    await settle()
    expect(calls).toEqual(['abc@5', 'defg@9', 'hi@9', '@9'])
    expect(socket.out.toString()).toBe('abcdefghi')
  })

  it('is not called from within send', async () => {
    const fake = await fakeLoop(echo)
    const { c } = fake.accept()
    let inside = true
    let called = 0
    c.send('x', () => {
      expect(inside).toBe(false)
      called++
    })
    c.send(Buffer.alloc(100_000), () => {
      expect(inside).toBe(false)
      called++
    })
    c.close()
    c.send('y', () => {
      expect(inside).toBe(false)
      called++
    })
    inside = false
    await settle()
    expect(called).toBe(3)
  })

  it('gets ERR_RINGLOOP_CLOSED for what was never taken', async () => {
    const fake = await fakeLoop(echo)
    const { socket, c } = fake.accept()
    socket.room = () => 2
    const results: (Error | undefined)[] = []
    c.send('ab', (error) => results.push(error))
    c.send('cd', (error) => results.push(error))
    await settle()
    expect(results).toEqual([undefined])
    socket.reset()
    await settle()
    expect(results).toHaveLength(2)
    expect((results[1] as RingloopError).code).toBe(ErrorCode.CLOSED)
    expectClean(fake)
  })

  it('may send again, and its send gets its own callback', async () => {
    const fake = await fakeLoop(echo)
    const { socket, c } = fake.accept()
    let count = 0
    const again = (): void => {
      if (++count < 5) c.send(String(count), again)
    }
    c.send('0', again)
    for (let i = 0; i < 6; i++) await settle()
    expect(count).toBe(5)
    expect(socket.out.toString()).toBe('01234')
  })

  it('closes the connection when it throws, and the other callbacks still run', async () => {
    const closes: string[] = []
    const fake = await fakeLoop({ ...echo, onClose: (_c, reason) => void closes.push(reason.code) })
    const { c } = fake.accept()
    const other = vi.fn()
    c.send('a', () => {
      throw new Error('boom')
    })
    c.send('b', other)
    await settle()
    expect(other).toHaveBeenCalledTimes(1)
    expect(closes).toEqual(['handler-error'])
    expectClean(fake)
  })
})

describe('promises', () => {
  function deferred<T>(): {
    promise: Promise<T>
    resolve: (value: T) => void
    reject: (error: unknown) => void
  } {
    let resolve!: (value: T) => void
    let reject!: (error: unknown) => void
    const promise = new Promise<T>((yes, no) => {
      resolve = yes
      reject = no
    })
    return { promise, resolve, reject }
  }

  it('keep answers in order: no packet is handed over while one is pending', async () => {
    const waiting: ((value: string) => void)[] = []
    const fake = await fakeLoop(
      {
        onMessage: (_c, _ctx, data) =>
          new Promise<string>((resolve) => waiting.push(() => resolve(`re:${data}`))),
      },
      { protocol: new LengthProtocol() },
    )
    const { socket } = fake.accept()
    socket.read(frames('1', '2', '3'))
    await settle()
    for (let i = 0; i < 3; i++) {
      expect(waiting).toHaveLength(i + 1)
      waiting[i]!('')
      await settle()
    }
    expect(bodies(socket.out).map(String)).toEqual(['re:1', 're:2', 're:3'])
    expect(fake.ringsOut()).toBe(0)
  })

  it('are not waited for under a multiplexed protocol, and each answer has its own ctx', async () => {
    const waiting = new Map<number, () => void>()
    const ctxs: unknown[] = []
    class Multiplexed extends LengthProtocol {
      readonly multiplexed = true
      override packet(c: AnyConnection, out: Uint8Array | string, ctx?: number): Uint8Array[] {
        ctxs.push(ctx)
        return super.packet(c, out)
      }
    }
    const fake = await fakeLoop(
      {
        onMessage: (_c, ctx: number) =>
          new Promise<string>((resolve) => waiting.set(ctx, () => resolve(`${ctx}`))),
      },
      { protocol: new Multiplexed() },
    )
    const { socket } = fake.accept()
    socket.read(frames('a', 'b', 'c'))
    expect([...waiting.keys()]).toEqual([1, 2, 3])
    for (const ctx of [3, 1, 2]) {
      waiting.get(ctx)!()
      await settle()
    }
    expect(bodies(socket.out).map(String)).toEqual(['3', '1', '2'])
    expect(ctxs).toEqual([3, 1, 2])
  })

  it('that reject close the connection as handler-error and log it', async () => {
    const closes: CloseReason[] = []
    const fake = await fakeLoop({
      onMessage: () => Promise.reject(new Error('no luck')),
      onClose: (_c, reason) => void closes.push(reason),
    })
    fake.accept().socket.read('x')
    await settle()
    expect(closes.map((reason) => reason.code)).toEqual(['handler-error'])
    expect(fake.logger.find('error', 'no luck')).toHaveLength(1)
    expectClean(fake)
  })

  it('that settle after the close do nothing', async () => {
    const { promise, resolve } = deferred<string>()
    const fake = await fakeLoop({ onMessage: () => promise })
    const { socket, c } = fake.accept()
    socket.read('x')
    c.close()
    await settle()
    resolve('late')
    await settle()
    expect(socket.out).toHaveLength(0)
    expectClean(fake)
  })

  it('that reject after the close are logged', async () => {
    const { promise, reject } = deferred<string>()
    const fake = await fakeLoop({ onMessage: () => promise })
    const { socket, c } = fake.accept()
    socket.read('x')
    c.close()
    await settle()
    reject(new Error('late failure'))
    await settle()
    expect(fake.logger.find('error', 'late failure')).toHaveLength(1)
  })

  it('are answered although the peer has ended its side meanwhile', async () => {
    const { promise, resolve } = deferred<string>()
    const closes: string[] = []
    const fake = await fakeLoop({
      onMessage: () => promise,
      onClose: (_c, reason) => void closes.push(reason.code),
    })
    const { socket } = fake.accept()
    socket.read('x')
    socket.end()
    await settle()
    expect(closes).toEqual([])
    resolve('answer')
    await settle()
    expect(socket.out.toString()).toBe('answer')
    expect(closes).toEqual(['peer-closed'])
    expectClean(fake)
  })

  it('hold back reading once much has come, and let it go on', async () => {
    const { promise, resolve } = deferred<void>()
    let asked = 0
    const fake = await fakeLoop({ onMessage: () => (++asked === 1 ? promise : undefined) })
    const { socket, c } = fake.accept()
    for (let i = 0; i < 1000 && socket.read(Buffer.alloc(1024)); i++);
    expect(socket.reading).toBe(false)
    expect(c.readBufferLength).toBeLessThan(128 * 1024)
    resolve()
    await settle()
    expect(socket.reading).toBe(true)
    expect(c.readBufferLength).toBe(0)
  })

  it('survive a thenable that settles at once', async () => {
    // biome-ignore lint/suspicious/noThenProperty: a thenable is what is tested
    const instant = { then: (resolve: (value: string) => void) => resolve('now') }
    const fake = await fakeLoop(
      { onMessage: () => instant as unknown as Promise<string> },
      { protocol: new LengthProtocol() },
    )
    const { socket } = fake.accept()
    socket.read(frames('a', 'b'))
    await settle()
    expect(bodies(socket.out).map(String)).toEqual(['now', 'now'])
  })
})

describe('a throw', () => {
  type Callback =
    | 'onConnect'
    | 'onMessage'
    | 'onDrain'
    | 'onClose'
    | 'unPacket'
    | 'packet'
    | 'pOnConnect'
    | 'pOnDrain'
    | 'pOnClose'
  const CALLBACKS: Callback[] = [
    'onConnect',
    'onMessage',
    'onDrain',
    'onClose',
    'unPacket',
    'packet',
    'pOnConnect',
    'pOnDrain',
    'pOnClose',
  ]

  /** Every callback is there; the one called `where` throws `what` on the first connection. */
  async function throwing(
    where: Callback,
    what: () => unknown,
  ): Promise<{ fake: FakeLoop; closes: string[] }> {
    const closes: string[] = []
    let thrown = false
    const maybe = (name: Callback): void => {
      if (name !== where || thrown) return
      thrown = true
      throw what()
    }
    class Throwing extends RawProtocol {
      override unPacket(...args: Parameters<RawProtocol['unPacket']>): ReturnType<RawProtocol['unPacket']> {
        maybe('unPacket')
        return super.unPacket(...args)
      }
      override packet(...args: Parameters<RawProtocol['packet']>): Packed {
        maybe('packet')
        return super.packet(...args)
      }
      onConnect(): void {
        maybe('pOnConnect')
      }
      onDrain(): void {
        maybe('pOnDrain')
      }
      onClose(): void {
        maybe('pOnClose')
      }
    }
    const handler: Handler = {
      onConnect: () => maybe('onConnect'),
      onMessage: (_c, _ctx, data) => {
        maybe('onMessage')
        return data
      },
      onDrain: () => maybe('onDrain'),
      onClose: (_c, reason) => {
        closes.push(reason.code)
        maybe('onClose')
      },
    }
    const fake = await fakeLoop(handler, { protocol: new Throwing(), highWaterMark: 100, lowWaterMark: 10 })
    const { socket } = fake.accept()
    socket.room = () => 0
    socket.read(Buffer.alloc(500))
    await settle()
    socket.room = (offered) => offered
    socket.drain()
    await settle()
    socket.read('again')
    socket.end()
    await settle()
    return { fake, closes }
  }

  for (const where of CALLBACKS) {
    it(`in ${where} is logged, closes its connection, and the next one is served`, async () => {
      const { fake, closes } = await throwing(where, () => new Error('bad day'))
      expect(fake.logger.find('error', 'bad day')).toHaveLength(1)
      const ownClose = where === 'onClose' || where === 'pOnClose' ? 'peer-closed' : 'handler-error'
      expect(closes).toEqual(where === 'pOnConnect' ? [] : [ownClose])
      expectClean(fake)
      const { socket } = fake.accept()
      socket.read('still here')
      expect(socket.out.toString()).toBe('still here')
    })

    it(`of a value that is no Error and cannot even be printed, in ${where}, does the same`, async () => {
      const { fake } = await throwing(where, () => Object.create(null))
      expectClean(fake)
      const { socket } = fake.accept()
      socket.read('still here')
      expect(socket.out.toString()).toBe('still here')
    })
  }

  it('of a ProtocolError in unPacket closes with its message as the reason, and is no error of ours', async () => {
    const closes: CloseReason[] = []
    class Strict extends RawProtocol {
      override unPacket(): never {
        throw new ProtocolError('a frame of 5 GiB')
      }
    }
    const fake = await fakeLoop(
      { ...echo, onClose: (_c, reason) => void closes.push(reason) },
      { protocol: new Strict() },
    )
    fake.accept().socket.read('x')
    await settle()
    expect(closes).toMatchObject([{ code: 'protocol-error', message: 'a frame of 5 GiB' }])
    expect(fake.logger.lines.filter((line) => line.level === 'error')).toEqual([])
    expect(fake.loop.stats().protocolErrors).toBe(1)
    expectClean(fake)
  })

  it('out of packet is thrown to the caller of send', async () => {
    class Picky extends RawProtocol {
      override packetInto(): number {
        return -1
      }
      override packet(): never {
        throw new Error('cannot pack that')
      }
    }
    const fake = await fakeLoop(echo, { protocol: new Picky() })
    const { c } = fake.accept()
    expect(() => c.send('x')).toThrow('cannot pack that')
    expect(c.connected).toBe(true)
  })

  for (const name of ['onConnect', 'onDrain', 'onClose'] as const) {
    it(`of an async ${name} is handled like a throw, not left as an unhandled rejection`, async () => {
      const unhandled = vi.fn()
      const before = process.listeners('unhandledRejection')
      process.removeAllListeners('unhandledRejection')
      process.on('unhandledRejection', unhandled)
      try {
        const handler: Handler = {
          ...echo,
          [name]: async () => {
            throw new Error('async trouble')
          },
        }
        const fake = await fakeLoop(handler, { highWaterMark: 10, lowWaterMark: 1 })
        const { socket } = fake.accept()
        socket.room = () => 0
        socket.read(Buffer.alloc(50))
        await settle()
        socket.room = (offered) => offered
        socket.drain()
        socket.end()
        await settle()
        expect(unhandled).not.toHaveBeenCalled()
        expect(fake.logger.find('error', 'async trouble')).toHaveLength(1)
        expectClean(fake)
      } finally {
        process.removeListener('unhandledRejection', unhandled)
        for (const listener of before) process.on('unhandledRejection', listener)
      }
    })
  }
})

describe('the end', () => {
  function recording(): { handler: Handler; calls: string[] } {
    const calls: string[] = []
    return {
      calls,
      handler: {
        onConnect: () => void calls.push('connect'),
        onMessage: (_c, _ctx, data) => {
          calls.push(`message ${data}`)
          return data
        },
        onClose: (c, reason) => void calls.push(`close ${reason.code} ${c.connected}`),
      },
    }
  }

  it('by the peer: what has come is answered, then onClose, once', async () => {
    const { handler, calls } = recording()
    const fake = await fakeLoop(handler)
    const { socket } = fake.accept()
    socket.read('last words')
    socket.end()
    await settle()
    expect(calls).toEqual(['connect', 'message last words', 'close peer-closed false'])
    expect(socket.out.toString()).toBe('last words')
    expectClean(fake)
  })

  it('by the peer, with unsent bytes: they are sent first', async () => {
    const { handler, calls } = recording()
    const fake = await fakeLoop(handler)
    const { socket } = fake.accept()
    socket.room = () => 1
    socket.read('abcd')
    socket.end()
    await settle()
    expect(calls).not.toContain('close peer-closed false')
    socket.room = (offered) => offered
    socket.drain()
    await settle()
    expect(socket.out.toString()).toBe('abcd')
    expect(calls.at(-1)).toBe('close peer-closed false')
    expectClean(fake)
  })

  it('by a reset: network-error with the system’s error', async () => {
    const closes: CloseReason[] = []
    const fake = await fakeLoop({ ...echo, onClose: (_c, reason) => void closes.push(reason) })
    fake.accept().socket.reset(ECONNRESET)
    await settle()
    expect(closes).toMatchObject([{ code: 'network-error', error: { code: 'ECONNRESET' } }])
    expectClean(fake)
  })

  it('by close: unsent bytes go first, the socket lingers, later calls do nothing', async () => {
    const { handler, calls } = recording()
    const fake = await fakeLoop(handler)
    const { socket, c } = fake.accept()
    socket.room = () => 1
    c.send('abc')
    c.close()
    expect(c.connected).toBe(false)
    expect(c.send('no')).toBe(false)
    c.close('idle')
    c.shutdownWrite()
    c.pause()
    c.resume()
    await settle()
    expect(socket.closed).toBeUndefined()
    socket.room = (offered) => offered
    socket.drain()
    await settle()
    expect(socket.out.toString()).toBe('abc')
    expect(socket.closed).toBe('lingering')
    expect(calls).toEqual(['connect', 'close closed false'])
    expectClean(fake)
    expect(c.peerAddr).toMatch(/^10\.0\.0\.1:/)
  })

  it('by close with a reason of its own', async () => {
    const closes: CloseReason[] = []
    const fake = await fakeLoop({ ...echo, onClose: (_c, reason) => void closes.push(reason) })
    fake.accept().c.close({ code: 'protocol-error', message: 'no such room' })
    fake.accept().c.close('slow-consumer')
    await settle()
    expect(closes).toMatchObject([
      { code: 'protocol-error', message: 'no such room' },
      { code: 'slow-consumer' },
    ])
  })

  it('never comes from within close', async () => {
    let inside = false
    const fake = await fakeLoop({ ...echo, onClose: () => expect(inside).toBe(false) })
    const { c } = fake.accept()
    inside = true
    c.close()
    inside = false
    await settle()
    expectClean(fake)
  })

  it('of a peer that does not take the last bytes comes after closeTimeout', async () => {
    const { handler, calls } = recording()
    const fake = await fakeLoop(handler, { closeTimeout: 100 })
    const { socket, c } = fake.accept()
    socket.room = () => 0
    c.send('never')
    c.close()
    await vi.waitFor(() => expect(calls).toContain('close closed false'), { timeout: 5000 })
    expectClean(fake)
  })

  it('while the peer still takes bytes, closeTimeout starts again', async () => {
    const fake = await fakeLoop(echo, { closeTimeout: 300 })
    const { socket, c } = fake.accept()
    socket.room = () => 1
    c.send('abcdefgh')
    c.close()
    for (let i = 0; i < 7; i++) {
      await new Promise((resolve) => setTimeout(resolve, 100))
      socket.drain()
      await settle()
    }
    expect(socket.out.toString()).toBe('abcdefgh')
    expectClean(fake)
  })

  it('hands no packet over any more once close was called', async () => {
    const seen: string[] = []
    const fake = await fakeLoop(
      {
        onMessage: (c, _ctx, data) => {
          seen.push(String(data))
          if (String(data) === 'quit') c.close()
          return data
        },
      },
      { protocol: new LengthProtocol() },
    )
    const { socket } = fake.accept()
    socket.read(frames('a', 'quit', 'b', 'c'))
    socket.read(frames('d'))
    await settle()
    expect(seen).toEqual(['a', 'quit'])
    expectClean(fake)
  })

  it('stops reading at close', async () => {
    const fake = await fakeLoop(echo)
    const { socket, c } = fake.accept()
    socket.room = () => 0
    c.send('x')
    c.close()
    expect(socket.reading).toBe(false)
  })

  it('keeps context and keyed values readable in onClose', async () => {
    let seen: unknown[] = []
    const fake = await fakeLoop({
      onConnect: (c) => {
        c.context = 'ctx'
        c.set('key', 1)
      },
      onMessage: () => {},
      onClose: (c) => {
        seen = [c.context, c.get('key'), c.delete('key'), c.delete('key'), c.get('key')]
      },
    })
    fake.accept().socket.end()
    await settle()
    expect(seen).toEqual(['ctx', 1, true, false, undefined])
  })
})

describe('close inside a callback', () => {
  type Where =
    | 'onConnect'
    | 'onMessage'
    | 'onDrain'
    | 'onClose'
    | 'onSent'
    | 'unPacket'
    | 'packet'
    | 'pOnConnect'
    | 'pOnClose'
  const PLACES: Where[] = [
    'onConnect',
    'onMessage',
    'onDrain',
    'onClose',
    'onSent',
    'unPacket',
    'packet',
    'pOnConnect',
    'pOnClose',
  ]
  type Act = 'close' | 'abort' | 'stop loop'
  const ACTS: Act[] = ['close', 'abort', 'stop loop']

  for (const act of ACTS) {
    for (const where of PLACES) {
      it(`${act} in ${where}: onClose once and last, nothing leaks`, async () => {
        const calls: string[] = []
        const at = (name: Where, c: Connection): void => {
          calls.push(name)
          if (name !== where) return
          if (act === 'close') c.close()
          else if (act === 'abort') (c as AnyConnection).abort({ code: 'closed', message: 'test' })
          else void c.loop.stop()
        }
        class Noisy extends LengthProtocol {
          override unPacket(
            ...args: Parameters<LengthProtocol['unPacket']>
          ): ReturnType<LengthProtocol['unPacket']> {
            at('unPacket', args[0])
            return super.unPacket(...args)
          }
          override packet(
            ...args: Parameters<LengthProtocol['packet']>
          ): ReturnType<LengthProtocol['packet']> {
            at('packet', args[0])
            return super.packet(...args)
          }
          onConnect(c: AnyConnection): void {
            at('pOnConnect', c)
          }
          onClose(c: AnyConnection): void {
            at('pOnClose', c)
          }
        }
        const handler: Handler<number> = {
          onConnect: (c) => at('onConnect', c),
          onMessage: (c, _ctx, data) => {
            at('onMessage', c)
            c.send('extra', () => at('onSent', c))
            return data
          },
          onDrain: (c) => at('onDrain', c),
          onClose: (c) => at('onClose', c),
        }
        const fake = await fakeLoop(handler, { protocol: new Noisy(), highWaterMark: 50, lowWaterMark: 10 })
        const bystander = fake.accept()
        const { socket } = fake.accept()
        socket.room = () => 3
        socket.read(frames('a', 'b'.repeat(60)))
        socket.read(frames('c').subarray(0, 3))
        await settle()
        socket.room = (offered) => offered
        socket.drain()
        await settle()
        socket.end()
        bystander.socket.end()
        await settle()
        await fake.loop.stop()
        await settle()
        expectClean(fake)
        const connects = calls.filter((name) => name === 'onConnect').length
        expect(calls.filter((name) => name === 'onClose')).toHaveLength(connects)
        expect(fake.loop.stats().connections).toBe(0)
      })
    }
  }
})

describe('pause and resume', () => {
  it('stop reading and handing over, and go on where it stopped', async () => {
    const seen: string[] = []
    const fake = await fakeLoop(
      {
        onMessage: (c, _ctx, data) => {
          seen.push(String(data))
          if (String(data) === 'stop') c.pause()
        },
      },
      { protocol: new LengthProtocol() },
    )
    const { socket, c } = fake.accept()
    socket.read(frames('a', 'stop', 'b', 'c'))
    await settle()
    expect(seen).toEqual(['a', 'stop'])
    expect(socket.reading).toBe(false)
    c.resume()
    expect(seen).toEqual(['a', 'stop'])
    await settle()
    expect(seen).toEqual(['a', 'stop', 'b', 'c'])
    expect(socket.reading).toBe(true)
    expect(fake.ringsOut()).toBe(0)
  })

  it('pause after resume in the same turn wins', async () => {
    const fake = await fakeLoop(echo)
    const { socket, c } = fake.accept()
    c.pause()
    c.resume()
    c.pause()
    await settle()
    expect(socket.reading).toBe(false)
  })

  it('a peer’s end while paused with packets waiting: they are handed over after resume, then it closes', async () => {
    const seen: string[] = []
    const fake = await fakeLoop(
      {
        onMessage: (c, _ctx, data) => {
          seen.push(String(data))
          if (seen.length === 1) c.pause()
        },
        onClose: () => void seen.push('closed'),
      },
      { protocol: new LengthProtocol() },
    )
    const { socket, c } = fake.accept()
    fake.poller.batch((sink) => {
      const bytes = frames('a', 'b')
      sink.handleRead(socket.slot, bytes, 0, bytes.length)
      sink.handleEnd(socket.slot)
    })
    await settle()
    expect(seen).toEqual(['a'])
    c.resume()
    await settle()
    expect(seen).toEqual(['a', 'b', 'closed'])
    expectClean(fake)
  })

  it('a reset while paused is found at resume', async () => {
    const closes: string[] = []
    const fake = await fakeLoop({ ...echo, onClose: (_c, reason) => void closes.push(reason.code) })
    const { socket, c } = fake.accept()
    c.pause()
    socket.reset()
    await settle()
    c.resume()
    await settle()
    socket.readError()
    await settle()
    expect(closes).toEqual(['network-error'])
    expectClean(fake)
  })
})

describe('shutdownWrite', () => {
  it('ends this side after what is unsent, and goes on reading', async () => {
    const seen: string[] = []
    const fake = await fakeLoop({ onMessage: (_c, _ctx, data) => void seen.push(String(data)) })
    const { socket, c } = fake.accept()
    socket.room = () => 2
    c.send('abcd')
    c.shutdownWrite()
    c.shutdownWrite()
    expect(c.send('more')).toBe(false)
    await settle()
    expect(socket.shut).toBe(false)
    socket.room = (offered) => offered
    socket.drain()
    await settle()
    expect(socket.shut).toBe(true)
    expect(socket.out.toString()).toBe('abcd')
    socket.read('still read')
    expect(seen).toEqual(['still read'])
    socket.end()
    await settle()
    expectClean(fake)
  })

  it('calls onSent of a refused send with an error', async () => {
    const fake = await fakeLoop(echo)
    const { c } = fake.accept()
    c.shutdownWrite()
    const onSent = vi.fn()
    c.send('x', onSent)
    await settle()
    expect(onSent).toHaveBeenCalledTimes(1)
    expect(onSent.mock.calls[0]?.[0]).toMatchObject({ code: ErrorCode.CLOSED })
  })

  it('calls onSent with an error when that very send finds the socket broken', async () => {
    const fake = await fakeLoop(echo)
    const { socket, c } = fake.accept()
    socket.room = () => EPIPE
    const onSent = vi.fn()
    expect(c.send(Buffer.alloc(100_000), onSent)).toBe(false)
    await settle()
    expect(onSent).toHaveBeenCalledTimes(1)
    expect(onSent.mock.calls[0]?.[0]).toMatchObject({ code: ErrorCode.CLOSED })
  })

  it('logs what onSent of a refused send throws', async () => {
    const fake = await fakeLoop(echo)
    const { c } = fake.accept()
    c.close()
    c.send('x', () => {
      throw new Error('thrown by onSent')
    })
    await settle()
    expect(fake.logger.find('error', 'onSent failed')).toHaveLength(1)
  })
})

describe('water marks', () => {
  it('send is false above the mark, reading stops, and onDrain comes at the low mark', async () => {
    const drains: number[] = []
    const fake = await fakeLoop(
      { ...echo, onDrain: (c) => void drains.push(c.writeBufferLength) },
      { highWaterMark: 100, lowWaterMark: 40 },
    )
    const { socket, c } = fake.accept()
    socket.room = () => 0
    expect(c.send(Buffer.alloc(100))).toBe(true)
    expect(c.send(Buffer.alloc(1))).toBe(false)
    expect(socket.reading).toBe(false)
    expect(c.writeBufferLength).toBe(101)
    const drained = c.drained()
    socket.room = () => 50
    await settle()
    socket.drain()
    await settle()
    expect(drains).toEqual([])
    socket.room = () => 11
    socket.drain()
    await settle()
    expect(drains).toEqual([40])
    expect(await drained).toBe(true)
    expect(socket.reading).toBe(true)
    expect(await c.drained()).toBe(true)
  })

  it('an echo that is not read stops reading within bounds', async () => {
    const fake = await fakeLoop(echo, { highWaterMark: 64 * 1024 })
    const { socket, c } = fake.accept()
    socket.room = () => 0
    let read = 0
    while (socket.read(Buffer.alloc(16 * 1024)) && read < 10_000) read++
    expect(socket.reading).toBe(false)
    expect(c.writeBufferLength).toBeLessThanOrEqual(64 * 1024 + 16 * 1024)
    expect(c.readBufferLength).toBe(0)
  })

  it('stops handing over packets above the mark, in the middle of a read', async () => {
    let seen = 0
    const fake = await fakeLoop(
      {
        onMessage: () => {
          seen++
          return Buffer.alloc(100)
        },
      },
      { protocol: new LengthProtocol(), highWaterMark: 350, lowWaterMark: 0 },
    )
    const { socket } = fake.accept()
    socket.room = () => 0
    socket.read(frames(...Array.from({ length: 50 }, () => 'x')))
    await settle()
    expect(seen).toBeLessThan(6)
    const before = seen
    socket.room = (offered) => offered
    while (socket.drain()) await settle()
    await settle()
    expect(seen).toBeGreaterThan(before)
    for (let i = 0; i < 20 && seen < 50; i++) await settle()
    expect(seen).toBe(50)
    expect(bodies(socket.out)).toHaveLength(50)
  })

  it('drained is false when the connection is closed instead', async () => {
    const fake = await fakeLoop(echo, { highWaterMark: 10 })
    const { socket, c } = fake.accept()
    socket.room = () => 0
    c.send(Buffer.alloc(50))
    const drained = c.drained()
    socket.reset()
    await settle()
    socket.readError()
    await settle()
    expect(await drained).toBe(false)
    expect(await c.drained()).toBe(false)
    expectClean(fake)
  })

  it('a reset while throttled closes', async () => {
    const closes: string[] = []
    const fake = await fakeLoop(
      { ...echo, onClose: (_c, reason) => void closes.push(reason.code) },
      { highWaterMark: 10 },
    )
    const { socket } = fake.accept()
    socket.room = () => 0
    socket.read(Buffer.alloc(50))
    expect(socket.reading).toBe(false)
    socket.reset()
    await settle()
    socket.readError()
    await settle()
    expect(closes).toEqual(['network-error'])
    expectClean(fake)
  })

  it('a lowWaterMark of 0 is reached', async () => {
    const onDrain = vi.fn()
    const fake = await fakeLoop({ ...echo, onDrain }, { highWaterMark: 10, lowWaterMark: 0 })
    const { socket, c } = fake.accept()
    socket.room = () => 0
    c.send(Buffer.alloc(20))
    await settle()
    socket.room = (offered) => offered
    socket.drain()
    await settle()
    expect(onDrain).toHaveBeenCalledTimes(1)
  })

  it('writeBufferBytes of the stats is what waits', async () => {
    const fake = await fakeLoop(echo)
    const { socket, c } = fake.accept()
    socket.room = () => 0
    c.send(Buffer.alloc(1000))
    await settle()
    expect(fake.loop.stats().writeBufferBytes).toBe(1000)
    socket.reset()
    await settle()
    expect(fake.loop.stats().writeBufferBytes).toBe(0)
  })
})

describe('maxReadBuffer', () => {
  it('closes a connection whose packet never completes, with a reason', async () => {
    const closes: CloseReason[] = []
    const fake = await fakeLoop(
      { onMessage: () => {}, onClose: (_c, reason) => void closes.push(reason) },
      { protocol: new LengthProtocol(), maxReadBuffer: 1000 },
    )
    const { socket } = fake.accept()
    socket.read(frames(Buffer.alloc(5000)).subarray(0, 900))
    await settle()
    expect(closes).toEqual([])
    socket.read(Buffer.alloc(200))
    await settle()
    expect(closes.map((reason) => reason.code)).toEqual(['read-buffer-full'])
    expect(closes[0]?.message).toContain('1000')
    expectClean(fake)
  })

  it('does not count whole packets that wait for a promise', async () => {
    const waiting: (() => void)[] = []
    const closes: string[] = []
    const fake = await fakeLoop(
      {
        onMessage: () => new Promise<void>((resolve) => waiting.push(resolve)),
        onClose: (_c, reason) => void closes.push(reason.code),
      },
      { protocol: new LengthProtocol(), maxReadBuffer: 100 },
    )
    const { socket } = fake.accept()
    socket.read(frames(...Array.from({ length: 30 }, () => Buffer.alloc(50))))
    await settle()
    expect(closes).toEqual([])
    for (let i = 0; i < 30; i++) {
      waiting[i]?.()
      await settle()
    }
    expect(waiting).toHaveLength(30)
    expect(closes).toEqual([])
  })
})

describe('idleTime', () => {
  it('of Infinity is refused at the start, not at the first accept', async () => {
    for (const option of ['idleTime', 'closeTimeout'] as const) {
      const made = fakeLoop(echo, { [option]: Number.POSITIVE_INFINITY })
      await expect(made).rejects.toMatchObject({ code: ErrorCode.OPTION })
    }
  })

  it('closes the quiet connection and not the busy one', async () => {
    const closes: unknown[] = []
    const fake = await fakeLoop(
      { ...echo, onClose: (c, reason) => void closes.push([c.context, reason.code]) },
      { idleTime: 150 },
    )
    const quiet = fake.accept()
    quiet.c.context = 'quiet'
    const busy = fake.accept()
    busy.c.context = 'busy'
    const started = performance.now()
    while (closes.length === 0 && performance.now() - started < 5000) {
      busy.socket.read('x')
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    expect(closes).toEqual([['quiet', 'idle']])
  })

  it('can be set for one connection, and taken away', async () => {
    const closes: unknown[] = []
    const fake = await fakeLoop(
      { ...echo, onClose: (c, reason) => void closes.push([c.context, reason.code]) },
      { idleTime: 100 },
    )
    const kept = fake.accept()
    kept.c.context = 'kept'
    kept.c.idleTime = 0
    const quick = fake.accept()
    quick.c.context = 'quick'
    quick.c.idleTime = 30
    expect(() => {
      quick.c.idleTime = -1
    }).toThrow(expect.objectContaining({ code: ErrorCode.OPTION }))
    await vi.waitFor(() => expect(closes).toEqual([['quick', 'idle']]), { timeout: 5000 })
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(closes).toHaveLength(1)
  })

  it('strikes also where the clock has wrapped since the last byte', async () => {
    const onClose = vi.fn()
    const fake = await fakeLoop({ ...echo, onClose })
    const { c } = fake.accept()
    fake.loop.table.lastActive[c.slot] = 2 ** 31 - 100
    vi.spyOn(fake.loop, 'readClock').mockReturnValue((2 ** 31 + 100) | 0)
    c.idleTime = 20
    await vi.waitFor(() => expect(onClose).toHaveBeenCalledTimes(1), { timeout: 5000 })
    expect(onClose.mock.calls[0]?.[1]).toMatchObject({ code: 'idle' })
  })

  it('lets the protocol’s last word out', async () => {
    class Polite extends RawProtocol {
      onClosing(c: AnyConnection): void {
        c.sendRaw(Buffer.from('bye'))
      }
    }
    const fake = await fakeLoop(echo, { protocol: new Polite(), idleTime: 20 })
    const { socket } = fake.accept()
    await vi.waitFor(() => expect(socket.closed).toBe('lingering'), { timeout: 5000 })
    expect(socket.out.toString()).toBe('bye')
  })

  it('does not strike while an answer is pending', async () => {
    let answer!: (text: string) => void
    const closes: string[] = []
    const fake = await fakeLoop(
      {
        onMessage: () => new Promise<string>((resolve) => (answer = resolve)),
        onClose: (_c, reason) => void closes.push(reason.code),
      },
      { idleTime: 50 },
    )
    const { socket } = fake.accept()
    socket.read('x')
    await new Promise((resolve) => setTimeout(resolve, 250))
    expect(closes).toEqual([])
    answer('done')
    await settle()
    expect(socket.out.toString()).toBe('done')
    await vi.waitFor(() => expect(closes).toEqual(['idle']), { timeout: 5000 })
    expectClean(fake)
  })
})

describe('stop of the loop', () => {
  it('with drain completes pending answers and unsent bytes', async () => {
    let answer!: (text: string) => void
    const closes: string[] = []
    const fake = await fakeLoop({
      onMessage: () => new Promise<string>((resolve) => (answer = resolve)),
      onClose: (_c, reason) => void closes.push(reason.code),
    })
    const { socket } = fake.accept()
    const idle = fake.accept()
    socket.read('question')
    const stopped = fake.loop.stop({ drain: 10_000 })
    await settle()
    expect(idle.socket.closed).toBeDefined()
    expect(socket.closed).toBeUndefined()
    expect(socket.reading).toBe(false)
    socket.room = () => 2
    answer('answer')
    await settle()
    socket.room = (offered) => offered
    socket.drain()
    await stopped
    expect(socket.out.toString()).toBe('answer')
    expect(closes).toEqual(['server-stopped', 'server-stopped'])
    expectClean(fake)
  })

  it('without drain ends everything at once and drops what is unsent', async () => {
    const closes: string[] = []
    const onSent = vi.fn()
    const fake = await fakeLoop({ ...echo, onClose: (_c, reason) => void closes.push(reason.code) })
    const { socket, c } = fake.accept()
    socket.room = () => 0
    c.send('x', onSent)
    await fake.loop.stop()
    await settle()
    expect(closes).toEqual(['server-stopped'])
    expect(onSent).toHaveBeenCalledTimes(1)
    expect(onSent.mock.calls[0]?.[0]).toMatchObject({ code: ErrorCode.CLOSED })
    expectClean(fake)
    expect(fake.poller.destroyed).toBe(true)
  })

  it('with drain gives up at the end of the time', async () => {
    const fake = await fakeLoop({ onMessage: () => new Promise<string>(() => {}) })
    const { socket } = fake.accept()
    socket.read('x')
    const started = performance.now()
    await fake.loop.stop({ drain: 200 })
    expect(performance.now() - started).toBeGreaterThanOrEqual(190)
    expectClean(fake)
  })

  it('turns away who comes while onStop is awaited', async () => {
    const onConnect = vi.fn()
    const fake = await fakeLoop({
      ...echo,
      onConnect,
      onStop: async () => {
        fake.accept()
        await settle()
      },
    })
    await fake.loop.stop()
    expect(onConnect).not.toHaveBeenCalled()
    expectClean(fake)
    expect(fake.loop.stats().connections).toBe(0)
  })

  it('makes every later call harmless', async () => {
    const fake = await fakeLoop(echo)
    const { c } = fake.accept()
    await fake.loop.stop()
    expect(c.send('x')).toBe(false)
    c.close()
    c.pause()
    c.resume()
    c.shutdownWrite()
    c.idleTime = 50
    fake.loop.queueInLoop(() => {})
    fake.loop.runAfter(1, () => {})
    expect(fake.loop.broadcast('x')).toEqual({ sent: 0, dropped: 0, closed: 0 })
    await expect(fake.loop.connect(':1', { handler: echo })).rejects.toMatchObject({ code: ErrorCode.CLOSED })
    await fake.loop.stop()
    expect(fake.poller.violations).toEqual([])
  })
})

describe('connect', () => {
  const seenBy = (calls: string[]): Handler => ({
    onConnect: () => void calls.push('connect'),
    onMessage: (_c, _ctx, data) => void calls.push(`message ${data}`),
    onClose: (_c, reason) => void calls.push(`close ${reason.code}`),
  })

  it('resolves after onConnect, with a connection that works', async () => {
    const calls: string[] = []
    const fake = await fakeLoop(echo)
    const connecting = fake.loop.connect('127.0.0.1:1', { handler: seenBy(calls) })
    await settle()
    fake.poller.finishConnect(fake.poller.all[0]!)
    expect(calls).toEqual(['connect'])
    const c = await connecting
    c.send('hello')
    await settle()
    expect(fake.poller.all[0]!.out.toString()).toBe('hello')
    fake.poller.all[0]!.read('back')
    fake.poller.all[0]!.end()
    await settle()
    expect(calls).toEqual(['connect', 'message back', 'close peer-closed'])
    expectClean(fake)
  })

  it('rejects with ERR_RINGLOOP_CONNECT and the system’s error as its cause, without any callback', async () => {
    const calls: string[] = []
    const fake = await fakeLoop(echo)
    const connecting = fake.loop.connect('127.0.0.1:1', { handler: seenBy(calls) })
    const caught = connecting.catch((error: unknown) => error)
    await settle()
    fake.poller.failConnect(fake.poller.all[0]!)
    await settle()
    expect(await caught).toMatchObject({ code: ErrorCode.CONNECT, cause: { code: 'ECONNREFUSED' } })
    expect(calls).toEqual([])
    expectClean(fake)
    expect(fake.loop.stats().connections).toBe(0)
  })

  it('that fails calls nothing of the protocol', async () => {
    const called = vi.fn()
    class Watching extends RawProtocol {
      onConnect = called
      onEnd = called
      onClosing = called
      onClose = called
    }
    for (const end of ['error', 'stop'] as const) {
      const fake = await fakeLoop(echo)
      const options = { handler: echo, protocol: new Watching() }
      const caught = fake.loop.connect('127.0.0.1:1', options).catch((error: unknown) => error)
      await settle()
      if (end === 'error') fake.poller.failConnect(fake.poller.all[0]!)
      else await fake.loop.stop()
      expect(await caught).toMatchObject({ code: ErrorCode.CONNECT })
      expect(called).not.toHaveBeenCalled()
    }
  })

  it('rejects after its timeout', async () => {
    const fake = await fakeLoop(echo)
    const connecting = fake.loop.connect('127.0.0.1:1', { handler: echo, timeout: 50 })
    await expect(connecting).rejects.toMatchObject({ code: ErrorCode.CONNECT })
    await settle()
    expectClean(fake)
  })

  it('rejects when the loop stops meanwhile', async () => {
    for (const drain of [0, 1000]) {
      const fake = await fakeLoop(echo)
      const caught = fake.loop.connect('127.0.0.1:1', { handler: echo }).catch((error: unknown) => error)
      await settle()
      await fake.loop.stop({ drain })
      expect(await caught).toMatchObject({ code: ErrorCode.CONNECT })
      expectClean(fake)
    }
  })

  it('with a handshake: onConnect and the promise wait for established, a close before rejects', async () => {
    class Greeting extends RawProtocol {
      readonly handshake = true
      override unPacket(
        c: AnyConnection,
        buffer: Parameters<RawProtocol['unPacket']>[1],
      ): ReturnType<RawProtocol['unPacket']> {
        const packet = super.unPacket(c, buffer)
        if (packet === undefined || c.session === 'ready') return packet
        c.session = 'ready'
        if (String(packet.data) !== 'HELLO') throw new ProtocolError('no greeting')
        c.established()
        c.established()
        return undefined
      }
    }
    for (const good of [true, false]) {
      const calls: string[] = []
      const fake = await fakeLoop(echo)
      const connecting = fake.loop.connect('127.0.0.1:1', {
        handler: seenBy(calls),
        protocol: new Greeting(),
      })
      const caught = connecting.catch((error: unknown) => error)
      await settle()
      const socket = fake.poller.all[0]!
      fake.poller.finishConnect(socket)
      await settle()
      expect(calls).toEqual([])
      socket.read(good ? 'HELLO' : 'GO AWAY')
      await settle()
      if (good) {
        expect(calls).toEqual(['connect'])
        ;(await connecting).close()
        await settle()
        expect(calls).toEqual(['connect', 'close closed'])
      } else {
        expect(await caught).toMatchObject({ code: ErrorCode.CONNECT })
        expect(calls).toEqual([])
      }
      expectClean(fake)
      expect(fake.loop.stats().connections).toBe(0)
    }
  })
})

describe('random schedules', () => {
  type Step =
    | { kind: 'read'; sizes: number[] }
    | { kind: 'part'; bytes: number }
    | { kind: 'room'; bytes: number }
    | { kind: 'send'; bytes: number }
    | {
        kind:
          | 'drain'
          | 'pause'
          | 'resume'
          | 'answer'
          | 'tick'
          | 'end'
          | 'reset'
          | 'shutdown'
          | 'close'
          | 'fail'
      }

  const step: fc.Arbitrary<Step> = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('read' as const),
        sizes: fc.array(fc.nat({ max: 90 }), { maxLength: 5 }),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({ kind: fc.constant('part' as const), bytes: fc.integer({ min: 1, max: 30 }) }),
    },
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('room' as const),
        bytes: fc.oneof(fc.nat({ max: 20 }), fc.constant(1 << 30)),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('send' as const),
        bytes: fc.oneof(fc.nat({ max: 100 }), fc.integer({ min: 32_760, max: 40_000 })),
      }),
    },
    {
      weight: 6,
      arbitrary: fc.constantFrom(...(['drain', 'answer', 'tick'] as const)).map((kind) => ({ kind })),
    },
    { weight: 2, arbitrary: fc.constantFrom(...(['pause', 'resume'] as const)).map((kind) => ({ kind })) },
    {
      weight: 1,
      arbitrary: fc
        .constantFrom(...(['end', 'reset', 'shutdown', 'close', 'fail'] as const))
        .map((kind) => ({ kind })),
    },
  )

  async function run(steps: readonly Step[], slabBytes: number): Promise<void> {
    const calls: string[] = []
    const expected: Buffer[] = []
    const waiting: (() => void)[] = []
    const sent: number[] = []
    let sends = 0
    let packets = 0
    let connection: AnyConnection | undefined
    /** Notes the bytes of an answer when they are given to the connection, in the order in which they must go out. */
    class Noting extends LengthProtocol {
      override packet(c: AnyConnection, out: Uint8Array | string): Uint8Array[] {
        const packed = super.packet(c, out)
        expected.push(Buffer.concat(packed))
        return packed
      }
    }
    const handler: Handler<number> = {
      onConnect: (c) => {
        connection = c as AnyConnection
        calls.push('connect')
      },
      onMessage: (_c, _ctx, data) => {
        calls.push('message')
        packets++
        if (data.length % 3 === 0) return data
        if (data.length % 3 === 1) return
        return new Promise<Buffer>((resolve) => waiting.push(() => resolve(data)))
      },
      onDrain: () => void calls.push('drain'),
      onClose: () => void calls.push('close'),
    }
    const fake = await fakeLoop(handler, {
      protocol: new Noting(),
      highWaterMark: 300,
      lowWaterMark: 100,
      slabBytes,
      records: 2,
    })
    const { socket, c } = fake.accept()
    let room = 1 << 30
    socket.room = (offered) => {
      const taken = Math.min(room, offered)
      room -= taken
      return taken
    }
    let pending = Buffer.alloc(0)
    let hurt = false
    for (const each of steps) {
      switch (each.kind) {
        case 'read':
          pending = Buffer.concat([pending, frames(...each.sizes.map((size) => Buffer.alloc(size, size)))])
          if (pending.length > 0 && socket.read(pending)) pending = Buffer.alloc(0)
          break
        case 'part': {
          const part = pending.subarray(0, each.bytes)
          if (part.length > 0 && socket.read(part)) pending = pending.subarray(part.length)
          break
        }
        case 'room':
          room = each.bytes
          break
        case 'send':
          sends++
          c.send(Buffer.alloc(each.bytes, 7), () => sent.push(1))
          break
        case 'drain':
          if (room > 0) socket.drain()
          break
        case 'pause':
          c.pause()
          break
        case 'resume':
          c.resume()
          break
        case 'answer':
          waiting.shift()?.()
          break
        case 'tick':
          await settle()
          break
        case 'end':
          socket.end()
          break
        case 'reset':
          hurt = true
          socket.reset()
          break
        case 'shutdown':
          c.shutdownWrite()
          break
        case 'close':
          c.close()
          break
        case 'fail':
          hurt = true
          if (socket.closed === undefined) socket.room = () => EPIPE
      }
    }
    // The peer lives on, takes everything and ends.
    room = 1 << 30
    c.resume()
    for (let i = 0; i < 400 && socket.closed === undefined; i++) {
      await settle()
      room = 1 << 30
      socket.drain()
      waiting.shift()?.()
      socket.readError()
      if (pending.length > 0 && socket.read(pending)) pending = Buffer.alloc(0)
      else if (pending.length === 0 && waiting.length === 0) socket.end()
    }
    await settle()
    expect(socket.closed, 'it is closed in the end').toBeDefined()
    const all = Buffer.concat(expected)
    expect(
      socket.out.equals(all.subarray(0, socket.out.length)),
      'what went out is a beginning of what was sent',
    ).toBe(true)
    if (!hurt) expect(socket.out.length, 'everything went out').toBe(all.length)
    expect(sent, 'onSent of every send').toHaveLength(sends)
    expect(calls.filter((call) => call === 'close')).toHaveLength(1)
    expect(calls.at(-1)).toBe('close')
    expect(calls[0]).toBe('connect')
    expect(connection).toBe(c)
    expectClean(fake)
    const stats = fake.loop.stats()
    expect(stats.messagesIn).toBe(packets)
    expect(stats.bytesOut).toBe(socket.out.length)
    expect(stats.connections).toBe(0)
    expect(stats.writeBufferBytes).toBe(0)
  }

  it('lose, repeat and leak nothing', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 40 }),
        fc.constantFrom(33_000, 40_000, 262_144),
        async (steps, slab) => run(steps, slab),
      ),
      { numRuns: 400 },
    )
  })
})

describe('several connections in one batch', () => {
  it('one that is closed by another’s handler is not handed its bytes of the same batch', async () => {
    const seen: string[] = []
    const peers: { socket: FakeSocket; c: AnyConnection }[] = []
    const fake = await fakeLoop({
      onMessage: (_c, _ctx, data) => {
        seen.push(String(data))
        if (String(data) === 'kill') peers[1]!.c.close()
      },
    })
    peers.push(fake.accept(), fake.accept())
    fake.poller.batch((sink) => {
      const [kill, hello] = [Buffer.from('kill'), Buffer.from('hello')]
      sink.handleRead(peers[0]!.socket.slot, kill, 0, kill.length)
      sink.handleRead(peers[1]!.socket.slot, hello, 0, hello.length)
    })
    expect(seen).toEqual(['kill'])
  })

  it('broadcast reaches all, drops for the slow one or closes it, and leaves out the filtered', async () => {
    const closes: string[] = []
    const fake = await fakeLoop(
      { ...echo, onClose: (_c, reason) => void closes.push(reason.code) },
      { highWaterMark: 10 },
    )
    const [a, b, slow] = [fake.accept(), fake.accept(), fake.accept()]
    slow.socket.room = () => 0
    slow.c.send(Buffer.alloc(20))
    await settle()
    expect(fake.loop.broadcast('news')).toEqual({ sent: 2, dropped: 1, closed: 0 })
    expect(fake.loop.broadcast('only a', { filter: (c) => c === (a.c as unknown) })).toEqual({
      sent: 1,
      dropped: 0,
      closed: 0,
    })
    await settle()
    expect(a.socket.out.toString()).toBe('newsonly a')
    expect(b.socket.out.toString()).toBe('news')
    expect(fake.loop.broadcast('x', { slow: 'close' })).toEqual({ sent: 2, dropped: 1, closed: 1 })
    slow.socket.reset()
    await settle()
    expect(closes).toEqual(['slow-consumer'])
    expect(fake.loop.stats().slowConsumerDrops).toBe(2)
  })
})

describe('the optional parts of a protocol', () => {
  class Odd extends LengthProtocol {
    readonly calls: string[] = []
    refuses: string | undefined = undefined
    /** Calls are noted; the one that `refuses` names throws. */
    #note(name: string): void {
      this.calls.push(name)
      if (this.refuses === name) throw new Error(`${name} refuses`)
    }
    unanswered(_c: AnyConnection, ctx: number): void {
      this.#note(`unanswered ${ctx}`)
    }
    onEnd(): void {
      this.#note('onEnd')
    }
    onClosing(_c: AnyConnection, reason: CloseReason): void {
      this.#note(`onClosing ${reason.code}`)
    }
    onClose(): void {
      this.#note('onClose')
    }
  }

  it('unanswered comes for a packet without an answer, given at once or by a promise', async () => {
    const protocol = new Odd()
    const answers = [undefined, Promise.resolve(undefined), 'answer', Promise.resolve('late')]
    const fake = await fakeLoop({ onMessage: () => answers.shift() }, { protocol })
    const { socket } = fake.accept()
    socket.read(frames('a', 'b', 'c', 'd'))
    await settle()
    expect(protocol.calls).toEqual(['unanswered 1', 'unanswered 2'])
    expect(bodies(socket.out).map(String)).toEqual(['answer', 'late'])
  })

  for (const [name, code] of [
    ['unanswered 1', 'handler-error'],
    ['onEnd', 'handler-error'],
    ['onClosing peer-closed', 'peer-closed'],
    ['onClose', 'peer-closed'],
  ] as const) {
    it(`a throw in ${name} is logged, and its connection ends once with ${code}`, async () => {
      const protocol = new Odd()
      protocol.refuses = name
      const onClose = vi.fn()
      const fake = await fakeLoop({ onMessage: async () => undefined, onClose }, { protocol })
      const { socket } = fake.accept()
      socket.read(frames('x'))
      await settle()
      socket.end()
      await settle()
      expect(fake.logger.find('error', `${name} refuses`)).toHaveLength(1)
      expect(onClose).toHaveBeenCalledTimes(1)
      expect(onClose.mock.calls[0]![1].code).toBe(code)
      expect(protocol.calls.filter((call) => call === 'onClose')).toHaveLength(1)
      expectClean(fake)
    })
  }

  it('hold keeps packets back and the connection open, until each is released', async () => {
    const protocol = new LengthProtocol()
    const onClose = vi.fn()
    const fake = await fakeLoop({ ...echo, onClose }, { protocol })
    const { socket, c } = fake.accept()
    c.holdPackets()
    socket.read(frames('held'))
    socket.end()
    await settle()
    expect(socket.out).toHaveLength(0)
    expect(onClose).not.toHaveBeenCalled()
    c.releasePackets()
    await settle()
    expect(bodies(socket.out).map(String)).toEqual(['held'])
    expect(onClose).toHaveBeenCalledTimes(1)
    expectClean(fake)
  })
})

describe('what is read of a connection', () => {
  it('paused, keys and addresses, before and after its end', async () => {
    const fake = await fakeLoop(echo)
    const { c } = fake.accept()
    const { c: other } = fake.accept()
    expect(c.paused).toBe(false)
    c.pause()
    expect(c.paused).toBe(true)
    expect(c.delete('never set')).toBe(false)
    c.set('key', 1)
    expect([c.delete('key'), c.delete('key'), c.get('key')]).toEqual([true, false, undefined])
    expect([c.localAddr, c.localAddr]).toEqual(['10.0.0.2:80', '10.0.0.2:80'])
    c.close()
    other.close()
    await settle()
    expect([c.localAddr, c.peerAddr]).toEqual(['10.0.0.2:80', '10.0.0.1:1000'])
    expect([other.localAddr, other.peerAddr]).toEqual(['', '10.0.0.1:1001'])
    expectClean(fake)
  })
})

describe('a socket that breaks', () => {
  it('after the peer’s end, with bytes unsent: the callback gets an error, and it closes', async () => {
    const onClose = vi.fn()
    const onSent = vi.fn()
    const fake = await fakeLoop({ onMessage: () => new Promise(() => {}), onClose })
    const { socket, c } = fake.accept()
    socket.read('question')
    socket.end()
    socket.room = () => 10
    c.send(Buffer.alloc(1000), onSent)
    await settle()
    c.close()
    await settle()
    expect(onClose).not.toHaveBeenCalled()
    socket.reset()
    await settle()
    expect(onSent).toHaveBeenCalledExactlyOnceWith(expect.any(Error))
    expect(onClose).toHaveBeenCalledTimes(1)
    expectClean(fake)
  })

  it('so that reading cannot be turned on again is closed with that error', async () => {
    const onClose = vi.fn()
    const fake = await fakeLoop({ ...echo, onClose })
    const { c } = fake.accept()
    c.pause()
    vi.spyOn(fake.poller, 'setReading').mockReturnValue(ECONNRESET)
    c.resume()
    await settle()
    expect(onClose).toHaveBeenCalledExactlyOnceWith(c, expect.objectContaining({ code: 'network-error' }))
    expectClean(fake)
  })
})

describe('timers and tasks of the loop', () => {
  it('that throw are logged and counted, and the loop goes on', async () => {
    const fake = await fakeLoop(echo)
    fake.loop.queueInLoop(() => {
      throw new Error('a bad task')
    })
    await new Promise<void>((resolve) => {
      fake.loop.runAfter(1, () => {
        resolve()
        throw new Error('a bad timer')
      })
    })
    await settle()
    expect(fake.logger.find('error', 'a bad task')).toHaveLength(1)
    expect(fake.logger.find('error', 'a bad timer')).toHaveLength(1)
    expect(fake.loop.stats().handlerErrors).toBe(2)
    const { socket } = fake.accept()
    socket.read('on')
    expect(socket.out.toString()).toBe('on')
  })

  it('an onStop that rejects is logged, and the stop ends', async () => {
    const fake = await fakeLoop({ ...echo, onStop: () => Promise.reject(new Error('a bad onStop')) })
    fake.accept()
    await fake.loop.stop()
    expect(fake.logger.find('error', 'a bad onStop')).toHaveLength(1)
    expectClean(fake)
  })
})
