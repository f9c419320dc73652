/** What is no bytes, from a handler or a protocol: an error that says what came, and the end of that connection alone. */
import { describe, expect, it } from 'vitest'
import type { Connection, ProtocolConnection } from '../src/connection.js'
import { type CloseReason, ProtocolError } from '../src/errors.js'
import { LineProtocol } from '../src/protocol/line.js'
import type { Packed } from '../src/protocol/protocol.js'
import { RawProtocol } from '../src/protocol/raw.js'
import { fakeLoop, settle } from './support/fake-loop.js'

const WRONG: readonly [string, unknown, RegExp][] = [
  ['a number', 5, /number/],
  ['true', true, /boolean/],
  ['null', null, /null/],
  ['an ArrayBuffer', new ArrayBuffer(8), /ArrayBuffer/],
  ['a DataView', new DataView(new ArrayBuffer(8)), /DataView/],
  ['a Uint16Array', new Uint16Array(4), /Uint16Array/],
  ['an object', { length: 3 }, /object/],
  ['a list with a number', [Buffer.from('ok'), 7], /number|object/],
  ['a symbol', Symbol('x'), /symbol/],
  ['a function', () => 1, /function/],
  ['a bigint', 10n, /bigint/],
]

describe.each([
  ['RawProtocol', () => new RawProtocol()],
  ['LineProtocol', () => new LineProtocol()],
] as const)('under %s', (_name, protocol) => {
  it.each(WRONG)('an answer that is %s ends its connection', async (_what, value, says) => {
    const reasons: CloseReason[] = []
    const fake = await fakeLoop(
      {
        onMessage: (_c, _ctx, data) => (String(data).startsWith('good') ? data : (value as never)),
        onClose: (_c, reason) => void reasons.push(reason),
      },
      { protocol: protocol() },
    )
    const bystander = fake.accept()
    const { socket } = fake.accept()
    socket.read('bad\n')
    bystander.socket.read('good\n')
    await settle()
    expect(reasons).toMatchObject([{ code: 'handler-error', message: expect.stringMatching(says) }])
    expect(bystander.socket.out.toString()).toMatch(/^good\n?$/)
    expect(socket.out).toHaveLength(0)
    expect(fake.poller.violations).toEqual([])
  })

  it.each(WRONG)('an answer by a promise that is %s ends its connection', async (_what, value, says) => {
    const reasons: CloseReason[] = []
    const fake = await fakeLoop(
      { onMessage: async () => value as never, onClose: (_c, reason) => void reasons.push(reason) },
      { protocol: protocol() },
    )
    fake.accept().socket.read('x\n')
    await settle()
    expect(reasons).toMatchObject([{ code: 'handler-error', message: expect.stringMatching(says) }])
  })

  it.each(WRONG)('send() of %s throws to its caller, and sends nothing', async (_what, value) => {
    const fake = await fakeLoop({ onMessage() {} }, { protocol: protocol() })
    const { socket, c } = fake.accept()
    expect(() => c.send(value as never)).toThrow(expect.objectContaining({ code: 'ERR_RINGLOOP_PACKET' }))
    c.send('fine')
    await settle()
    expect(socket.out.toString()).toMatch(/^fine\n?$/)
  })
})

describe('a protocol', () => {
  it.each([...WRONG, ['a string', 'text', /string/] as const])(
    'that packs %s ends the connection, and nothing of the packet is sent',
    async (_what, value, says) => {
      class Odd extends RawProtocol {
        override packetInto(): number {
          return -1
        }
        override packet(): Packed {
          return Array.isArray(value) ? (value as never) : ([Buffer.from('begun'), value] as never)
        }
      }
      const reasons: CloseReason[] = []
      const fake = await fakeLoop(
        { onMessage: (_c, _ctx, data) => data, onClose: (_c, reason) => void reasons.push(reason) },
        { protocol: new Odd() },
      )
      const { socket } = fake.accept()
      socket.read('x')
      await settle()
      expect(reasons).toMatchObject([{ code: 'handler-error', message: expect.stringMatching(says) }])
      expect(socket.out).toHaveLength(0)
    },
  )

  it.each([undefined, Number.NaN, 1.5, 2 ** 31, 1e9, '4', null, -2, true])(
    'whose packetInto returns %s ends the connection',
    async (wrote) => {
      class Odd extends RawProtocol {
        override packetInto(): number {
          return wrote as number
        }
      }
      const reasons: CloseReason[] = []
      const fake = await fakeLoop(
        { onMessage: () => 'answer', onClose: (_c, reason) => void reasons.push(reason) },
        { protocol: new Odd() },
      )
      const { socket } = fake.accept()
      socket.read('x')
      await settle()
      expect(reasons).toMatchObject([
        { code: 'handler-error', message: expect.stringContaining('packetInto') },
      ])
      expect(socket.out).toHaveLength(0)
    },
  )

  it.each([...WRONG, ['a string', 'text', /string/] as const])(
    'sendRaw of %s throws',
    async (_what, value) => {
      const fake = await fakeLoop({ onMessage() {} })
      const c = fake.accept().c as ProtocolConnection
      expect(() => c.sendRaw(value as never)).toThrow(
        expect.objectContaining({ code: 'ERR_RINGLOOP_PACKET' }),
      )
    },
  )

  it('a fault in unPacket is reported as one', async () => {
    const reasons: CloseReason[] = []
    class Faulty extends RawProtocol {
      override unPacket(): never {
        throw new TypeError('oops')
      }
    }
    const fake = await fakeLoop(
      { onMessage() {}, onClose: (_c, reason) => void reasons.push(reason) },
      { protocol: new Faulty() },
    )
    fake.accept().socket.read('x')
    await settle()
    expect(reasons).toMatchObject([{ code: 'handler-error', message: 'unPacket failed: oops' }])
  })
})

