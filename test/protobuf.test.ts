import fc from 'fast-check'
import protobuf from 'protobufjs'
import { type CloseReason, EventLoop, Server } from 'ringloop'
import { type AnyMessage, ProtobufProtocol } from 'ringloop/protobuf'
import { afterEach, describe, expect, it } from 'vitest'
import type { Connection } from '../src/connection.js'
import { ProtocolError } from '../src/errors.js'
import { ProtobufProtocol as ProtobufSource } from '../src/plugins/protobuf/protobuf-protocol.js'
import { RingBuffer } from '../src/ringbuffer/ring-buffer.js'
import { endExamples, runExample, startExample } from './example-process.js'
import { packetsOf } from './support/pieces.js'
import { connectRaw } from './support/raw-client.js'
import { until, within } from './support/wait.js'

const { root } = protobuf.parse(`
  syntax = "proto3";
  message Msg1 { string name = 1; int32 id = 2; }
  message Note { bytes body = 1; repeated double values = 2; }
`)
const types = { msg1: root.lookupType('Msg1'), nöte: root.lookupType('Note') }
type Message = AnyMessage<typeof types>
type Out = Message | Uint8Array

/** As gev's PackMessage writes it: 14 bytes follow, 4 of them name the type, `name` is "Bob", `id` is 300. */
const BOB = Buffer.from('0000000e00046d736731' + '0a03426f6210ac02', 'hex')
const bob = types.msg1.create({ name: 'Bob', id: 300 })

const c = {} as Connection<Out>

function unpack(stream: Uint8Array, cuts: readonly number[], maxPacket = 4096): string[] {
  const protocol = new ProtobufSource({ types, maxPacket })
  const ring = new RingBuffer(16)
  const seen: string[] = []
  try {
    for (const { ctx, data } of packetsOf(protocol, c, ring, stream, cuts)) {
      seen.push(`${ctx.type} ${JSON.stringify(ctx.message)} ${data.toString('hex')}`)
    }
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error
    return [...seen, error.message]
  }
  return [...seen, `left ${ring.length}`]
}

function pack(message: Out, ctx?: Message): Buffer {
  const packed = new ProtobufSource({ types }).packet(c, message, ctx)
  return packed instanceof Uint8Array ? Buffer.from(packed) : Buffer.concat(packed)
}

describe('the protobuf protocol', () => {
  it('writes and reads the bytes of gev', () => {
    expect(pack({ type: 'msg1', message: bob }).equals(BOB)).toBe(true)
    expect(unpack(BOB, [])).toEqual([
      `msg1 {"name":"Bob","id":300} ${BOB.subarray(10).toString('hex')}`,
      'left 0',
    ])
  })

  it('gives back what it packed, however it is split', () => {
    const message = fc.oneof(
      fc
        .record({ name: fc.string(), id: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }) })
        .map((fields): Message => ({ type: 'msg1', message: types.msg1.create(fields) })),
      fc
        .record({ body: fc.uint8Array(), values: fc.array(fc.double()) })
        .map((fields): Message => ({ type: 'nöte', message: types.nöte.create(fields) })),
    )
    fc.assert(
      fc.property(
        fc.array(message, { maxLength: 6 }),
        fc.array(fc.nat(), { maxLength: 6 }),
        (messages, cuts) => {
          const stream = Buffer.concat(messages.map((each) => pack(each)))
          const whole = unpack(stream, [])
          expect(whole).toHaveLength(messages.length + 1)
          for (const [i, { type, message }] of messages.entries()) {
            const bytes = Buffer.from(types[type].encode(message).finish())
            expect(whole[i]).toBe(
              `${type} ${JSON.stringify(types[type].decode(bytes))} ${bytes.toString('hex')}`,
            )
          }
          expect(unpack(stream, cuts)).toEqual(whole)
          expect(
            unpack(
              stream,
              Array.from(stream, (_, i) => i),
            ),
          ).toEqual(whole)
        },
      ),
      { numRuns: 60 },
    )
  })

  it('takes an empty message', () => {
    expect(unpack(Buffer.from('0000000600046d736731', 'hex'), [])).toEqual(['msg1 {} ', 'left 0'])
  })

  it('packs bytes as a message of the type that was asked with, each way the same', () => {
    const protocol = new ProtobufSource({ types })
    const ctx: Message = { type: 'msg1', message: bob }
    const bytes = BOB.subarray(10)
    expect(pack(bytes, ctx).equals(BOB)).toBe(true)
    const target = Buffer.alloc(40)
    expect(protocol.packetInto(c, bytes, ctx, target, 3)).toBe(BOB.length)
    expect(target.subarray(3, 3 + BOB.length).equals(BOB)).toBe(true)
    expect(protocol.packetInto(c, bytes, ctx, target, 40 - BOB.length + 1)).toBe(-1)
    expect(protocol.packetInto(c, ctx, undefined, target, 0)).toBe(-1)
    expect(Buffer.from(protocol.broadcast(ctx)() as Uint8Array).equals(BOB)).toBe(true)
  })

  it.each([
    [
      'a frame above maxPacket, before it has come',
      '00000ffd',
      'a frame of 4097 bytes is above maxPacket (4096)',
    ],
    ['the longest frame', 'ffffffff', 'a frame of 4294967299 bytes is above maxPacket (4096)'],
    ['a frame without a type', '00000001', 'a frame of length 1 has no type'],
    ['a name longer than its frame', '000000060005', 'a type name of 5 bytes in a frame of length 6'],
    ['an unknown type', '0000000400026869', 'the message type "hi" is not known'],
    [
      'a type named as a member of objects',
      '0000000d000b636f6e7374727563746f72',
      'the message type "constructor" is not known',
    ],
    ['bytes that are no message', '0000000800046d7367310a05', /^a message of type msg1 cannot be decoded: /],
  ])('refuses %s', (_name, hex, reason) => {
    const seen = unpack(Buffer.from(hex, 'hex'), [])
    expect(seen).toHaveLength(1)
    expect(seen[0]).toMatch(reason)
  })

  it('refuses to send what has no known type', () => {
    const code = { code: 'ERR_RINGLOOP_PACKET' }
    expect(() => pack({ type: 'other' as never, message: bob })).toThrow(expect.objectContaining(code))
    expect(() => pack(Buffer.from('x'))).toThrow('needs the name of its type')
  })

  it.each([
    [{ types: {} }],
    [{ types: { a: {} as never } }],
    [{ types, maxPacket: 6 }],
    [{ types, maxPacket: Number.NaN }],
  ])('refuses the options %j', (options) => {
    expect(() => new ProtobufSource(options)).toThrow(
      expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }),
    )
  })
})

