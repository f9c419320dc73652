/** permessage-deflate (RFC 7692): what is agreed on, messages both ways, and limits that hold for the inflated size. */
import { randomBytes } from 'node:crypto'
import zlib from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ZlibQueue } from '../src/plugins/websocket/deflate.js'
import { readAnswer } from '../src/plugins/websocket/deflate-params.js'
import { type DeflateOptions, webSocketOf } from '../src/plugins/websocket/index.js'
import { webSocketSettings } from '../src/plugins/websocket/options.js'
import { settle } from './support/fake-loop.js'
import { until } from './support/wait.js'
import { Client, closeFrame, echo, frame, open, readFrames, request, serve } from './support/websocket.js'

const RSV1 = 0x40
const TAIL = Buffer.from([0, 0, 0xff, 0xff])
const SYNC = zlib.constants.Z_SYNC_FLUSH
const DEFLATE = { 'Sec-WebSocket-Extensions': 'permessage-deflate' }

function offer(text: string, options: DeflateOptions = {}): Promise<string | undefined> {
  return serve(echo, { perMessageDeflate: options }).then((fake) => {
    const client = new Client(fake).read(request({ 'Sec-WebSocket-Extensions': text }))
    expect(client.status).toBe(101)
    return client.header('Sec-WebSocket-Extensions')
  })
}

/** A message as a client compresses it, each by itself. */
function deflated(text: string | Uint8Array, options: zlib.ZlibOptions = {}): Buffer {
  return zlib.deflateRawSync(text, { ...options, finishFlush: SYNC }).subarray(0, -4)
}

function inflated(payload: Buffer, options: zlib.ZlibOptions = {}): Buffer {
  return zlib.inflateRawSync(Buffer.concat([payload, TAIL]), { ...options, finishFlush: SYNC })
}

/** A text that can be compressed, but not to nothing. */
function prose(length: number): string {
  let text = ''
  for (let i = 0; text.length < length; i++) text += `line ${i} of ${(i * 7919) % 1013} `
  return text.slice(0, length)
}

describe('an offer', () => {
  const both = 'permessage-deflate; server_no_context_takeover; client_no_context_takeover'
  it.each([
    ['permessage-deflate', both],
    ['permessage-deflate; client_max_window_bits', both],
    ['permessage-deflate; client_max_window_bits=10', `${both}; client_max_window_bits=10`],
    ['permessage-deflate; client_max_window_bits="9"', `${both}; client_max_window_bits=9`],
    ['permessage-deflate; server_max_window_bits=15', `${both}; server_max_window_bits=15`],
    ['permessage-deflate; server_max_window_bits=8', `${both}; server_max_window_bits=8`],
    ['PerMessage-Deflate; Server_No_Context_Takeover', both],
    ['x-webkit-deflate-frame, permessage-deflate', both],
    [
      'permessage-deflate; unknown, permessage-deflate; server_max_window_bits=10, permessage-deflate',
      `${both}; server_max_window_bits=10`,
    ],
  ])('%s is answered with %s', async (text, answer) => {
    expect(await offer(text)).toBe(answer)
  })

  it.each([
    'permessage-foo',
    'permessage-deflate; unknown',
    'permessage-deflate; server_max_window_bits',
    'permessage-deflate; server_max_window_bits=7',
    'permessage-deflate; server_max_window_bits=16',
    'permessage-deflate; server_max_window_bits=010',
    'permessage-deflate; server_max_window_bits=10; server_max_window_bits=10',
    'permessage-deflate; client_max_window_bits=0',
    'permessage-deflate; client_max_window_bits=x',
    'permessage-deflate; server_no_context_takeover=1',
    'permessage-deflate; client_no_context_takeover=true',
  ])('%s is declined', async (text) => {
    expect(await offer(text)).toBeUndefined()
  })

  it('is answered with what the options ask for', async () => {
    const takeover = { serverNoContextTakeover: false, clientNoContextTakeover: false }
    expect(await offer('permessage-deflate', takeover)).toBe('permessage-deflate')
    expect(await offer('permessage-deflate; server_no_context_takeover', takeover)).toBe(
      'permessage-deflate; server_no_context_takeover',
    )
    const bits = { ...takeover, serverMaxWindowBits: 11, clientMaxWindowBits: 12 }
    expect(await offer('permessage-deflate', bits)).toBe('permessage-deflate; server_max_window_bits=11')
    expect(await offer('permessage-deflate; client_max_window_bits; server_max_window_bits=12', bits)).toBe(
      'permessage-deflate; server_max_window_bits=11; client_max_window_bits=12',
    )
  })

  it('is not looked at where compression is off', async () => {
    const { client } = await open(echo, {}, DEFLATE)
    expect(client.header('Sec-WebSocket-Extensions')).toBeUndefined()
    expect(client.read(frame(1, deflated('x'), { rsv: RSV1 })).told).toEqual(['close 1002'])
  })
})

