/** RFC 6455, sections 5 to 8, byte by byte: the cases of the Autobahn catalogue, groups 1 to 7, and then some. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { CloseReason } from '../src/errors.js'
import { copyMasked, maskInPlace, rotateKey } from '../src/plugins/websocket/mask.js'
import { ACCEPT, checkUtf8, REJECT } from '../src/plugins/websocket/utf8.js'
import { settle } from './support/fake-loop.js'
import { until } from './support/wait.js'
import {
  Client,
  closeFrame,
  echo,
  frame,
  open,
  request,
  told,
  type WebSocketHandler,
} from './support/websocket.js'

const LENGTHS = [0, 1, 2, 3, 4, 5, 31, 32, 125, 126, 127, 128, 255, 256, 65_535, 65_536, 65_537, 300_000]
const KOSME = 'κόσμε'

/** Remembers what was handed over, as `text hello`. */
function recorder(): WebSocketHandler & { readonly seen: string[]; readonly closed: CloseReason[] } {
  const seen: string[] = []
  const closed: CloseReason[] = []
  return {
    seen,
    closed,
    onMessage: (_c, { type }, data) => void seen.push(`${type} ${data}`),
    onClose: (_c, reason) => void closed.push(reason),
  }
}

describe('messages', () => {
  it.each(LENGTHS)('echoes text and binary of %i bytes, each as what it was', async (length) => {
    const { client } = await open()
    const bytes = Buffer.from(Array.from({ length }, (_, i) => (i * 7) & 0xff))
    client.read(frame(1, 'x'.repeat(length)), frame(2, bytes))
    expect(client.body.equals(Buffer.concat([server(1, 'x'.repeat(length)), server(2, bytes)]))).toBe(true)
  })

  it('hands over data that stays as it was when later frames come', async () => {
    const kept: Buffer[] = []
    const { client } = await open({ onMessage: (_c, _ctx, data) => void kept.push(data) })
    for (const text of ['first', 'second', 'x'.repeat(200)]) client.read(frame(1, text))
    expect(kept.map(String)).toEqual(['first', 'second', 'x'.repeat(200)])
  })

  it('joins fragments, empty ones too, and answers control frames between them', async () => {
    const { client } = await open()
    client.read(frame(1, '', { fin: false }), frame(0, 'a', { fin: false }), frame(9, 'p'))
    client.read(frame(0, '', { fin: false }), frame(10, 'never asked for'), frame(0, 'b'))
    expect(client.told).toEqual(['pong p', 'text ab'])
  })

  it('takes text as text and binary as binary from what the handler returns and sends', async () => {
    const bytes = Buffer.from('bytes')
    const { client } = await open({
      onMessage: (c, { binary }) => {
        c.send('sent')
        c.send(bytes)
        c.send({ data: bytes, binary: false })
        c.send({ data: 'told', binary: true })
        return binary ? 'string' : bytes
      },
    })
    client.read(frame(1, 'x'))
    const sent = ['text sent', 'binary bytes', 'text bytes', 'binary told']
    expect(client.told).toEqual([...sent, 'text bytes'])
    client.read(frame(2, 'x'))
    expect(client.told.slice(5)).toEqual([...sent, 'text string'])
  })

  it('keeps the order and the kind of answers that come later', async () => {
    const { client } = await open({
      onMessage: async (_c, _ctx, data) => {
        await settle()
        return data
      },
    })
    client.read(Buffer.concat([frame(1, 'one'), frame(2, 'two'), frame(1, 'three')]))
    await settleUntil(() => client.told.length === 3)
    expect(client.told).toEqual(['text one', 'binary two', 'text three'])
  })

  it.each(['', 'a', 'ü'.repeat(42), 'ü'.repeat(62), '€'.repeat(42), '€'.repeat(21_845), 'x'.repeat(70_000)])(
    'sends a text of any width with the right length (%#)',
    async (text) => {
      const { client } = await open({ onMessage: () => text })
      client.read(frame(1, '1'))
      expect(client.told).toEqual([`text ${text}`])
    },
  )

  it('closes the connection of a handler that answers with what is no message', async () => {
    const { client } = await open({ onMessage: () => ({ data: 5 }) as never })
    client.read(frame(1, 'x'))
    expect(client.told).toEqual(['close 1011'])
  })

  it('holds thousands of tiny fragments in little more than their bytes', async () => {
    const { client } = await open()
    client.read(frame(2, '', { fin: false }))
    globalThis.gc?.()
    const before = process.memoryUsage()
    const many = Buffer.concat(Array.from({ length: 10_000 }, () => frame(0, 'x', { fin: false })))
    for (let i = 0; i < 10; i++) await until('it is read', () => client.socket.read(many))
    await until('all is taken', () => client.c.readBufferLength === 0)
    globalThis.gc?.()
    const after = process.memoryUsage()
    expect(after.heapUsed + after.external - before.heapUsed - before.external).toBeLessThan(20_000_000)
    client.read(frame(0, 'y'))
    await until('it is whole', () => client.body.length === 100_001 + 10)
  })
})

