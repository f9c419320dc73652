/** One side of a connection ends: `onEnd`, `allowHalfOpen`, `end`, and the pipe between two connections. */
import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { pipe } from '../src/connection/pipe.js'
import type { Connection } from '../src/connection.js'
import { errno } from '../src/system-error.js'
import type { FakeSocket } from './fake-poller.js'
import { type FakeLoop, fakeLoop, settle } from './support/fake-loop.js'
import { bodies, frames, LengthProtocol } from './support/length-protocol.js'

describe('onEnd', () => {
  it('comes after the last packet and before onClose', async () => {
    const calls: string[] = []
    const fake = await fakeLoop(
      {
        onMessage: (_c, _ctx, data) => void calls.push(String(data)),
        onEnd: () => void calls.push('end'),
        onClose: (_c, { code }) => void calls.push(code),
      },
      { protocol: new LengthProtocol() },
    )
    const { socket } = fake.accept()
    socket.read(frames('one', 'two'))
    socket.end()
    await settle()
    expect(calls).toEqual(['one', 'two', 'end', 'peer-closed'])
  })

  it('waits for packets that wait for an answer, and for the answers', async () => {
    const calls: string[] = []
    let answer!: (text: string) => void
    const fake = await fakeLoop(
      {
        onMessage: (_c, _ctx, data) => {
          calls.push(String(data))
          return new Promise<string>((resolve) => (answer = resolve))
        },
        onEnd: () => void calls.push('end'),
      },
      { protocol: new LengthProtocol() },
    )
    const { socket } = fake.accept()
    socket.read(frames('one', 'two'))
    socket.end()
    await settle()
    expect(calls).toEqual(['one'])
    answer('1')
    await settle()
    expect(calls).toEqual(['one', 'two'])
    answer('2')
    await settle()
    expect(calls).toEqual(['one', 'two', 'end'])
    expect(bodies(socket.out).map(String)).toEqual(['1', '2'])
    expect(socket.closed).toBeDefined()
  })

  it('may answer late: the connection closes when its promise has settled', async () => {
    let go!: () => void
    const fake = await fakeLoop({
      onMessage() {},
      onEnd: async (c) => {
        await new Promise<void>((resolve) => (go = resolve))
        c.send('goodbye')
      },
    })
    const { socket } = fake.accept()
    socket.end()
    await settle()
    expect(socket.closed).toBeUndefined()
    go()
    await settle()
    expect(socket.out.toString()).toBe('goodbye')
    expect(socket.closed).toBeDefined()
  })

  it('closes its connection when it throws, and says so', async () => {
    const reasons: string[] = []
    const fake = await fakeLoop({
      onMessage() {},
      onEnd: () => {
        throw new Error('no')
      },
      onClose: (_c, { message }) => void reasons.push(message),
    })
    fake.accept().socket.end()
    await settle()
    expect(reasons).toEqual(['onEnd failed: no'])
  })

  it('does not come for a connection that breaks before its packets are handed over', async () => {
    const calls: string[] = []
    const fake = await fakeLoop({
      onMessage() {},
      onEnd: () => void calls.push('end'),
      onClose: (_c, { code }) => void calls.push(code),
    })
    const { socket, c } = fake.accept()
    c.close()
    socket.end()
    await settle()
    expect(calls).toEqual(['closed'])
  })
})

describe('allowHalfOpen', () => {
  it('leaves a connection open for sending until this side ends too', async () => {
    const closes: string[] = []
    const fake = await fakeLoop(
      { onMessage() {}, onClose: (_c, { code }) => void closes.push(code) },
      { allowHalfOpen: true },
    )
    const { socket, c } = fake.accept()
    socket.end()
    await settle()
    expect(c.connected).toBe(true)
    expect(c.send('still ')).toBe(true)
    c.end('here')
    await settle()
    expect(socket.out.toString()).toBe('still here')
    expect(closes).toEqual(['peer-closed'])
  })

  it('a reset ends a connection of which only our side is open', async () => {
    const closes: string[] = []
    const fake = await fakeLoop(
      { onMessage() {}, onClose: (_c, { code }) => void closes.push(code) },
      { allowHalfOpen: true },
    )
    const { socket } = fake.accept()
    socket.end()
    await settle()
    socket.reset()
    await settle()
    expect(closes).toEqual(['peer-closed'])
  })

  it('end() without a peer that ends leaves the connection open for reading', async () => {
    const seen: string[] = []
    const fake = await fakeLoop({ onMessage: (_c, _ctx, data) => void seen.push(String(data)) })
    const { socket, c } = fake.accept()
    expect(c.end('last')).toBe(true)
    expect(c.send('too late')).toBe(false)
    await settle()
    expect(socket.shut).toBe(true)
    socket.read('more')
    expect(seen).toEqual(['more'])
    socket.end()
    await settle()
    expect(socket.closed).toBeDefined()
  })

  it('end() calls its onSent when the kernel has the bytes', async () => {
    const sent: unknown[] = []
    const fake = await fakeLoop({ onMessage() {} })
    const { socket, c } = fake.accept()
    c.end('last', (error) => sent.push(error))
    await settle()
    expect(sent).toEqual([undefined])
    expect(socket.out.toString()).toBe('last')
  })
})