describe('a protobuf server', () => {
  const stops: (() => Promise<void>)[] = []
  afterEach(() => Promise.all(stops.splice(0).map((stop) => within('a stop', stop()))))

  async function start(reasons: CloseReason[]): Promise<Server<Message, Out>> {
    const server = new Server<Message, Out>(
      {
        onMessage: (_c, { type, message }, data) =>
          type === 'msg1' ? { type, message: { ...message, name: 'you' } as never } : data,
        onClose: (_c, reason) => void reasons.push(reason),
      },
      { address: '127.0.0.1:0', logger: false, protocol: new ProtobufProtocol({ types }) },
    )
    stops.push(() => server.stop())
    await within('the start', server.start())
    return server
  }

  it('speaks with a client of the same protocol', async () => {
    const server = await start([])
    const loop = new EventLoop({ logger: false })
    stops.push(() => loop.stop())
    const answers: unknown[] = []
    const client = await loop.connect<Message, Out>(
      { host: '127.0.0.1', port: server.address.port },
      {
        handler: { onMessage: (_c, { type, message }) => void answers.push([type, { ...message }]) },
        protocol: new ProtobufProtocol({ types }),
      },
    )
    client.send({ type: 'msg1', message: bob })
    client.send({ type: 'nöte', message: types.nöte.create({ values: [1.5] }) })
    await until('both are answered', () => answers.length === 2)
    expect(answers).toEqual([
      ['msg1', { name: 'you', id: 300 }],
      ['nöte', { values: [1.5] }],
    ])
  })

  it('closes a connection that sends an unknown type, with the reason', async () => {
    const reasons: CloseReason[] = []
    const server = await start(reasons)
    const client = await connectRaw({ port: server.address.port })
    client.write(Buffer.from('0000000400026869', 'hex'))
    await client.whenEnded()
    await until('it is closed', () => reasons.length === 1)
    expect(reasons[0]).toMatchObject({
      code: 'protocol-error',
      message: 'the message type "hi" is not known',
    })
    client.destroy()
  })
})

describe('the example protobuf', () => {
  afterEach(endExamples)

  it.each(['1', '2'])('its client is greeted by its server with %s loop(s)', async (loops) => {
    const server = await startExample('protobuf', '--loops', loops)
    const client = await runExample('protobuf', '--client', '--name', 'Ada', '--port', String(server.port))
    expect(client).toMatchObject({ code: 0, stdout: 'hello Ada, number 1\n', stderr: '' })
    expect((await server.stop()).code).toBe(0)
  })
})