describe('close', () => {
  async function closedWith(
    argument: unknown,
  ): Promise<{ reason: CloseReason | undefined; thrown: unknown; c: Connection }> {
    const reasons: CloseReason[] = []
    let thrown: unknown
    const fake = await fakeLoop({ onMessage() {}, onClose: (_c, reason) => void reasons.push(reason) })
    const { c } = fake.accept()
    const before = fake.loop.stats()
    try {
      c.close(argument as never)
    } catch (error) {
      thrown = error
    }
    await settle()
    expect(fake.loop.stats().idleMs).toBe(before.idleMs)
    return { reason: reasons[0], thrown, c }
  }

  it.each(['bye', {}, { code: 'bye', message: '' }, 5, null, []])(
    'throws for %j, and the connection stays',
    async (argument) => {
      const { reason, thrown, c } = await closedWith(argument)
      expect(thrown).toMatchObject({ code: 'ERR_RINGLOOP_OPTION' })
      expect(reason).toBeUndefined()
      expect(c.connected).toBe(true)
    },
  )

  it('makes a reason of an Error', async () => {
    const error = new Error('no more')
    expect((await closedWith(error)).reason).toEqual({ code: 'handler-error', message: 'no more', error })
    const broken = new ProtocolError('bad frame')
    expect((await closedWith(broken)).reason).toEqual({
      code: 'protocol-error',
      message: 'bad frame',
      error: broken,
    })
  })

  it('takes a code, a reason, or nothing', async () => {
    expect((await closedWith('idle')).reason).toEqual({ code: 'idle', message: 'idle' })
    expect((await closedWith({ code: 'idle', message: 'slow' })).reason).toEqual({
      code: 'idle',
      message: 'slow',
    })
    expect((await closedWith(undefined)).reason?.code).toBe('closed')
  })
})

describe('what cannot be formatted', () => {
  const revoked = (): unknown => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    return proxy
  }
  const odd: readonly [string, () => unknown][] = [
    ['an Error whose message is a symbol', () => Object.assign(new Error(), { message: Symbol('x') })],
    ['a revoked proxy', revoked],
    ['an object without a prototype', () => Object.create(null)],
    [
      'a proxy that throws',
      () =>
        new Proxy(
          {},
          {
            get: () => {
              throw new Error('trap')
            },
            getPrototypeOf: () => {
              throw new Error('trap')
            },
          },
        ),
    ],
    ['undefined', () => undefined],
  ]
  const places = ['onConnect', 'onMessage', 'onEnd', 'onSent', 'async onMessage'] as const

  it.each(odd.flatMap(([name, make]) => places.map((place) => [name, place, make] as const)))(
    '%s thrown from %s ends that connection alone',
    async (_name, place, make) => {
      const codes: string[] = []
      const fail = (at: string): void => {
        if (at === place) throw make()
      }
      const fake = await fakeLoop({
        onConnect: () => fail('onConnect'),
        onMessage: (c, _ctx, data) => {
          fail('onMessage')
          c.send('x', () => fail('onSent'))
          return place === 'async onMessage' ? Promise.reject(make()) : data
        },
        onEnd: () => fail('onEnd'),
        onClose: (_c, { code }) => void codes.push(code),
      })
      const { socket } = fake.accept()
      socket.read('x')
      await settle()
      socket.end()
      await settle()
      expect(codes).toEqual(['handler-error'])
      expect(fake.poller.violations).toEqual([])
    },
  )
})