describe('pipe', () => {
  interface Piped {
    readonly fake: FakeLoop
    readonly left: FakeSocket
    readonly right: FakeSocket
    readonly a: Connection<never>
    readonly b: Connection<never>
    readonly closes: string[]
  }

  async function pair(options: { highWaterMark?: number; lowWaterMark?: number } = {}): Promise<Piped> {
    const closes: string[] = []
    const fake = await fakeLoop(
      {
        onMessage: () => {
          throw new Error('a piped connection hands over no packet')
        },
        onClose: (_c, { code }) => void closes.push(code),
      },
      options,
    )
    const { socket: left, c: a } = fake.accept()
    const { socket: right, c: b } = fake.accept()
    return { fake, left, right, a, b, closes }
  }

  it('moves bytes both ways', async () => {
    const { left, right, a, b } = await pair()
    void pipe(a, b)
    left.read('to the right')
    right.read('to the left')
    await settle()
    expect(right.out.toString()).toBe('to the right')
    expect(left.out.toString()).toBe('to the left')
  })

  it('passes on the end of one side, and closes both when both have ended', async () => {
    const { left, right, a, b, closes } = await pair()
    let done = false
    void pipe(a, b).then(() => (done = true))
    left.read('question')
    left.end()
    await settle()
    expect(right.shut).toBe(true)
    expect(left.closed).toBeUndefined()
    right.read('answer after the end')
    right.end()
    await settle()
    expect(left.out.toString()).toBe('answer after the end')
    expect([left.closed, right.closed].every((closed) => closed !== undefined)).toBe(true)
    expect(closes).toEqual(['peer-closed', 'peer-closed'])
    expect(done).toBe(true)
  })

  it('does not read a side whose other side does not take it, and loses nothing', async () => {
    const { left, right, a, b, fake } = await pair({ highWaterMark: 1000, lowWaterMark: 100 })
    void pipe(a, b)
    await settle()
    let room = 0
    right.room = (offered) => {
      const taken = Math.min(room, offered)
      room -= taken
      return taken
    }
    const sent = randomBytes(5000)
    let read = 0
    while (left.reading && read < sent.length) {
      left.read(sent.subarray(read, read + 500))
      read += 500
      await settle()
    }
    expect(read).toBeLessThan(2500)
    expect(b.writeBufferLength).toBeGreaterThan(1000)
    room = Number.POSITIVE_INFINITY
    right.drain()
    await settle()
    expect(left.reading).toBe(true)
    left.read(sent.subarray(read))
    left.end()
    await settle()
    expect(right.out.equals(sent)).toBe(true)
    right.end()
    await settle()
    expect(fake.ringsOut()).toBe(0)
    expect(fake.loop.table.traffic.backlogBytes).toBe(0)
  })

  it('hands on first what waited before, in order', async () => {
    const fake = await fakeLoop(
      { onConnect: () => new Promise<void>((resolve) => setImmediate(resolve)), onMessage() {} },
      {},
    )
    const { socket: left, c: a } = fake.accept()
    const { socket: right, c: b } = fake.accept()
    left.read('first ')
    void pipe(a, b)
    left.read('second')
    left.end()
    await settle()
    expect(right.out.toString()).toBe('first second')
    expect(right.shut).toBe(true)
  })

  it('a broken side takes the other with it', async () => {
    const { left, right, a, b, closes } = await pair()
    const piped = pipe(a, b)
    await settle()
    left.reset()
    await settle()
    await piped
    expect(right.closed).toBeDefined()
    expect(closes.sort()).toEqual(['closed', 'network-error'])
  })

  it('is refused for one connection, for closed ones, and for what is no connection', async () => {
    const { a, b } = await pair()
    expect(() => pipe(a, a)).toThrow(/two connections/)
    expect(() => pipe(a, {} as never)).toThrow(/two connections/)
    void pipe(a, b)
    expect(() => pipe(a, b)).toThrow(expect.objectContaining({ code: 'ERR_RINGLOOP_STATE' }))
  })
})

