/** Publications from loop to loop through their mailboxes: three loops' ends of it, in this thread. */
import assert from 'node:assert'
import { afterEach, describe, expect, it } from 'vitest'
import { AcceptOnlySink } from '../src/loop/poller/accept-only-sink.js'
import { NativePoller } from '../src/loop/poller/native-poller.js'
import { SharedStats } from '../src/loop/stats.js'
import type { LetterReader } from '../src/threads/letter.js'
import { LoopPost, openGroup } from '../src/threads/loop-post.js'
import { answerTo } from '../src/threads/questions.js'
import type { PublishMessage } from '../src/threads/thread-messages.js'
import { until } from './support/wait.js'

const LOOPS = 3
const SENT = { sent: 1, dropped: 0, closed: 0 }
const NOTHING = { sent: 0, dropped: 0, closed: 0 }

class NoSockets extends AcceptOnlySink {
  handleAccept(): void {
    assert.fail('no socket was sent')
  }
  handleAcceptError(): void {}
  handleFileLeft(): void {}
  handleLost(): void {}
}

interface Arrived extends PublishMessage {
  readonly from: number
}

class End {
  readonly poller = new NativePoller(new NoSockets())
  readonly arrived: Arrived[] = []
  letters = 0
  readonly post: LoopPost

  constructor(group: number, loop: number, stats: SharedStats) {
    this.post = new LoopPost(this.poller, group, loop, stats, this)
  }

  add(letter: LetterReader): void {
    this.letters++
    while (letter.hasMore) this.arrived.push({ ...letter.publication(), from: letter.from })
  }

  get outs(): string[] {
    return this.arrived.map(({ publication }) => String(publication.out))
  }

  /** Answers what has come so far. */
  async answer(work: () => unknown = () => SENT): Promise<void> {
    for (const { id, from } of this.arrived.splice(0)) this.post.answer(from, await answerTo(id, work))
  }
}

const ends: End[] = []

afterEach(() => {
  for (const { poller } of ends.splice(0)) poller.destroy()
})

async function scene(count = LOOPS) {
  const group = openGroup()
  const stats = new SharedStats(LOOPS)
  const all = Array.from({ length: count }, (_, loop) => new End(group, loop, stats))
  ends.push(...all)
  for (const { post } of all) post.take()
  return {
    group,
    stats,
    all: all as [End, End, End],
    drops: () => stats.snapshot().loops.map(({ slowConsumerDrops }) => slowConsumerDrops),
  }
}

describe('what a loop publishes', () => {
  it('of one turn is one letter to each of the others, in order, and none to itself', async () => {
    const { all } = await scene()
    const [a, b, c] = all
    const results = ['one', Buffer.from('two'), 'drei £', '🔔'].map((out) =>
      a.post.publish('t', out, 'close'),
    )
    await until('all are there', () => b.arrived.length === 4 && c.arrived.length === 4)
    expect([a.outs, b.outs, c.outs]).toEqual([[], b.outs, ['one', 'two', 'drei £', '🔔']])
    expect([b.letters, c.letters]).toEqual([1, 1])
    expect(b.arrived[0]?.publication).toEqual({ topic: 't', out: 'one', options: { slow: 'close' } })
    for (const end of [b, c]) await end.answer()
    expect(await Promise.all(results)).toEqual(Array(4).fill({ sent: 2, dropped: 0, closed: 0 }))
  })

  it('reaches a loop that has joined, and none that rests, which still answers and publishes', async () => {
    const { all } = await scene()
    const [a, b, c] = all
    const before = a.post.publish('t', 'before', undefined)
    await until('it is there', () => b.arrived.length === 1 && c.arrived.length === 1)
    c.post.rest()
    a.post.take()
    const after = a.post.publish('t', 'after', undefined)
    await until('it is there', () => b.arrived.length === 2)
    const last = c.post.publish('t', 'last', undefined)
    await until('it is there', () => b.arrived.length === 3 && a.arrived.length === 1)
    for (const end of all) await end.answer()
    expect(await Promise.all([before, after, last])).toEqual([2, 1, 2].map((sent) => ({ ...SENT, sent })))
    expect(c.outs).toEqual([])
  })

  it('and that no other loop can pack rejects with why, where others have answered too', async () => {
    const { all } = await scene()
    const [a, b, c] = all
    const publishing = a.post.publish('t', 'x', undefined)
    const rejected = expect(publishing).rejects.toMatchObject({
      code: 'ERR_RINGLOOP_PACKET',
      message: 'nothing for lines — ☹',
    })
    await until('it is there', () => b.arrived.length === 1 && c.arrived.length === 1)
    await b.answer(() => {
      throw new Error('nothing for lines — ☹')
    })
    await c.answer()
    await rejected
  })

  it('is its own again at once: bytes that are changed afterwards', async () => {
    const { all } = await scene()
    const [a, b] = all
    const bytes = Buffer.from('as it was')
    void a.post.publish('t', bytes, undefined)
    bytes.fill('!')
    await until('it is there', () => b.arrived.length === 1)
    expect(b.outs).toEqual(['as it was'])
  })

  it('alone resolves with nothing', async () => {
    const { all } = await scene(1)
    expect(await all[0].post.publish('t', 'x', undefined)).toEqual(NOTHING)
  })
})

