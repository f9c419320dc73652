import fc from 'fast-check'
import {
  type CloseReason,
  DelimiterProtocol,
  EventLoop,
  FixedLengthProtocol,
  type Handler,
  LengthFieldProtocol,
  LineProtocol,
  type Protocol,
  type ProtocolConnection,
  ProtocolError,
  RingBuffer,
  Server,
} from 'ringloop'
import { afterEach, describe, expect, it } from 'vitest'
import { nativeAvailable } from '../src/loop/poller/native-poller.js'
import { packetsOf } from './support/pieces.js'
import { connectRaw } from './support/raw-client.js'
import { until, within } from './support/wait.js'

function connection(protocol: Protocol): ProtocolConnection {
  const c = { session: undefined } as ProtocolConnection
  protocol.onConnect?.(c)
  return c
}

/** The packets as hex, ended by `error` where the protocol threw and by what is left where not. */
function unpack(protocol: Protocol, bytes: Uint8Array, cuts: readonly number[], capacity = 64): string[] {
  const c = connection(protocol)
  const ring = new RingBuffer(capacity)
  const seen: string[] = []
  try {
    for (const { data } of packetsOf(protocol, c, ring, bytes, cuts)) seen.push(data.toString('hex'))
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error
    return [...seen, 'error']
  }
  return [...seen, `left ${ring.bytes().toString('hex')}`]
}

function pack(protocol: Protocol, out: Uint8Array | string): Buffer {
  const packed = protocol.packet(connection(protocol), out)
  return packed instanceof Uint8Array ? Buffer.from(packed) : Buffer.concat(packed)
}

/** All three ways to pack must agree. */
function packAllWays(protocol: Protocol, out: Uint8Array | string): Buffer {
  const c = connection(protocol)
  const bytes = pack(protocol, out)
  const target = Buffer.alloc(bytes.length * 4 + 64, 0xee)
  const length = protocol.packetInto!(c, out, undefined, target, 5)
  if (length !== -1) expect(target.subarray(5, 5 + length).equals(bytes)).toBe(true)
  expect(protocol.packetInto!(c, out, undefined, target, target.length - bytes.length + 1)).toBe(-1)
  const broadcast = protocol.broadcast!(out)(c)!
  const sent = broadcast instanceof Uint8Array ? Buffer.from(broadcast) : Buffer.concat(broadcast)
  expect(sent.equals(bytes)).toBe(true)
  return bytes
}

function expectSplitInvariance(protocol: Protocol, stream: Uint8Array, cuts: number[]): string[] {
  const whole = unpack(protocol, stream, [])
  expect(unpack(protocol, stream, cuts, 8)).toEqual(whole)
  expect(
    unpack(
      protocol,
      stream,
      Array.from(stream, (_, i) => i),
      8,
    ),
  ).toEqual(whole)
  return whole
}

const payloads = fc.array(fc.uint8Array({ maxLength: 90 }), { maxLength: 8 })
const cuts = fc.array(fc.nat(), { maxLength: 8 })