describe('frames that are no message', () => {
  const MANY = 5000

  it('pings: some of them are answered in a turn, and all of them in the end', async () => {
    const { client } = await open()
    client.read(Buffer.concat(Array.from({ length: MANY }, () => frame(9))))
    expect(client.told.length).toBeGreaterThan(0)
    expect(client.told.length).toBeLessThan(MANY / 5)
    await until('all are answered', () => client.told.length === MANY)
  })

  it('pings beside an answer that is pending', async () => {
    const { client } = await open({ onMessage: () => new Promise(() => {}) })
    client.read(frame(1, 'x'), Buffer.concat(Array.from({ length: MANY }, () => frame(9))))
    expect(client.told.length).toBeGreaterThan(0)
    expect(client.told.length).toBeLessThan(MANY / 5)
  })

  it('empty parts of a message: it is put together over several turns', async () => {
    const handler = recorder()
    const { client } = await open(handler)
    const parts = Array.from({ length: MANY }, () => frame(0, '', { fin: false }))
    client.read(Buffer.concat([frame(1, 'a', { fin: false }), ...parts, frame(0, 'z')]))
    expect(handler.seen).toEqual([])
    await until('it is whole', () => handler.seen.length === 1)
    expect(handler.seen).toEqual(['text az'])
  })
})

describe('whatever the cuts', () => {
  const stream = Buffer.concat([
    frame(1, KOSME),
    frame(2, 'b'.repeat(200), { fin: false }),
    frame(9, 'ping'),
    frame(0, 'c'.repeat(3)),
    frame(1, ''),
    frame(2, 'd'.repeat(70_000)),
    closeFrame(1000, 'bye'),
  ])

  it('gives the same messages and answers, every first cut', async () => {
    const { client } = await open()
    const whole = client.read(stream).body
    expect(told(whole).at(-1)).toBe('close 1000')
    for (let cut = 1; cut < 600; cut++) {
      const next = (await open()).client
      next.read(stream.subarray(0, cut), stream.subarray(cut))
      expect(next.body.equals(whole)).toBe(true)
    }
  })

  it('gives the same with any cuts, the handshake included', async () => {
    const bytes = Buffer.concat([Buffer.from(request()), stream])
    const { client } = await open()
    const whole = client.read(stream).socket.out
    const cuts = fc.array(fc.oneof(fc.nat(bytes.length), fc.nat(500)), { maxLength: 30 })
    await fc.assert(
      fc.asyncProperty(cuts, async (at) => {
        const { fake } = await open()
        const cut = new Client(fake)
        const places = [0, ...at.sort((a, b) => a - b), bytes.length]
        for (let i = 1; i < places.length; i++) cut.read(bytes.subarray(places[i - 1], places[i]))
        expect(cut.socket.out.equals(whole)).toBe(true)
        expect(fake.poller.violations).toEqual([])
      }),
      { numRuns: 60 },
    )
  })

  it('gives the same byte by byte', async () => {
    const { fake } = await open()
    const client = new Client(fake)
    const short = [request(), frame(1, KOSME), frame(2, 'x'.repeat(130)), frame(9, 'p'), closeFrame(3000)]
    for (const byte of Buffer.concat(short.map((part) => Buffer.from(part as string)))) {
      client.read(Buffer.from([byte]))
    }
    expect(client.told).toEqual([`text ${KOSME}`, `binary ${'x'.repeat(130)}`, 'pong p', 'close 3000'])
  })
})