describe('what a break in the middle of a write does to others', () => {
  it('tells nobody before the flush is over: each peer gets its bytes once, in order', async () => {
    let other: Connection | undefined
    const fake = await fakeLoop(
      { onMessage: () => new Promise(() => {}), onClose: () => void other?.send('2') },
      { allowHalfOpen: true },
    )
    const told = fake.accept()
    const broken = fake.accept()
    const last = fake.accept()
    other = told.c
    broken.socket.read('x')
    broken.socket.end()
    broken.socket.room = () => -32
    told.c.send('1')
    broken.c.send('a')
    await settle()
    last.c.send('C')
    told.c.send('3')
    await settle()
    expect(told.socket.out.toString()).toBe('123')
    expect(last.socket.out.toString()).toBe('C')
    expect(fake.poller.violations).toEqual([])
  })

  it('goes on with the packets that are being handed over', async () => {
    const seen: string[] = []
    let go!: () => void
    const fake = await fakeLoop(
      {
        onMessage: (c, _ctx, data) => {
          seen.push(String(data))
          if (String(data) === 'a') return new Promise<void>((resolve) => (go = resolve))
          if (String(data) === 'b') c.send(Buffer.alloc(40_000))
          return undefined
        },
        onEnd: () => void seen.push('end'),
        onClose: (_c, { code }) => void seen.push(code),
      },
      { protocol: new LengthProtocol() },
    )
    const { socket } = fake.accept()
    socket.read(frames('a', 'b', 'c'))
    socket.end()
    socket.room = () => -32
    go()
    await settle()
    expect(seen).toEqual(['a', 'b', 'c', 'network-error'])
  })
})

describe('pipe, called late or waited for', () => {
  it('passes on an end that the handler was told before', async () => {
    const fake = await fakeLoop({ onMessage() {} }, { allowHalfOpen: true })
    const left = fake.accept()
    const right = fake.accept()
    left.socket.end()
    await settle()
    void pipe(left.c, right.c)
    await settle()
    expect(right.socket.shut).toBe(true)
  })

  it('passes on the end while the onConnect or onMessage that waits for it is pending', async () => {
    let right: FakeSocket | undefined
    const fake = await fakeLoop({
      onMessage: async (c) => {
        const other = fake.accept()
        right = other.socket
        await pipe(c, other.c)
      },
    })
    const { socket } = fake.accept()
    socket.read('go')
    await settle()
    socket.read('bytes')
    socket.end()
    await settle()
    expect(right?.out.toString()).toBe('bytes')
    expect(right?.shut).toBe(true)
    right?.end()
    await settle()
    expect(socket.closed).toBeDefined()
  })

  it('delivers what was read when the loop stops with drain', async () => {
    const fake = await fakeLoop({ onMessage() {} }, { highWaterMark: 100, lowWaterMark: 10 })
    const left = fake.accept()
    const right = fake.accept()
    void pipe(left.c, right.c)
    await settle()
    left.socket.room = () => 0
    right.socket.read(Buffer.alloc(200, '1'))
    await settle()
    const stopped = fake.loop.stop({ drain: 10_000 })
    await settle()
    left.socket.room = (offered) => offered
    left.socket.drain()
    await stopped
    expect(left.socket.out).toHaveLength(200)
  })
})

describe('a reset while the handler has paused', () => {
  async function paused(config: object = {}) {
    const codes: string[] = []
    const packets: string[] = []
    const fake = await fakeLoop(
      {
        onMessage(c, _ctx, data) {
          packets.push(String(data))
          c.pause()
        },
        onClose: (_c, { code }) => void codes.push(code),
      },
      { highWaterMark: 100, ...config },
    )
    const { socket, c } = fake.accept()
    return { fake, socket, c, codes, packets }
  }

  it('leaves what came before it to be read', async () => {
    const { fake, socket, c, codes } = await paused()
    socket.read('x')
    expect(socket.reading).toBe(false)
    socket.reset()
    await settle()
    expect(codes).toEqual([])
    c.resume()
    await settle()
    expect(socket.readError()).toBe(true)
    await settle()
    expect(codes).toEqual(['network-error'])
    expect(fake.ringsOut()).toBe(0)
  })

  it('leaves the packets that have come, although an answer could not be sent', async () => {
    const { socket, c, codes, packets } = await paused({ protocol: new LengthProtocol() })
    socket.room = () => errno.EPIPE
    c.send('an answer')
    socket.read(frames('a', 'b'))
    await settle()
    socket.reset()
    await settle()
    expect([packets, codes]).toEqual([['a'], []])
    c.resume()
    await settle()
    expect(packets).toEqual(['a', 'b'])
    c.resume()
    await settle()
    socket.readError()
    await settle()
    expect(codes).toEqual(['network-error'])
  })

  it.each(['before', 'after'])(
    'ends the connection where onDrain is waited for, paused %s it',
    async (when) => {
      const { fake, socket, c, codes } = await paused()
      if (when === 'before') socket.read('x')
      socket.room = () => 0
      expect(c.send(Buffer.alloc(1000))).toBe(false)
      await settle()
      socket.reset()
      await settle()
      if (when === 'after') c.pause()
      await settle()
      expect(codes).toEqual(['network-error'])
      expect(socket.closed).toBeDefined()
      expect(fake.ringsOut()).toBe(0)
    },
  )

  it('ends the connection where the send that found it broken said to wait', async () => {
    const { socket, c, codes } = await paused()
    socket.read('x')
    socket.room = () => errno.EPIPE
    expect(c.send(Buffer.alloc(1000))).toBe(false)
    await settle()
    expect(codes).toEqual(['network-error'])
    expect(socket.closed).toBeDefined()
  })
})