describe('LengthFieldProtocol', () => {
  const options = fc
    .record({
      offset: fc.nat(5),
      size: fc.integer({ min: 1, max: 8 }),
      adjustment: fc.integer({ min: -6, max: 6 }),
      stripFraction: fc.nat(100),
      endian: fc.constantFrom('big' as const, 'little' as const),
    })
    .map(({ stripFraction, ...rest }) => ({
      ...rest,
      strip: Math.round(((rest.offset + rest.size) * stripFraction) / 100),
      maxPacket: 120,
    }))

  /** Netty's rules, written down once more and slowly. */
  function model(bytes: Uint8Array, o: typeof options extends fc.Arbitrary<infer T> ? T : never): string[] {
    const seen: string[] = []
    let rest = Buffer.from(bytes)
    for (;;) {
      const end = o.offset + o.size
      if (rest.length < end) break
      const field = [...rest.subarray(o.offset, end)]
      if (o.endian === 'little') field.reverse()
      const value = field.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n)
      const frame = value + BigInt(o.adjustment + end)
      if (frame > BigInt(o.maxPacket) || frame < BigInt(end) || frame < BigInt(o.strip))
        return [...seen, 'error']
      if (BigInt(rest.length) < frame) break
      seen.push(rest.subarray(o.strip, Number(frame)).toString('hex'))
      rest = rest.subarray(Number(frame))
    }
    return [...seen, `left ${rest.toString('hex')}`]
  }

  it('cuts any bytes as the model does, however they are split', () => {
    const stream = fc.array(fc.oneof(fc.constantFrom(0, 0, 0, 1, 2, 5, 7), fc.nat(255)), { maxLength: 200 })
    fc.assert(
      fc.property(options, stream, cuts, (o, bytes, at) => {
        const whole = expectSplitInvariance(new LengthFieldProtocol(o), Uint8Array.from(bytes), at)
        expect(whole).toEqual(model(Uint8Array.from(bytes), o))
      }),
      { numRuns: 300 },
    )
  })

  it('gives back what it packed, with every option', () => {
    fc.assert(
      fc.property(options, payloads, cuts, (o, messages, at) => {
        const protocol = new LengthFieldProtocol(o)
        const header = o.offset + o.size
        // The part of the header that is not stripped is the sender's, but for the field in it.
        const outs = messages.map((m) => Buffer.concat([Buffer.alloc(header - o.strip + 6), m]))
        const frames = outs.map((out) => packAllWays(protocol, out))
        const whole = expectSplitInvariance(protocol, Buffer.concat(frames), at)
        if (whole.includes('error')) {
          expect(Math.max(...frames.map((f) => f.length))).toBeGreaterThan(o.maxPacket)
          return
        }
        expect(whole).toHaveLength(outs.length + 1)
        for (const [i, out] of outs.entries()) {
          expect(whole[i]!.slice((header - o.strip) * 2)).toBe(out.subarray(header - o.strip).toString('hex'))
        }
      }),
      { numRuns: 300 },
    )
  })

  it.each([
    ['nothing else', {}, '0000000548454c4c4f'],
    ['a little-endian field of three bytes', { size: 3, endian: 'little' as const }, '05000048454c4c4f'],
    ['a field of eight bytes', { size: 8 }, '000000000000000548454c4c4f'],
    ['a length that counts the field too', { size: 2, adjustment: -2 }, '000748454c4c4f'],
    [
      'a magic number in front',
      { offset: 2, size: 1, prefix: Buffer.from('cafe', 'hex') },
      'cafe0548454c4c4f',
    ],
    ['one byte between field and payload', { size: 1, adjustment: 1, strip: 2 }, '050048454c4c4f'],
  ])('packs HELLO with %s', (_name, o, hex) => {
    const protocol = new LengthFieldProtocol(o)
    expect(packAllWays(protocol, 'HELLO').toString('hex')).toBe(hex)
    expect(unpack(protocol, Buffer.from(hex, 'hex'), [])).toEqual(['48454c4c4f', 'left '])
  })

  it('hands the header over with strip 0, and fills in the field of an answer that has room for it', () => {
    const protocol = new LengthFieldProtocol({ offset: 1, size: 2, strip: 0 })
    expect(unpack(protocol, Buffer.from('aa0001bb', 'hex'), [])).toEqual(['aa0001bb', 'left '])
    expect(packAllWays(protocol, Buffer.from('aa0000bbcc', 'hex')).toString('hex')).toBe('aa0002bbcc')
    expect(() => pack(protocol, 'xy')).toThrow(expect.objectContaining({ code: 'ERR_RINGLOOP_PACKET' }))
  })

  it('takes a packet of exactly maxPacket and names the limit for a longer one before its bytes come', () => {
    const protocol = new LengthFieldProtocol({ size: 2, maxPacket: 6 })
    expect(unpack(protocol, Buffer.from('0004aabbccdd', 'hex'), [])).toEqual(['aabbccdd', 'left '])
    const ring = new RingBuffer()
    ring.write(Buffer.from('0005', 'hex'))
    expect(() => protocol.unPacket(connection(protocol), ring)).toThrow(
      'a frame of 7 bytes is above maxPacket (6)',
    )
  })

  it('closes on a length of 64 bits that no number can hold', () => {
    const protocol = new LengthFieldProtocol({ size: 8, maxPacket: Number.MAX_SAFE_INTEGER })
    expect(unpack(protocol, Buffer.alloc(8, 0xff), [])).toEqual(['error'])
  })

  it('refuses to pack what its field cannot hold', () => {
    const protocol = new LengthFieldProtocol({ size: 1 })
    expect(pack(protocol, Buffer.alloc(255))).toHaveLength(256)
    expect(() => pack(protocol, Buffer.alloc(256))).toThrow('has no length')
  })

  it.each([
    [{ size: 0 }],
    [{ size: 9 }],
    [{ offset: -1 }],
    [{ strip: 1.5 }],
    [{ strip: Number.POSITIVE_INFINITY }],
    [{ maxPacket: 3 }],
    [{ endian: 'middle' as never }],
    [{ prefix: 'ab' as never }],
  ])('refuses the options %j', (o) => {
    expect(() => new LengthFieldProtocol(o)).toThrow(expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }))
  })
})