describe('violations', () => {
  const open2 = frame(1, 'a', { fin: false })
  const cases: [name: string, code: number, bytes: Uint8Array][] = [
    ['a frame that is not masked', 1002, frame(1, 'x', { mask: false })],
    ['RSV1 without an extension', 1002, frame(1, 'x', { rsv: 0x40 })],
    ['RSV2', 1002, frame(1, 'x', { rsv: 0x20 })],
    ['RSV3', 1002, frame(2, 'x', { rsv: 0x10 })],
    ['RSV on a ping', 1002, frame(9, 'x', { rsv: 0x40 })],
    ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((opcode): [string, number, Uint8Array] => [
      `opcode ${opcode}`,
      1002,
      frame(opcode, 'x'),
    ]),
    ['a fragmented ping', 1002, frame(9, 'x', { fin: false })],
    ['a fragmented close', 1002, frame(8, '', { fin: false })],
    ['a ping of 126 bytes', 1002, frame(9, 'x'.repeat(126))],
    ['a ping with a 64-bit length', 1002, frame(9, '', { lengthBytes: 9 })],
    ['a continuation of nothing', 1002, frame(0, 'x')],
    ['an unfinished continuation of nothing', 1002, frame(0, 'x', { fin: false })],
    ['a message within a message', 1002, Buffer.concat([open2, frame(1, 'b')])],
    ['a length of 125 in 16 bits', 1002, frame(1, 'x'.repeat(125), { lengthBytes: 3 })],
    ['a length of 5 in 64 bits', 1002, frame(1, 'xxxxx', { lengthBytes: 9 })],
    ['a length of 65535 in 64 bits', 1002, frame(1, '', { lengthBytes: 9, length: 65_535n })],
    ['a negative length', 1002, frame(2, '', { length: 1n << 63n })],
    ['the greatest length', 1002, frame(2, '', { length: (1n << 64n) - 1n })],
    ['a length over maxPayload', 1009, frame(2, '', { length: 1n << 40n })],
    ['a length just over maxPayload', 1009, frame(2, '', { length: 1_000_001n })],
    ['fragments over maxPayload', 1009, Buffer.concat([open2, frame(0, '', { length: 1_000_000n })])],
    ['a close with one byte', 1002, frame(8, 'x')],
    ['a close with a reason that is not UTF-8', 1007, closeFrame(1000, Buffer.from([0xce, 0xba, 0xe1]))],
    ...[0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535].map(
      (code): [string, number, Uint8Array] => [`a close with ${code}`, 1002, closeFrame(code)],
    ),
  ]

  it.each(cases)('%s: %i, nothing more is taken, and it is closed', async (_name, code, bytes) => {
    const handler = recorder()
    const { fake, client } = await open(handler, { maxPayload: 1_000_000 })
    client.read(frame(1, 'before'), Buffer.concat([bytes, frame(1, 'behind'), frame(9, 'ping')]))
    expect(client.told).toEqual([`close ${code}`])
    expect(client.socket.closed).toBe('lingering')
    expect(handler.seen).toEqual(['text before'])
    expect(handler.closed).toMatchObject([{ code: 'protocol-error' }])
    expect(handler.closed[0]!.error).toBeInstanceOf(Error)
    expect(fake.ringsOut()).toBe(0)
    expect(fake.poller.violations).toEqual([])
  })

  it('finds them with the first byte that shows them', async () => {
    for (const [bytes, count] of [
      [frame(1, 'x', { rsv: 0x20 }), 2],
      [frame(9, 'x'.repeat(126)), 2],
      [frame(2, '', { length: 1n << 63n }), 3],
      [frame(2, '', { length: 1n << 30n }), 14],
    ] as const) {
      const { client } = await open()
      client.read(bytes.subarray(0, count))
      expect(client.told).toHaveLength(1)
    }
  })

  it('takes a message of exactly maxPayload, in one piece or several', async () => {
    const { client } = await open(echo, { maxPayload: 1000 })
    client.read(frame(2, 'x'.repeat(1000)))
    client.read(frame(2, 'x'.repeat(600), { fin: false }), frame(0, 'y'.repeat(400)))
    expect(client.told.map((each) => each.length)).toEqual([1007, 1007])
    client.read(frame(2, 'x'.repeat(600), { fin: false }), frame(0, 'y'.repeat(401)))
    expect(client.told.at(-1)).toBe('close 1009')
  })

  it.each([0, 1, 50, 124, 125, 126])(
    'holds a small whole frame to a maxPayload of %i too',
    async (maxPayload) => {
      const { client } = await open(echo, { maxPayload: Math.max(1, maxPayload) })
      const most = Math.max(1, maxPayload)
      client.read(frame(2, 'x'.repeat(most)))
      expect(client.told).toHaveLength(1)
      client.read(frame(2, 'x'.repeat(most + 1)))
      expect(client.told.at(-1)).toBe('close 1009')
    },
  )

  it('takes no memory for what is only announced', async () => {
    const before = process.memoryUsage().arrayBuffers
    const { fake } = await open()
    for (let i = 0; i < 200; i++) {
      new Client(fake).read(request(), frame(2, 'x', { length: 16_000_000n }))
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(200 * 300_000)
  })

  it('survives any bytes', async () => {
    const bytes = fc.array(
      fc.oneof(
        fc.uint8Array({ maxLength: 40 }),
        fc
          .tuple(
            fc.constantFrom(0, 1, 1, 2, 8, 9, 10, 11),
            fc.uint8Array({ maxLength: 200 }),
            fc.boolean(),
            fc.constantFrom(0, 0, 0, 0x40, 0x10),
          )
          .map(([opcode, payload, fin, rsv]) => frame(opcode, payload, { fin, rsv })),
      ),
      { maxLength: 12 },
    )
    await fc.assert(
      fc.asyncProperty(bytes, fc.boolean(), async (parts, deflate) => {
        const extensions = deflate ? 'permessage-deflate' : undefined
        const { fake, client } = await open(
          echo,
          { maxPayload: 4096, perMessageDeflate: deflate },
          { 'Sec-WebSocket-Extensions': extensions },
        )
        for (const part of parts) client.read(part)
        const answers = client.told
        expect(answers.slice(0, -1).some((each) => each.startsWith('close'))).toBe(false)
        expect(client.socket.closed !== undefined).toBe(answers.at(-1)?.startsWith('close') ?? false)
        expect(fake.poller.violations).toEqual([])
        expect(fake.logger.find('error', '')).toEqual([])
      }),
      { numRuns: 300 },
    )
  })
})

describe('closing', () => {
  it.each([1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999])(
    'answers a close with %i by the same code',
    async (code) => {
      const handler = recorder()
      const { client } = await open(handler)
      client.read(closeFrame(code, 'x'.repeat(123)))
      expect(client.told).toEqual([`close ${code}`])
      expect(client.socket.closed).toBe('lingering')
      expect(handler.closed).toMatchObject([{ code: 'peer-closed' }])
    },
  )

  it('answers an empty close by an empty close and ignores what comes behind', async () => {
    const handler = recorder()
    const { client } = await open(handler)
    client.read(Buffer.concat([frame(8), frame(1, 'behind'), frame(9), frame(3)]))
    expect(client.told).toEqual(['close'])
    expect(handler.seen).toEqual([])
  })

  it('closes in the middle of a fragmented message', async () => {
    const { client } = await open()
    client.read(frame(1, 'a', { fin: false }), closeFrame(1000))
    expect(client.told).toEqual(['close 1000'])
  })
})

describe('UTF-8', () => {
  const bad = [
    [0x80],
    [0xc0, 0x80],
    [0xc1, 0xbf],
    [0xe0, 0x9f, 0xbf],
    [0xed, 0xa0, 0x80],
    [0xed, 0xbf, 0xbf],
    [0xf0, 0x8f, 0xbf, 0xbf],
    [0xf4, 0x90, 0x80, 0x80],
    [0xf5, 0x80, 0x80, 0x80],
    [0xff],
    [0xce, 0xba, 0xe1, 0xbd, 0xb9, 0xcf, 0x83, 0xce, 0xbc, 0xce, 0xb5, 0xed, 0xa0, 0x80, 0x65],
  ].map((bytes) => Buffer.from(bytes))

  it.each(bad)('refuses %o as a text and takes it as binary', async (bytes) => {
    for (const length of [0, 60, 130, 300]) {
      const padded = Buffer.concat([Buffer.alloc(length, 'x'), bytes])
      const text = (await open()).client.read(frame(1, padded))
      expect(text.told).toEqual(['close 1007'])
      const binary = (await open()).client.read(frame(2, padded))
      expect(binary.told).toHaveLength(1)
      expect(binary.body[0]).toBe(0x82)
    }
  })

  it('refuses a text that ends within a character', async () => {
    for (const end of [1, 2, 3]) {
      const cut = Buffer.from('x😀').subarray(0, 1 + end)
      expect((await open()).client.read(frame(1, cut)).told).toEqual(['close 1007'])
    }
  })

  it('takes characters that are cut by fragments', async () => {
    const { client } = await open()
    const bytes = Buffer.from(`${KOSME}😀`)
    bytes.forEach((byte, i) => {
      client.read(frame(i === 0 ? 1 : 0, Buffer.from([byte]), { fin: i === bytes.length - 1 }))
    })
    expect(client.told).toEqual([`text ${KOSME}😀`])
  })

  it('refuses at the fragment with the wrong byte', async () => {
    const { client } = await open()
    client.read(frame(1, KOSME, { fin: false }))
    expect(client.told).toEqual([])
    client.read(frame(0, Buffer.from([0xf4, 0x90]), { fin: false }))
    expect(client.told).toEqual(['close 1007'])
  })

  it('refuses at the wrong byte, though the frame is not yet whole', async () => {
    const { client } = await open()
    const bytes = frame(1, Buffer.from([0xce, 0xba, 0xf4, 0x90, 0x80, 0x80, 0x65, 0x64]))
    client.read(bytes.subarray(0, 9))
    expect(client.told).toEqual([])
    client.read(bytes.subarray(9, 10))
    expect(client.told).toEqual(['close 1007'])
  })

  it('judges as the decoder of the platform does, whatever the cuts', () => {
    const decoder = new TextDecoder('utf-8', { fatal: true })
    const isText = (bytes: Uint8Array): boolean => {
      try {
        decoder.decode(bytes)
        return true
      } catch {
        return false
      }
    }
    const pieces = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 80 }).map((text) => Buffer.from(text)),
      fc.uint8Array({ maxLength: 4 }),
      fc.constantFrom(...bad),
    )
    fc.assert(
      fc.property(
        fc.array(pieces, { maxLength: 4 }),
        fc.array(fc.nat(320), { maxLength: 4 }),
        (parts, cuts) => {
          const bytes = Buffer.concat(parts)
          const places = [
            0,
            ...cuts.map((at) => Math.min(at, bytes.length)).sort((a, b) => a - b),
            bytes.length,
          ]
          let state = ACCEPT
          for (let i = 1; i < places.length; i++) state = checkUtf8(state, bytes, places[i - 1]!, places[i]!)
          expect(state === ACCEPT).toBe(isText(bytes))
          if (state === REJECT) expect(isText(bytes)).toBe(false)
        },
      ),
      { numRuns: 2000 },
    )
  })
})