describe('the answer to a client', () => {
  const settings = webSocketSettings({ perMessageDeflate: { serverMaxWindowBits: 12 } }).deflate
  it.each([
    'permessage-deflate',
    'permessage-deflate; server_no_context_takeover; server_max_window_bits=13',
    'permessage-deflate; server_no_context_takeover',
    'permessage-deflate; server_no_context_takeover; server_max_window_bits=10; client_max_window_bits',
    'permessage-deflate; server_no_context_takeover; unknown',
    'permessage-deflate, permessage-deflate',
    'other',
    'a b',
  ])('%s is refused, for it is not what was offered', (text) => {
    expect(readAnswer(text, settings)).toBeTypeOf('string')
  })

  it('is taken where it keeps to the offer', () => {
    const text =
      'permessage-deflate; server_no_context_takeover; server_max_window_bits=10; client_max_window_bits=9'
    expect(readAnswer(text, settings)).toEqual({
      server: { takeover: false, windowBits: 10 },
      client: { takeover: false, windowBits: 9 },
    })
    expect(readAnswer(undefined, settings)).toBeUndefined()
    expect(readAnswer('permessage-deflate', undefined)).toBeTypeOf('string')
  })
})

describe('messages', () => {
  it.each([0, 1, 1023, 1024, 16_000, 40_000, 70_000, 300_000])(
    'of %i bytes come back, compressed from 1024 on',
    async (length) => {
      const { client } = await open(echo, { perMessageDeflate: true }, DEFLATE)
      const text = prose(length)
      client.read(frame(1, deflated(text), { rsv: RSV1 }), frame(9, 'done'))
      await until(
        'the answer is there',
        () => client.body.length > 6 && !client.body.subarray(-6).equals(client.body),
      )
      await until('the answer is there', () => readFrames(client.body).some(({ opcode }) => opcode === 1))
      const [message] = readFrames(client.body).filter(({ opcode }) => opcode === 1)
      expect(message!.rsv).toBe(length >= 1024 ? RSV1 : 0)
      expect((message!.rsv === RSV1 ? inflated(message!.payload) : message!.payload).toString()).toBe(text)
    },
  )

  it('may be in fragments, of which only the first has RSV1', async () => {
    const { client } = await open(echo, { perMessageDeflate: true }, DEFLATE)
    const bytes = deflated('compressed in pieces')
    client.read(
      frame(1, bytes.subarray(0, 3), { rsv: RSV1, fin: false }),
      frame(9),
      frame(0, bytes.subarray(3)),
    )
    expect(client.told).toEqual(['pong ', 'text compressed in pieces'])
    client.read(
      frame(1, bytes.subarray(0, 3), { rsv: RSV1, fin: false }),
      frame(0, bytes.subarray(3), { rsv: RSV1 }),
    )
    expect(client.told.at(-1)).toBe('close 1002')
  })

  it('may be plain', async () => {
    const { client } = await open(echo, { perMessageDeflate: true }, DEFLATE)
    expect(client.read(frame(1, 'plain')).told).toEqual(['text plain'])
  })

  it('may end with a final block, as in the RFC’s example', async () => {
    const { client } = await open(echo, { perMessageDeflate: true }, DEFLATE)
    client.read(frame(1, Buffer.from('f348cdc9c9070000', 'hex'), { rsv: RSV1 }))
    client.read(frame(1, Buffer.from('f248cdc9c90700', 'hex'), { rsv: RSV1 }))
    client.read(frame(1, Buffer.from('000500faff48656c6c6f00', 'hex'), { rsv: RSV1 }))
    client.read(frame(1, Buffer.from('f248050000 00ffffcac9c90700'.replace(' ', ''), 'hex'), { rsv: RSV1 }))
    expect(client.told).toEqual(['text Hello', 'text Hello', 'text Hello', 'text Hello'])
  })

  it('are compressed or not where the handler says so', async () => {
    const { client } = await open(echo, { perMessageDeflate: true }, DEFLATE)
    const ws = webSocketOf(client.c)
    expect(ws.compressed).toBe(true)
    ws.send(prose(5000), { compress: false })
    ws.send('aaaaaaaaaaaaaaaaaaaaaaaaa', { compress: true })
    ws.send('', { compress: true })
    await settle()
    expect(readFrames(client.body).map(({ rsv }) => rsv)).toEqual([0, RSV1, 0])
  })

  it('go out plain where they do not become smaller', async () => {
    const { client } = await open(echo, { perMessageDeflate: { threshold: 1 } }, DEFLATE)
    client.read(frame(1, 'x'))
    expect(client.told).toEqual(['text x'])
  })

  it.each([8, 9, 10, 15])('keep to a window of 2^%i bytes', async (bits) => {
    const { client } = await open(
      echo,
      { perMessageDeflate: { level: 9 } },
      { 'Sec-WebSocket-Extensions': `permessage-deflate; server_max_window_bits=${bits}` },
    )
    const text = prose(20_000) + prose(3000).repeat(3)
    client.read(frame(1, text))
    const [message] = readFrames(client.body)
    expect(message!.rsv).toBe(RSV1)
    expect(inflated(message!.payload, { windowBits: bits }).toString()).toBe(text)
  })

  it('build on earlier ones where that was agreed on, both ways', async () => {
    const options = { threshold: 1, serverNoContextTakeover: false, clientNoContextTakeover: false }
    const { client } = await open(echo, { perMessageDeflate: options }, DEFLATE)
    const out = zlib.createDeflateRaw()
    const back = zlib.createInflateRaw()
    const lengths = Array.from({ length: 40 }, (_, i) => [50, 3000, 7, 3000][i % 4]!)
    const texts = [...lengths, 40_000, 3000, 40_000].map(prose)
    let read = 0
    let length = 0
    for (const text of texts) {
      const bytes = await through(out, Buffer.from(text))
      client.read(frame(1, bytes.subarray(0, -4), { rsv: RSV1 }))
      await until('the answer is there', () => readFrames(client.body).length > read)
      const message = readFrames(client.body)[read++]!
      length += message.payload.length
      const plain =
        message.rsv === 0 ? message.payload : await through(back, Buffer.concat([message.payload, TAIL]))
      expect(plain.toString()).toBe(text)
    }
    expect(length).toBeLessThan(texts.reduce((sum, text) => sum + deflated(text).length, 0) / 1.4)
  })

  it('keep their order when large ones take their time, and close comes last', async () => {
    const { client } = await open(echo, { perMessageDeflate: true }, DEFLATE)
    const ws = webSocketOf(client.c)
    const texts = [prose(100_000), 'small', prose(2000), prose(200_000), 'end']
    for (const text of texts) client.c.send(text)
    expect(client.body).toHaveLength(0)
    await until('all have come', () => readFrames(client.body).length === texts.length)
    for (const text of texts) client.c.send(text)
    ws.close(4000)
    await settle()
    const frames = readFrames(client.body)
    expect(frames.at(-1)!.opcode).toBe(8)
    const got = frames
      .slice(0, -1)
      .map(({ rsv, payload }) => (rsv === 0 ? payload : inflated(payload)).toString())
    expect(got).toEqual([...texts, ...texts])
    await settle()
    expect(readFrames(client.body)).toHaveLength(11)
  })

  it('go out plain when too much waits to be compressed, so that the sender feels it', async () => {
    const { client } = await open(echo, { perMessageDeflate: true }, DEFLATE)
    client.socket.room = () => 0
    let sent = 0
    while (client.c.send(prose(100_000))) {
      sent++
      expect(sent).toBeLessThan(50)
    }
    expect(client.c.writeBufferLength).toBeGreaterThan(1024 * 1024)
  })

  it.each([[[60_000]], [[400_000]], [[40_000, 40_000, 40_000]]])(
    'of %j bytes are answered, in order, though the peer ends its side right behind them',
    async (lengths) => {
      const { fake, client } = await open(echo, { perMessageDeflate: true }, DEFLATE)
      const texts = lengths.map((length, i) => `${i} ${prose(length)}`)
      client.read(Buffer.concat(texts.map((text) => frame(1, deflated(text), { rsv: RSV1 }))))
      client.socket.end()
      await until('it is closed', () => client.socket.closed !== undefined)
      const answers = readFrames(client.body).filter(({ opcode }) => opcode === 1)
      const got = answers.map(({ rsv, payload }) => (rsv === 0 ? payload : inflated(payload)).toString())
      expect(got).toEqual(texts)
      expect(client.socket.broken).toBe(false)
      expect(fake.ringsOut()).toBe(0)
    },
  )

  it('survive the end of their connection while a thread works on them', async () => {
    const { fake, client } = await open(echo, { perMessageDeflate: true }, DEFLATE)
    client.c.send(prose(200_000))
    client.read(frame(2, deflated(prose(2_000_000)), { rsv: RSV1 }))
    client.socket.reset()
    await until('the connection is gone', () => client.socket.closed !== undefined)
    for (let i = 0; i < 20; i++) await settle()
    expect(fake.logger.find('error', '')).toEqual([])
    expect(fake.poller.violations).toEqual([])
    expect(fake.ringsOut()).toBe(0)
  })

  it('are thrown away when this side closes while a thread inflates, and the peer’s close behind them is seen', async () => {
    const seen: number[] = []
    const handler = { onMessage: (_c: unknown, _ctx: unknown, data: Buffer) => void seen.push(data.length) }
    const { client } = await open(handler, { perMessageDeflate: true }, DEFLATE)
    client.read(Buffer.concat([frame(2, deflated(prose(1_000_000)), { rsv: RSV1 }), closeFrame(4000)]))
    webSocketOf(client.c).close(4000)
    await until('it is closed', () => client.socket.closed !== undefined)
    expect(client.told).toEqual(['close 4000'])
    expect(seen).toEqual([])
  })

  it('are not lost when the connection is paused while a thread inflates', async () => {
    const seen: number[] = []
    const handler = { onMessage: (_c: unknown, _ctx: unknown, data: Buffer) => void seen.push(data.length) }
    const { client } = await open(handler, { perMessageDeflate: true }, DEFLATE)
    client.read(frame(2, deflated(prose(1_000_000)), { rsv: RSV1 }))
    client.c.pause()
    for (let i = 0; i < 50; i++) await settle()
    expect(seen).toEqual([])
    client.c.resume()
    await until('the message is there', () => seen.length === 1)
    expect(seen).toEqual([1_000_000])
  })
})

