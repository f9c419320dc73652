/** Following a history: whatever comes twice, late, early, not at all or while it is being read, each is delivered once, in order. */
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { KeptFeed } from '../../src/broker/kept-feed.js'
import type { BrokerPosition, KeptMessages } from '../../src/broker.js'
import type { Gap } from '../../src/handler.js'
import { rounds } from '../support/wait.js'

/** An engine with one topic, and a feed of it. */
class Scene {
  offset = 0
  epoch = 'e1'
  size = 1000
  readonly delivered: string[] = []
  readonly gaps: Gap[] = []
  readonly failed: unknown[] = []
  readCount = 0
  #reads: (() => void)[] = []
  readonly feed = new KeptFeed({
    read: (since) =>
      new Promise((resolve, reject) => {
        this.readCount++
        this.#reads.push(() => (this.isAway ? reject(new Error('away')) : resolve(this.#read(since))))
      }),
    deliver: (_bytes, { epoch, offset }) => this.delivered.push(`${epoch}-${offset}`),
    gap: (gap) => this.gaps.push(gap),
    changed: () => {},
    readFailed: (error) => this.failed.push(error),
  })
  isAway = false

  #read(since: BrokerPosition | undefined): KeptMessages {
    const position = { epoch: this.epoch, offset: this.offset }
    if (since === undefined) return { position, messages: [], recovered: true }
    const first = Math.max(1, this.offset - this.size + 1)
    const from = since.epoch === this.epoch ? Math.max(first, since.offset + 1) : first
    const messages = Array.from({ length: this.offset - from + 1 }, (_, i) => ({
      offset: from + i,
      bytes: new Uint8Array(),
    }))
    return { position, messages, recovered: since.epoch === this.epoch && from === since.offset + 1 }
  }

  /** Published; the message comes to the feed, or is lost. */
  publish(isLost = false): void {
    this.offset++
    if (!isLost) this.send(this.offset)
  }

  send(offset: number): void {
    this.feed.message(new Uint8Array(), { epoch: this.epoch, offset })
  }

  async answer(): Promise<void> {
    while (this.#reads.length > 0) await this.answerOnce()
  }

  async answerOnce(): Promise<void> {
    this.#reads.shift()?.()
    await rounds()
  }
}

const upTo = (last: number, from = 1): string[] =>
  Array.from({ length: last - from + 1 }, (_, i) => `e1-${from + i}`)

describe('a feed', () => {
  it('begins where the topic is', async () => {
    const scene = new Scene()
    scene.offset = 5
    scene.feed.joined()
    expect([scene.feed.isLive, scene.feed.hasBegun]).toEqual([false, false])
    await scene.answer()
    expect([scene.feed.isLive, scene.feed.hasBegun]).toEqual([true, true])
    scene.publish()
    expect(scene.delivered).toEqual(['e1-6'])
  })

  it('begins with the first message where that comes before it knows where the topic is', async () => {
    const scene = new Scene()
    scene.offset = 5
    scene.feed.joined()
    scene.publish()
    scene.publish()
    await scene.answer()
    scene.publish()
    expect(scene.delivered).toEqual(upTo(8, 6))
    expect(scene.gaps).toEqual([])
  })

  it('loses nothing that comes while it cannot find out where the topic is', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      const scene = new Scene()
      scene.offset = 5
      scene.isAway = true
      scene.feed.joined()
      scene.publish()
      await scene.answer()
      scene.publish()
      scene.isAway = false
      vi.advanceTimersByTime(1000)
      await scene.answer()
      scene.publish()
      expect(scene.delivered).toEqual(upTo(8, 6))
      expect(scene.gaps).toEqual([])
    } finally {
      vi.useRealTimers()
    }
  })

  it('delivers each once and in order, whatever becomes of the messages', async () => {
    const step = fc.oneof(
      { weight: 6, arbitrary: fc.constant('publish') },
      { weight: 1, arbitrary: fc.constantFrom('lose', 'answer', 'part', 'join', 'repeat') },
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const scene = new Scene()
        scene.feed.joined()
        await scene.answer()
        let isJoined = true
        for (const what of steps) {
          if (what === 'publish') scene.publish(!isJoined)
          else if (what === 'lose') scene.publish(true)
          else if (what === 'answer') await scene.answer()
          else if (what === 'repeat') scene.send(Math.max(1, scene.offset))
          else if (what === 'part') {
            isJoined = false
            scene.feed.parted()
          } else if (!isJoined) {
            isJoined = true
            scene.feed.joined()
          }
        }
        if (!isJoined) scene.feed.joined()
        await scene.answer()
        scene.publish()
        await scene.answer()
        expect(scene.delivered).toEqual(upTo(scene.offset))
        expect([scene.gaps, scene.feed.isLive]).toEqual([[], true])
      }),
    )
  })

  it('reads again where more came while it was read than it keeps', async () => {
    const scene = new Scene()
    scene.size = 10_000
    scene.feed.joined()
    await scene.answer()
    scene.publish(true)
    for (let i = 0; i < 1500; i++) scene.publish()
    await scene.answer()
    expect(scene.delivered).toEqual(upTo(1501))
  })

  it('tells what the history has lost: how much, or that it is another one', async () => {
    const scene = new Scene()
    scene.size = 2
    scene.feed.joined()
    await scene.answer()
    scene.feed.parted()
    for (let i = 0; i < 5; i++) scene.publish(true)
    scene.feed.joined()
    await scene.answer()
    expect(scene.delivered).toEqual(['e1-4', 'e1-5'])
    expect(scene.gaps).toEqual([{ missed: 3, reason: 'history-lost' }])
    scene.epoch = 'e2'
    scene.offset = 0
    scene.publish()
    await scene.answer()
    expect(scene.delivered).toEqual(['e1-4', 'e1-5', 'e2-1'])
    expect(scene.gaps[1]).toEqual({ missed: undefined, reason: 'history-lost' })
  })

  it.each([
    ['of a history that does not exist', 'x', 1],
    ['of a place that is far ahead', 'e1', 999_999],
  ])('reads once for a message %s, and goes on', async (_what, epoch, offset) => {
    const scene = new Scene()
    scene.feed.joined()
    await scene.answer()
    scene.publish()
    scene.feed.message(new Uint8Array(), { epoch, offset })
    scene.publish()
    for (let i = 0; i < 3; i++) await scene.answerOnce()
    expect([scene.readCount, scene.feed.isLive]).toEqual([2, true])
    scene.publish()
    expect(scene.delivered).toEqual(upTo(3))
    expect(scene.gaps).toEqual([])
  })

  it('reads again later where that has failed, unless it was left', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      const scene = new Scene()
      scene.isAway = true
      scene.feed.joined()
      await scene.answer()
      expect([scene.failed.length, scene.feed.isLive]).toEqual([1, false])
      scene.isAway = false
      vi.advanceTimersByTime(1000)
      await scene.answer()
      expect(scene.feed.isLive).toBe(true)
      scene.isAway = true
      scene.publish(true)
      scene.publish()
      await scene.answer()
      expect(scene.failed).toHaveLength(2)
      scene.feed.parted()
      expect(vi.getTimerCount()).toBe(0)
    } finally {
      vi.useRealTimers()
    }
  })
})