describe('a loop that ends', () => {
  it('is not waited for, and what it has answered before counts', async () => {
    const { all } = await scene()
    const [a, b, c] = all
    const results = ['one', 'two'].map((out) => a.post.publish('t', out, undefined))
    await until('they are there', () => b.arrived.length === 2 && c.arrived.length === 2)
    b.arrived.pop()
    await b.answer()
    b.post.flush()
    b.poller.destroy()
    await c.answer()
    expect(await Promise.all(results)).toEqual([2, 1].map((sent) => ({ ...SENT, sent })))
    expect(await Promise.race([a.post.publish('t', 'three', undefined), undefined])).toBeUndefined()
    await until('it is there', () => c.arrived.length === 1)
    await c.answer()
  })

  it('settles what it has published itself', async () => {
    const { all } = await scene()
    const [a, b] = all
    const publishing = a.post.publish('t', 'x', undefined)
    await until('it is there', () => b.arrived.length === 1)
    a.poller.destroy()
    a.post.close()
    expect(await publishing).toEqual(NOTHING)
    expect(await a.post.publish('t', 'late', undefined)).toEqual(NOTHING)
    b.post.take()
    await b.answer()
    b.post.flush()
  })

  it('is followed by one with a mailbox of its own', async () => {
    const { all, group, stats } = await scene()
    const [a, b, c] = all
    b.poller.destroy()
    const next = new End(group, 1, stats)
    ends.push(next)
    a.post.take()
    const publishing = a.post.publish('t', 'x', undefined)
    await until('it is there', () => next.arrived.length === 1 && c.arrived.length === 1)
    for (const end of [next, c]) await end.answer()
    expect(await publishing).toEqual({ ...SENT, sent: 2 })
    expect(next.poller.mailbox).not.toBe(b.poller.mailbox)
  })
})

describe('a loop that is too far behind', () => {
  it('is left out and counted, the others get everything, and it gets the next when it has answered', async () => {
    const { all, drops } = await scene()
    const [a, b, c] = all
    const all64MiB = Array.from({ length: 64 }, () =>
      a.post.publish('t', Buffer.alloc(1024 * 1024), undefined),
    )
    await until('all are there', () => b.arrived.length === 64 && c.arrived.length === 64)
    await c.answer()
    c.post.flush()
    a.post.take()
    const behind = a.post.publish('t', 'behind', undefined)
    await until('c has it', () => c.arrived.length === 1)
    await c.answer()
    expect(await behind).toEqual({ sent: 1, dropped: 1, closed: 0 })
    expect(drops()).toEqual([0, 1, 0])
    await b.answer()
    expect(await Promise.all(all64MiB)).toEqual(Array(64).fill({ ...SENT, sent: 2 }))
    const again = a.post.publish('t', 'again', undefined)
    await until('both have it', () => b.arrived.length === 1 && c.arrived.length === 1)
    for (const end of [b, c]) await end.answer()
    expect(await again).toEqual({ ...SENT, sent: 2 })
    expect([b.outs, c.outs]).toEqual([[], []])
  })

  it('by their number', async () => {
    const { all, drops } = await scene(2)
    const [a] = all
    for (let i = 0; i < 16_384; i++) void a.post.publish('t', 'x', undefined)
    expect(await a.post.publish('t', 'too much', undefined)).toEqual({ ...NOTHING, dropped: 1 })
    expect(drops()).toEqual([0, 1, 0])
  })
})
