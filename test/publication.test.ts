/** How much may be on its way between two threads, and what of it crosses: the asking side, without threads. */
import { describe, expect, it } from 'vitest'
import type { Publication } from '../src/loop/publication.js'
import { SharedStats } from '../src/loop/stats.js'
import { Publisher } from '../src/threads/publication.js'
import { answerTo, Questions } from '../src/threads/questions.js'

const HALF = 32 * 1024 * 1024
const SENT = { sent: 1, dropped: 0, closed: 0 }
const LEFT_OUT = { sent: 0, dropped: 1, closed: 0 }

function scene(loops = 1) {
  const questions = new Questions()
  const stats = new SharedStats(2)
  const publisher = new Publisher(questions, stats, 1, loops)
  const posted: { id: number; publication: Publication }[] = []
  return {
    questions,
    posted,
    drops: () => stats.snapshot().loops[1]!.slowConsumerDrops,
    publish: (out: unknown) =>
      publisher.publish({ topic: 't', out, options: {} }, (id, publication) =>
        posted.push({ id, publication }),
      ),
    answer: async (id: number) => questions.settle(await answerTo(id, () => SENT)),
  }
}

describe('what is under way to a loop', () => {
  it('is bounded by its number: what is too much is left out, until answers come', async () => {
    const { publish, posted, answer, drops } = scene()
    const all = Array.from({ length: 16_384 }, () => publish('x'))
    expect(await publish('too much')).toEqual(LEFT_OUT)
    expect([posted.length, drops()]).toEqual([16_384, 1])
    await answer(1)
    expect(await all[0]).toEqual(SENT)
    void publish('again')
    expect(posted.at(-1)?.publication.out).toBe('again')
    expect(await publish('too much')).toEqual(LEFT_OUT)
    expect(drops()).toBe(2)
  })

  it.each([
    ['bytes', Buffer.alloc(32 * 1024 * 1024)],
    ['a string', 'x'.repeat(32 * 1024 * 1024)],
    ['a message with bytes', { data: Buffer.alloc(HALF), binary: true }],
    ['a message within one', { type: 'a', message: { data: Buffer.alloc(HALF) } }],
    ['a list', [{ text: 'x'.repeat(HALF / 2) }, ['x'.repeat(HALF / 2)]]],
    ['a map', new Map([['x'.repeat(HALF / 2), new Set(['x'.repeat(HALF / 2)])]])],
    [
      'other views and a buffer',
      [new Float64Array(HALF / 16), new DataView(new ArrayBuffer(HALF / 4)), new ArrayBuffer(HALF / 4)],
    ],
    ['an object of a class', Object.assign(new (class {})(), { data: 'x'.repeat(HALF) })],
  ])('is bounded by its length: %s', async (_what, out) => {
    const { publish, posted, answer } = scene()
    void publish(out)
    void publish(out)
    expect(await publish('x')).toEqual(LEFT_OUT)
    await answer(1)
    void publish('x')
    expect(posted).toHaveLength(3)
  })

  it('is bounded too where it contains itself, or more than anybody looks at', async () => {
    const { publish, questions } = scene()
    const itself: unknown[] = ['x'.repeat(1000)]
    itself.push(itself)
    void publish(itself)
    void publish(Array.from({ length: 1_000_000 }, () => 'x'))
    expect(questions.bytes).toBeGreaterThan(1000)
    expect(questions.bytes).toBeLessThan(1_000_000)
  })

  it('may be more where the answer waits for more loops', async () => {
    const { publish, posted, drops } = scene(2)
    for (let i = 0; i < 2 * 16_384; i++) void publish('x')
    expect(await publish('x')).toEqual({ sent: 0, dropped: 2, closed: 0 })
    expect(posted).toHaveLength(2 * 16_384)
    expect(drops()).toBe(2)
  })

  it('is nothing once the thread has ended', async () => {
    const { publish, questions } = scene()
    const lost = publish('x'.repeat(64 * 1024 * 1024))
    questions.giveUp()
    expect(await lost).toEqual({ sent: 0, dropped: 0, closed: 0 })
    expect([questions.size, questions.bytes]).toEqual([0, 0])
    questions.settle({ type: 'answer', id: 1, result: SENT, error: undefined, code: undefined })
  })
})

describe('what crosses', () => {
  it('are the bytes alone, not the memory that they are a part of', () => {
    const { publish, posted } = scene()
    const part = Buffer.from(`${'.'.repeat(5000)}part`).subarray(5000)
    const whole = new Uint8Array([1, 2])
    for (const out of [part, whole, { data: part, binary: true }]) void publish(out)
    const [bytes, same, message] = posted.map(({ publication }) => publication.out) as [
      Uint8Array,
      Uint8Array,
      { data: Uint8Array; binary: boolean },
    ]
    expect(Buffer.from(bytes).toString()).toBe('part')
    expect(bytes.buffer.byteLength).toBe(4)
    expect(same).toEqual(whole)
    whole.fill(9)
    expect(same).toEqual(new Uint8Array([1, 2]))
    expect(message).toEqual({ data: bytes, binary: true })
    expect(message.data.buffer.byteLength).toBe(4)
  })

  it('what cannot rejects with ERR_RINGLOOP_PACKET, and is not under way', async () => {
    const { questions, publish, posted } = scene()
    for (const out of [() => {}, { data: 'x', more: () => {} }, [Symbol('x')]]) {
      await expect(publish(out)).rejects.toMatchObject({ code: 'ERR_RINGLOOP_PACKET' })
    }
    expect([questions.size, questions.bytes, posted.length]).toEqual([0, 0, 0])
  })

  it('an answer that is an error rejects with its text', async () => {
    const { questions } = scene()
    const asked = questions.ask(0, 5, () => {})
    questions.settle(
      await answerTo(1, () => {
        throw new Error('not to be packed')
      }),
    )
    await expect(asked).rejects.toMatchObject({ code: 'ERR_RINGLOOP_PACKET', message: 'not to be packed' })
  })
})