describe('limits', () => {
  it.each([
    ['small', 100_000],
    ['large', 50_000_000],
  ])('a %s bomb is refused with 1009', async (_name, length) => {
    const { client } = await open(echo, { maxPayload: 10_000, perMessageDeflate: true }, DEFLATE)
    client.read(frame(2, deflated(Buffer.alloc(length)).subarray(0, 10_000), { rsv: RSV1 }))
    await until('it is closed', () => client.socket.closed !== undefined)
    expect(client.told).toEqual(['close 1009'])
  })

  it('a bomb is not inflated further than maxPayload', async () => {
    const { client } = await open(echo, { maxPayload: 1_000_000, perMessageDeflate: true }, DEFLATE)
    const bomb = deflated(Buffer.alloc(500_000_000), { level: 9 })
    const before = process.memoryUsage().arrayBuffers
    let most = 0
    client.read(frame(2, bomb, { rsv: RSV1 }))
    await until('it is closed', () => {
      most = Math.max(most, process.memoryUsage().arrayBuffers - before)
      return client.socket.closed !== undefined
    })
    expect(client.told).toEqual(['close 1009'])
    expect(most).toBeLessThan(20_000_000)
  })

  it('a message may inflate to exactly maxPayload', async () => {
    for (const maxPayload of [1000, 200_000]) {
      const { client } = await open(echo, { maxPayload, perMessageDeflate: { threshold: 1e9 } }, DEFLATE)
      client.read(frame(2, deflated(Buffer.alloc(maxPayload)), { rsv: RSV1 }))
      await until('the answer is there', () => client.body.length > 0)
      expect(readFrames(client.body)[0]!.payload).toHaveLength(maxPayload)
      client.read(frame(2, deflated(Buffer.alloc(maxPayload + 1)), { rsv: RSV1 }))
      await until('it is closed', () => client.socket.closed !== undefined)
      expect(client.told.at(-1)).toBe('close 1009')
    }
  })

  it('a message of maxPayload bytes may be longer when compressed, though not by much', async () => {
    const maxPayload = 1000
    const message = randomBytes(maxPayload)
    const { client } = await open(echo, { maxPayload, perMessageDeflate: true }, DEFLATE)
    const longer = deflated(message)
    expect(longer.length).toBeGreaterThan(maxPayload)
    client.read(
      frame(2, longer, { rsv: RSV1 }),
      frame(2, longer.subarray(0, 500), { rsv: RSV1, fin: false }),
      frame(0, longer.subarray(500)),
    )
    expect(readFrames(client.body).map(({ payload }) => payload.equals(message))).toEqual([true, true])
    client.read(frame(2, '', { rsv: RSV1, length: BigInt(maxPayload + 100) }))
    expect(client.told.at(-1)).toBe('close 1009')
  })

  it('a plain message may not, where compression was agreed on', async () => {
    const { client } = await open(echo, { maxPayload: 1000, perMessageDeflate: true }, DEFLATE)
    client.read(frame(2, '', { length: 1001n }))
    expect(client.told).toEqual(['close 1009'])
  })

  it.each(['000500faff4865', '000500faff', '000500', 'f248', 'f2'])(
    '%s, a compressed message that is cut, is refused with 1007',
    async (bytes) => {
      const { client } = await open(echo, { perMessageDeflate: true }, DEFLATE)
      client.read(frame(1, Buffer.from(bytes, 'hex'), { rsv: RSV1 }))
      expect(client.told).toEqual(['close 1007'])
    },
  )

  it('a compressed message is refused wherever it is cut', async () => {
    const whole = deflated('compressed as one block, each letter by its own code')
    for (let length = 1; length < whole.length; length++) {
      const { client } = await open(echo, { perMessageDeflate: true }, DEFLATE)
      expect(client.read(frame(1, whole.subarray(0, length), { rsv: RSV1 })).told).toEqual(['close 1007'])
    }
  })

  it('an empty message may have no bytes when compressed', async () => {
    const { client } = await open(echo, { perMessageDeflate: true }, DEFLATE)
    client.read(frame(1, '', { rsv: RSV1 }), frame(1, '\0', { rsv: RSV1 }))
    expect(client.told).toEqual(['text ', 'text '])
  })

  it('what is no DEFLATE, and what is no UTF-8 when inflated, is refused with 1007', async () => {
    for (const payload of [Buffer.from('ffffffff', 'hex'), deflated(Buffer.from([0xc3, 0x28]))]) {
      const { client } = await open(echo, { perMessageDeflate: true }, DEFLATE)
      expect(client.read(frame(1, payload, { rsv: RSV1 })).told).toEqual(['close 1007'])
    }
  })

  it('messages behind one that is being inflated wait, in order, and a close too; a ping does not', async () => {
    const options = { perMessageDeflate: { threshold: 1e9 } }
    const { client } = await open(echo, options, DEFLATE)
    const large = frame(2, deflated(Buffer.alloc(1_000_000)), { rsv: RSV1 })
    client.read(Buffer.concat([large, frame(1, 'behind'), large, frame(9, 'ping'), closeFrame(1000)]))
    await until('it is closed', () => client.socket.closed !== undefined)
    const opcodes = readFrames(client.body).map(({ opcode }) => opcode)
    expect(opcodes).toEqual([10, 2, 1, 2, 8])
  })

  it('any bytes are inflated or refused', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), fc.boolean(), async (bytes, real) => {
        const { fake, client } = await open(echo, { maxPayload: 2000, perMessageDeflate: true }, DEFLATE)
        client.read(frame(2, real ? deflated(bytes) : bytes, { rsv: RSV1 }))
        expect(['binary', 'close']).toContain(client.told[0]?.split(' ')[0])
        if (real) expect(readFrames(client.body)[0]!.payload.equals(bytes)).toBe(true)
        expect(fake.logger.find('error', '')).toEqual([])
      }),
      { numRuns: 200 },
    )
  })

  it('few zlib calls run at a time, in order', () => {
    const queue = new ZlibQueue(2)
    const started: number[] = []
    const done: (() => void)[] = []
    for (let i = 0; i < 5; i++) {
      queue.run((end) => {
        started.push(i)
        done.push(end)
      })
    }
    expect(started).toEqual([0, 1])
    done[1]!()
    expect(started).toEqual([0, 1, 2])
    done[0]!()
    done[2]!()
    expect(started).toEqual([0, 1, 2, 3, 4])
  })
})

/** One flushed step of a zlib stream that goes on. */
async function through(stream: zlib.DeflateRaw | zlib.InflateRaw, bytes: Buffer): Promise<Buffer> {
  const chunks: Buffer[] = []
  const take = (chunk: Buffer): void => void chunks.push(chunk)
  stream.on('data', take)
  stream.write(bytes)
  await new Promise<void>((resolve) => stream.flush(SYNC, () => resolve()))
  stream.off('data', take)
  return Buffer.concat(chunks)
}