describe('DelimiterProtocol', () => {
  function model(bytes: Uint8Array, delimiter: string, keep: boolean, maxPacket: number): string[] {
    const seen: string[] = []
    let rest = Buffer.from(bytes).toString('latin1')
    for (;;) {
      const at = rest.indexOf(delimiter)
      if (at > maxPacket) return [...seen, 'error']
      if (at === -1) break
      seen.push(Buffer.from(rest.slice(0, at + (keep ? delimiter.length : 0)), 'latin1').toString('hex'))
      rest = rest.slice(at + delimiter.length)
    }
    if (rest.length - delimiter.length + 1 > maxPacket) return [...seen, 'error']
    return [...seen, `left ${Buffer.from(rest, 'latin1').toString('hex')}`]
  }

  it('cuts any bytes as the model does, however they are split', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'a', 'b', 'c'), maxLength: 160 })
    const delimiter = fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 4 })
    fc.assert(
      fc.property(letters, delimiter, fc.boolean(), fc.nat(30), cuts, (text, end, keep, maxPacket, at) => {
        const protocol = new DelimiterProtocol({ delimiter: end, keep, maxPacket })
        const stream = Buffer.from(text)
        expect(expectSplitInvariance(protocol, stream, at)).toEqual(model(stream, end, keep, maxPacket))
      }),
      { numRuns: 400 },
    )
  })

  it('gives back what it packed', () => {
    fc.assert(
      fc.property(payloads, cuts, fc.boolean(), (messages, at, keep) => {
        const delimiter = Buffer.from([0xff, 0])
        const protocol = new DelimiterProtocol({ delimiter, keep })
        const clean = messages.map((m) => Buffer.from(m.map((byte) => byte & 0x7f)))
        const outs = keep ? clean.map((m) => Buffer.concat([m, delimiter])) : clean
        const stream = Buffer.concat(outs.map((out) => packAllWays(protocol, out)))
        const expected = [...outs.map((out) => out.toString('hex')), 'left ']
        expect(expectSplitInvariance(protocol, stream, at)).toEqual(expected)
      }),
    )
  })

  it('names the limit', () => {
    const protocol = new DelimiterProtocol({ delimiter: ';', maxPacket: 3 })
    const ring = new RingBuffer()
    ring.write(Buffer.from('abcd'))
    expect(() => protocol.unPacket(connection(protocol), ring)).toThrow('maxPacket (3 bytes)')
  })

  it('refuses an empty delimiter', () => {
    expect(() => new DelimiterProtocol({ delimiter: '' })).toThrow('not empty')
  })

  it('searches each byte of a long packet once', () => {
    const protocol = new DelimiterProtocol({ delimiter: '\r\n.\r\n' })
    const c = connection(protocol)
    const ring = new RingBuffer()
    let searched = 0
    const indexOf = ring.indexOf.bind(ring)
    ring.indexOf = (value, from = 0) => {
      searched += ring.length - from
      return indexOf(value, from)
    }
    for (let i = 0; i < 20_000; i++) {
      ring.writeByte(0x61)
      expect(protocol.unPacket(c, ring)).toBeUndefined()
    }
    expect(searched).toBeLessThanOrEqual(20_000 * 5)
  })
})

describe('LineProtocol', () => {
  function model(text: string, maxPacket: number): string[] {
    const parts = text.split('\n')
    const last = parts.pop()!
    const lines = parts.map((line) => (line.endsWith('\r') ? line.slice(0, -1) : line))
    const bad = lines.findIndex((line) => line.length > maxPacket)
    const hex = (line: string): string => Buffer.from(line).toString('hex')
    if (bad !== -1) return [...lines.slice(0, bad).map(hex), 'error']
    const unfinished = last.endsWith('\r') ? last.length - 1 : last.length
    return [...lines.map(hex), unfinished > maxPacket ? 'error' : `left ${hex(last)}`]
  }

  it('cuts any text as the model does, however it is split', () => {
    const text = fc.string({ unit: fc.constantFrom('a', 'b', '\r', '\n', '\r\n'), maxLength: 120 })
    fc.assert(
      fc.property(text, fc.nat(12), cuts, (lines, maxPacket, at) => {
        const protocol = new LineProtocol({ maxPacket })
        expect(expectSplitInvariance(protocol, Buffer.from(lines), at)).toEqual(model(lines, maxPacket))
      }),
      { numRuns: 400 },
    )
  })

  it('ends its lines as told', () => {
    expect(packAllWays(new LineProtocol(), 'héllo').toString()).toBe('héllo\n')
    expect(packAllWays(new LineProtocol({ newline: '\r\n' }), '').toString()).toBe('\r\n')
    expect(() => new LineProtocol({ newline: '\r' as never })).toThrow('newline')
  })
})