describe('masks', () => {
  it('are put on and taken off by the byte, by the word and by the block alike', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.nat(300), fc.integer({ min: 60_000, max: 140_000 })),
        fc.integer(),
        fc.nat(20),
        fc.nat(20),
        (length, key, from, at) => {
          const source = Buffer.from(Array.from({ length: from + length }, (_, i) => (i * 31) & 0xff))
          const target = Buffer.alloc(at + length + 3, 0xee)
          copyMasked(source, from, from + length, target, at, key)
          const keyBytes = Buffer.alloc(4)
          keyBytes.writeInt32LE(key)
          for (let i = 0; i < length; i++) {
            if (target[at + i] !== (source[from + i]! ^ keyBytes[i & 3]!)) expect.fail(`byte ${i} is wrong`)
          }
          expect(target.subarray(at + length).every((byte) => byte === 0xee)).toBe(true)
          maskInPlace(target, at, at + length, key)
          expect(target.subarray(at, at + length).equals(source.subarray(from))).toBe(true)
        },
      ),
      { numRuns: 200 },
    )
  })

  it('go on in the middle of a payload', () => {
    const [whole, parts] = [Buffer.alloc(50, 'a'), Buffer.alloc(50, 'a')]
    maskInPlace(whole, 0, 50, 0x12345678)
    maskInPlace(parts, 0, 7, 0x12345678)
    maskInPlace(parts, 7, 50, rotateKey(0x12345678, 7))
    expect(parts).toEqual(whole)
  })
})

/** A frame as a server sends it. */
function server(opcode: number, payload: Uint8Array | string): Buffer {
  return frame(opcode, payload, { mask: false })
}

async function settleUntil(done: () => boolean): Promise<void> {
  for (let i = 0; i < 50 && !done(); i++) await settle()
}
