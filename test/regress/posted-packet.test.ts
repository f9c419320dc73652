// A handler that posted one packet with its memory took away what other connections had kept, and broke those that came.
import { MessageChannel } from 'node:worker_threads'
import { type Handler, Server, type ServerOptions } from 'ringloop'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import type { ProtocolConnection } from '../../src/connection.js'
import { ProtobufProtocol } from '../../src/plugins/protobuf/index.js'
import { DelimiterProtocol } from '../../src/protocol/delimiter.js'
import { FixedLengthProtocol } from '../../src/protocol/fixed-length.js'
import { LengthFieldProtocol } from '../../src/protocol/length-field.js'
import { LineProtocol } from '../../src/protocol/line.js'
import type { Protocol } from '../../src/protocol/protocol.js'
import { RawProtocol } from '../../src/protocol/raw.js'
import { RingBuffer } from '../../src/ringbuffer/ring-buffer.js'
import { allocateBuffer, BufferSlab } from '../../src/ringbuffer/slab.js'
import { connectRaw, type RawClient } from '../support/raw-client.js'
import { frame, open } from '../support/websocket.js'

const LOOP = new URL('../fixtures/poster.mjs', import.meta.url)

const servers: { stop(): Promise<void> }[] = []
const clients: RawClient[] = []
const { port1, port2 } = new MessageChannel()

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  await Promise.all(servers.splice(0).map((server) => server.stop()))
})

afterAll(() => {
  port1.close()
  port2.close()
})

/** Posts it as one who believes that it is all his. */
function post(data: Buffer): void {
  try {
    port1.postMessage(data, [data.buffer as ArrayBuffer])
  } catch (error) {
    if ((error as Error).name !== 'DataCloneError') throw error
  }
}

describe.each(['native', 'net'] as const)('on the %s poller', (poller) => {
  it.each([0, 1, 2])('what others keep stays whole, and more can be sent: %i threads', async (numLoops) => {
    const options: ServerOptions = { address: '127.0.0.1:0', logger: false, poller }
    const { default: handler, protocol } = (await import(LOOP.href)) as {
      default: Handler
      protocol: Protocol
    }
    const server =
      numLoops === 0
        ? new Server(handler, { ...options, protocol })
        : new Server(LOOP, { ...options, numLoops })
    servers.push(server)
    await server.start()
    const say = async (client: RawClient, line: string, answer: string): Promise<void> => {
      const from = client.length
      client.write(`${line}\n`)
      const said = await client.bytes(from + answer.length + 1)
      expect(said.toString('utf8', from)).toBe(`${answer}\n`)
    }
    for (let i = 0; i < 12; i++) clients.push(await connectRaw({ port: server.address.port }))
    const [first, second, ...others] = clients as [RawClient, RawClient, ...RawClient[]]
    for (const [i, client] of others.entries()) await say(client, `mine ${i}`, 'kept')
    await say(first, 'post', 'posted')
    await say(second, 'post', 'posted')
    for (const client of others) await say(client, 'more', 'kept')
    for (const [i, client] of others.entries()) await say(client, 'show', `mine ${i} more`)
    expect(clients.some(({ closed }) => closed)).toBe(false)
  })
})

const PING = { encode: () => ({ finish: () => Buffer.alloc(0) }), decode: (bytes: Uint8Array) => ({ bytes }) }

describe('a packet', () => {
  it.each<[string, Protocol<never, never>, Buffer]>([
    ['RawProtocol', new RawProtocol() as never, Buffer.from('a packet')],
    ['LineProtocol', new LineProtocol() as never, Buffer.from('a packet\n')],
    ['LineProtocol, no bytes', new LineProtocol() as never, Buffer.from('\n')],
    ['DelimiterProtocol', new DelimiterProtocol({ delimiter: '\0' }) as never, Buffer.from('a packet\0')],
    ['FixedLengthProtocol', new FixedLengthProtocol({ length: 8 }) as never, Buffer.from('a packet')],
    ['LengthFieldProtocol', new LengthFieldProtocol({ size: 1 }) as never, Buffer.from('\x08a packet')],
    ['LengthFieldProtocol, long', new LengthFieldProtocol({ size: 2 }) as never, lengthFrame(1000)],
    [
      'ProtobufProtocol',
      new ProtobufProtocol({ types: { p: PING } }) as never,
      protobufFrame('p', 'a packet'),
    ],
  ])('of %s is in memory that nobody can take away', (_name, protocol, bytes) => {
    const c = { session: 0 } as ProtocolConnection<never>
    const ring = new RingBuffer()
    const next = (): Buffer => {
      ring.write(bytes)
      return protocol.unPacket(c, ring)!.data
    }
    const kept = next()
    const before = Buffer.from(kept)
    post(next())
    post(next())
    expect(kept.equals(before)).toBe(true)
    expect(next().equals(before)).toBe(true)
  })

  it('of a WebSocket is in memory that nobody can take away', async () => {
    const kept: Buffer[] = []
    const { client } = await open({
      onMessage(_c, _ctx, data) {
        kept.push(data)
        post(data)
      },
    })
    const fragments = [frame(1, 'frag', { fin: false }), frame(0, 'ments')]
    client.read(
      frame(1, 'small'),
      frame(1, ''),
      frame(2, ''),
      ...fragments,
      frame(1, 'x'.repeat(300)),
      frame(1, ''),
    )
    expect(kept.map(String)).toEqual(['small', '', '', 'fragments', 'x'.repeat(300), ''])
  })
})

describe('a slab', () => {
  it('cannot be transferred, whichever one it is', () => {
    const slab = new BufferSlab(64)
    for (let i = 0; i < 20; i++) {
      const data = slab.cut(slab.reserve(10), 10)
      post(data)
      expect(data.length).toBe(10)
      expect(data.byteOffset % 8).toBe(0)
    }
    expect(() => slab.reserve(65)).toThrow(RangeError)
    for (const length of [0, 1, 256, 257, 16_384]) {
      const data = allocateBuffer(length).fill(7)
      post(data)
      expect([data.length, data.every((byte) => byte === 7)]).toEqual([length, true])
    }
  })
})

function lengthFrame(length: number): Buffer {
  const bytes = Buffer.alloc(2 + length, 'x')
  bytes.writeUInt16BE(length)
  return bytes
}

function protobufFrame(name: string, message: string): Buffer {
  const bytes = Buffer.alloc(6)
  bytes.writeUInt32BE(2 + name.length + message.length)
  bytes.writeUInt16BE(name.length, 4)
  return Buffer.concat([bytes, Buffer.from(name), Buffer.from(message)])
}
