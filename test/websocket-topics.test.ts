/** Topics over WebSocket where compression is agreed on: publications that wait among messages that are being compressed. */
import zlib from 'node:zlib'
import { describe, expect, it } from 'vitest'
import type { DeflateOptions } from '../src/plugins/websocket/index.js'
import { type FakeLoop, settle } from './support/fake-loop.js'
import { until } from './support/wait.js'
import {
  Client,
  closeFrame,
  frame,
  readFrames,
  request,
  serve,
  type WebSocketHandler,
} from './support/websocket.js'

const RSV1 = 0x40
const TAIL = Buffer.from([0, 0, 0xff, 0xff])
const FLUSH = { finishFlush: zlib.constants.Z_SYNC_FLUSH }
const DEFLATE = { 'Sec-WebSocket-Extensions': 'permessage-deflate' }
/** Goes to a thread; with one more of some length behind it too much waits, and all of it goes out plain. */
const LARGE = 1024 * 1024 - 1000

/** A loop and clients that are all subscribed to `t`. */
async function subscribed(
  count: number,
  deflate: DeflateOptions,
  handler: WebSocketHandler = { onMessage() {} },
): Promise<{ fake: FakeLoop; clients: Client[] }> {
  const fake = await serve(handler, { perMessageDeflate: deflate })
  const clients = Array.from({ length: count }, () => new Client(fake).read(request(DEFLATE)))
  for (const { c } of clients) c.subscribe('t')
  return { fake, clients }
}

/** The messages as a client reads them that keeps its window. */
function messages(client: Client): string[] {
  let before = Buffer.alloc(0)
  return readFrames(client.body)
    .filter(({ opcode }) => opcode !== 8)
    .map(({ rsv, payload }) => {
      if ((rsv & RSV1) === 0) return payload.toString()
      const dictionary = before.length > 0 ? { dictionary: before.subarray(-32 * 1024) } : {}
      const message = zlib.inflateRawSync(Buffer.concat([payload, TAIL]), { ...FLUSH, ...dictionary })
      before = Buffer.concat([before, message])
      return message.toString()
    })
}

const shapes = (client: Client): string[] => messages(client).map((text) => `${text[0]} ${text.length}`)

describe('publications and messages that wait to be compressed', () => {
  it('a frame of one connection is not written over by that of another', async () => {
    const { fake, clients } = await subscribed(
      2,
      { threshold: 1024 },
      {
        onMessage: (c) => {
          clients[0]!.c.send('B'.repeat(LARGE))
          c.send('A'.repeat(100_000))
          void fake.loop.publish('t', 'p'.repeat(4000))
        },
      },
    )
    const [b, a] = clients as [Client, Client]
    a.read(Buffer.concat([frame(1, 'go'), closeFrame(1000)]))
    await until('b has both', () => messages(b).length === 2)
    expect(shapes(a)).toEqual(['A 100000', 'p 4000'])
    expect(shapes(b)).toEqual([`B ${LARGE}`, 'p 4000'])
  })

  it('one that makes too much wait comes once, and so does what waited', async () => {
    const { fake, clients } = await subscribed(
      2,
      { threshold: 1024 },
      {
        onMessage: (c) => {
          c.send('A'.repeat(LARGE))
          void fake.loop.publish('t', 'p'.repeat(4000))
        },
      },
    )
    const [b, a] = clients as [Client, Client]
    a.read(Buffer.concat([frame(1, 'go'), closeFrame(1000)]))
    await until('b has it', () => messages(b).length === 1)
    expect(shapes(a)).toEqual([`A ${LARGE}`, 'p 4000'])
    expect(shapes(b)).toEqual(['p 4000'])
  })
})

describe('a publication and a broadcast of one tick', () => {
  it.each([1, 2])('each subscriber inflates all that follows: %i of them', async (count) => {
    const { fake, clients } = await subscribed(count, { threshold: 0, serverNoContextTakeover: false })
    const published = `alpha ${'0123456789abcdefghij'.repeat(5)}`
    const broadcast = `beta ${'ZYXWVUTSRQPONMLKJIHG'.repeat(5)}`
    const sent = `${published}${broadcast}|${broadcast}${published}`
    void fake.loop.publish('t', published)
    fake.loop.broadcast(broadcast)
    for (const { c } of clients) c.send(sent)
    await settle()
    for (const client of clients) expect(messages(client)).toEqual([published, broadcast, sent])
  })
})
