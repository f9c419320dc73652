/** What a WebSocket does while a promise of `onMessage` is pending: its messages wait, its pings do not. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { settle } from './support/fake-loop.js'
import { until } from './support/wait.js'
import { frame, open, type WebSocketHandler } from './support/websocket.js'

const TEXT = 1
const PING = 9

/** Answers each message when it is told to. */
function slow(): { readonly handler: WebSocketHandler; readonly seen: string[]; answer(): void } {
  const seen: string[] = []
  const waiting: (() => void)[] = []
  return {
    seen,
    handler: {
      onMessage: (_c, _ctx, data) =>
        new Promise((resolve) => {
          seen.push(data.toString())
          waiting.push(() => resolve(`re ${data}`))
        }),
    },
    answer: () => waiting.shift()?.(),
  }
}

describe('a ping, while an answer is pending', () => {
  it('is answered at once, and only once', async () => {
    const { handler, seen, answer } = slow()
    const { client } = await open(handler)
    client.read(frame(TEXT, 'a'), frame(PING, '1'))
    await settle()
    expect(client.told).toEqual(['pong 1'])
    client.read(frame(TEXT, 'b'), frame(PING, '2'), frame(TEXT, 'c'))
    await settle()
    expect([seen, client.told]).toEqual([['a'], ['pong 1', 'pong 2']])
    answer()
    await until('the second is handed over', () => seen.length === 2)
    client.read(frame(PING, '3'))
    answer()
    await until('the third is handed over', () => seen.length === 3)
    answer()
    await until('all are answered', () => client.told.length === 6)
    expect(client.told).toEqual(['pong 1', 'pong 2', 'text re a', 'pong 3', 'text re b', 'text re c'])
    client.read(frame(PING, '4'))
    await settle()
    expect(client.told.at(-1)).toBe('pong 4')
  })

  it('in the same read as the message that is being answered', async () => {
    const { handler, answer } = slow()
    const { client } = await open(handler)
    client.read(Buffer.concat([frame(TEXT, 'a'), frame(PING, '1'), frame(TEXT, 'b'), frame(PING, '2')]))
    await settle()
    expect(client.told).toEqual(['pong 1', 'pong 2'])
    answer()
    await until('the second waits', () => client.told.length === 3)
    answer()
    await until('all are answered', () => client.told.length === 4)
    expect(client.told).toEqual(['pong 1', 'pong 2', 'text re a', 'text re b'])
  })

  it('between the fragments of a message', async () => {
    const { handler, answer, seen } = slow()
    const { client } = await open(handler)
    client.read(frame(TEXT, 'a'), frame(TEXT, 'be', { fin: false }), frame(PING, '1'), frame(0, 'gin'))
    await settle()
    expect(client.told).toEqual(['pong 1'])
    answer()
    await until('the fragments are put together', () => seen.length === 2)
    expect(seen).toEqual(['a', 'begin'])
  })

  it.each([
    ['an unmasked one', frame(PING, 'x', { mask: false })],
    ['a fragmented one', frame(PING, 'x', { fin: false })],
    ['an endless one', frame(PING, 'x', { lengthBytes: 9, length: 2n ** 40n })],
    ['one behind a frame that is none', Buffer.concat([frame(3, 'x'), frame(PING, 'x')])],
    ['one behind a reserved bit', Buffer.concat([frame(TEXT, 'x', { rsv: 0x20 }), frame(PING, 'x')])],
  ])('is not answered where it is wrong: %s', async (_name, bytes) => {
    const { handler, answer } = slow()
    const { client } = await open(handler)
    client.read(frame(TEXT, 'a'), bytes)
    await settle()
    expect(client.told).toEqual([])
    answer()
    await until('it has been closed', () => client.told.at(-1) === 'close 1002')
    expect(client.told).toEqual(['text re a', 'close 1002'])
  })

  it('whatever pieces it all comes in: every ping has one pong, and messages keep their order', async () => {
    const what = fc.array(fc.tuple(fc.constantFrom('message', 'ping'), fc.integer({ min: 0, max: 200 })), {
      minLength: 1,
      maxLength: 15,
    })
    await fc.assert(
      fc.asyncProperty(
        what,
        fc.array(fc.nat(), { maxLength: 12 }),
        fc.array(fc.boolean()),
        async (all, cuts, when) => {
          const { handler, answer, seen } = slow()
          const { client } = await open(handler, { heartbeat: 0 })
          const texts = all.map(([kind, n], i) => `${kind} ${i} ${'x'.repeat(kind === 'ping' ? n % 100 : n)}`)
          const bytes = Buffer.concat(texts.map((text) => frame(text.startsWith('ping') ? PING : TEXT, text)))
          const ends = [...cuts.map((cut) => cut % bytes.length), bytes.length].sort((a, b) => a - b)
          let from = 0
          for (const [i, to] of ends.entries()) {
            if (to > from) client.read(bytes.subarray(from, to))
            from = to
            if (when[i] === true) answer()
            await settle()
          }
          const messages = texts.filter((text) => text.startsWith('message'))
          const pings = texts.filter((text) => text.startsWith('ping'))
          await until('all are answered', () => {
            answer()
            return client.told.length >= all.length
          })
          expect(seen).toEqual(messages)
          expect(client.told.filter((text) => text.startsWith('pong'))).toEqual(
            pings.map((text) => `pong ${text}`),
          )
          expect(client.told.filter((text) => text.startsWith('text'))).toEqual(
            messages.map((text) => `text re ${text}`),
          )
        },
      ),
      { numRuns: 100 },
    )
  })
})