describe('FixedLengthProtocol', () => {
  it('cuts packets of one length, however they are split', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.uint8Array({ maxLength: 200 }),
        cuts,
        (length, bytes, at) => {
          const protocol = new FixedLengthProtocol({ length })
          const hex = Buffer.from(bytes).toString('hex')
          const whole = Math.floor(bytes.length / length) * length
          const expected: string[] = []
          for (let i = 0; i < whole; i += length) expected.push(hex.slice(i * 2, (i + length) * 2))
          expect(expectSplitInvariance(protocol, bytes, at)).toEqual([
            ...expected,
            `left ${hex.slice(whole * 2)}`,
          ])
        },
      ),
    )
  })

  it('packs exactly its length', () => {
    const protocol = new FixedLengthProtocol({ length: 3 })
    expect(packAllWays(protocol, 'abc').toString()).toBe('abc')
    expect(packAllWays(protocol, Buffer.from('abc')).toString()).toBe('abc')
    expect(() => pack(protocol, 'abcd')).toThrow('must have 3 bytes, this one has 4')
  })

  it.each([0, -1, 1.5, Number.POSITIVE_INFINITY, undefined])('refuses the length %s', (length) => {
    expect(() => new FixedLengthProtocol({ length: length as number })).toThrow(
      expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }),
    )
  })
})

const POLLERS = nativeAvailable() === true ? (['native', 'net'] as const) : (['net'] as const)
const CODECS: readonly [string, () => Protocol, (size: number) => number, string][] = [
  ['length field', () => new LengthFieldProtocol({ maxPacket: 5000 }), (i) => i, '000013880a'],
  ['delimiter', () => new DelimiterProtocol({ delimiter: '\r\n.\r\n', maxPacket: 5000 }), (i) => i, ''],
  ['line', () => new LineProtocol({ maxPacket: 5000 }), (i) => i, ''],
  ['fixed length', () => new FixedLengthProtocol({ length: 700 }), () => 700, ''],
]

describe.each(POLLERS)('on the %s poller', (poller) => {
  const stops: (() => Promise<void>)[] = []
  afterEach(() => Promise.all(stops.splice(0).map((stop) => within('a stop', stop()))))

  async function start(protocol: Protocol, reasons: CloseReason[]): Promise<Server> {
    const handler: Handler = {
      onMessage: (_c, _ctx, data) => data,
      onClose: (_c, reason) => void reasons.push(reason),
    }
    const server = new Server(handler, { address: '127.0.0.1:0', logger: false, poller, protocol })
    stops.push(() => server.stop())
    await within('the start', server.start())
    return server
  }

  it.each(CODECS)('the %s codec serves and connects', async (_name, make, sizeOf) => {
    const server = await start(make(), [])
    const loop = new EventLoop({ logger: false, poller })
    stops.push(() => loop.stop())
    const answers: string[] = []
    const handler: Handler = { onMessage: (_c, _ctx, data) => void answers.push(data.toString()) }
    const address = { host: '127.0.0.1', port: server.address.port }
    const client = await loop.connect(address, { handler, protocol: make() })
    const sent = Array.from({ length: 300 }, (_, i) =>
      String.fromCharCode(97 + (i % 26)).repeat(sizeOf(i * 7)),
    )
    for (const text of sent) client.send(text)
    await until('all are answered', () => answers.length === sent.length)
    expect(answers).toEqual(sent)
  })

  it.each(CODECS.slice(0, 3))(
    'the %s codec closes for a packet above the limit',
    async (_n, make, _s, start6k) => {
      const reasons: CloseReason[] = []
      const server = await start(make(), reasons)
      const client = await connectRaw({ port: server.address.port })
      client.write(Buffer.from(start6k, 'hex'))
      client.write(Buffer.alloc(6000, 'x'))
      await client.whenEnded()
      await until('it is closed', () => reasons.length === 1)
      expect(reasons[0]!.code).toBe('protocol-error')
      expect(reasons[0]!.message).toMatch(/maxPacket \(5000/)
      client.destroy()
    },
  )
})
