/** The parts of a server's end of its broker: numbers, holes, what is wanted, what is under way. */
import { describe, expect, it, vi } from 'vitest'
import { Echoes } from '../../src/broker/echoes.js'
import { GapWatch } from '../../src/broker/gap-watch.js'
import { InFlight } from '../../src/broker/in-flight.js'
import { parsePosition, positionText } from '../../src/broker/position.js'
import { Sequences } from '../../src/broker/sequences.js'
import { SharedReads } from '../../src/broker/shared-reads.js'
import { WantedTopics } from '../../src/broker/wanted-topics.js'
import type { KeptMessages } from '../../src/broker.js'
import { rounds, until } from '../support/wait.js'

describe('the numbers of publications', () => {
  it('count for each topic by itself', () => {
    const sequences = new Sequences()
    expect([sequences.next('a'), sequences.next('a'), sequences.next('b'), sequences.next('a')]).toEqual([
      1, 2, 1, 3,
    ])
  })

  it('are kept for the topics that were last published to', () => {
    const sequences = new Sequences(2)
    for (const topic of ['old', 'used', 'used', 'new']) sequences.next(topic)
    expect([sequences.next('used'), sequences.next('old')]).toEqual([3, 1])
  })
})

describe('holes', () => {
  it('are seen for each publisher, from its first on', () => {
    const watch = new GapWatch()
    expect([
      watch.see('p', 5),
      watch.see('p', 6),
      watch.see('q', 1),
      watch.see('p', 9),
      watch.see('q', 2),
    ]).toEqual([0, 0, 0, 2, 0])
  })

  it('are not those before a publisher that begins anew, but those after its beginning', () => {
    const watch = new GapWatch()
    watch.see('p', 10)
    expect([watch.see('p', 1), watch.see('p', 2)]).toEqual([0, 0])
    watch.see('q', 10)
    expect(watch.see('q', 4)).toBe(3)
  })

  it('are not seen of a publisher that was forgotten', () => {
    const watch = new GapWatch(2)
    for (const publisher of ['a', 'b', 'c']) watch.see(publisher, 1)
    expect([watch.see('a', 9), watch.see('c', 3)]).toEqual([0, 1])
  })
})

describe('a position', () => {
  it('goes to a client and comes back', () => {
    const position = { epoch: 'aZ_9', offset: Number.MAX_SAFE_INTEGER }
    expect(parsePosition(positionText(position))).toEqual(position)
    expect(parsePosition('e-0')).toEqual({ epoch: 'e', offset: 0 })
  })

  it.each([
    '',
    '-1',
    'e-',
    'e-01',
    'e--1',
    'e-1.5',
    'e-9999999999999999',
    `${'e'.repeat(65)}-1`,
    'é-1',
    'e-1\n',
  ])('is not %j', (text) => {
    expect(parsePosition(text)).toBeUndefined()
  })
})

describe('what is wanted', () => {
  function scene() {
    const told: [string[], string[]][] = []
    const wanted = new WantedTopics((...both) => told.push(both))
    return { wanted, told }
  }

  it('is told once a tick, when the first loop wants it and when the last one does not', async () => {
    const { wanted, told } = scene()
    wanted.set(0, 'a', true)
    wanted.set(0, 'b', true)
    wanted.set(1, 'a', true)
    await rounds()
    wanted.set(0, 'a', false)
    await rounds()
    wanted.set(1, 'a', false)
    wanted.set(1, 'c', true)
    await rounds()
    expect(told).toEqual([
      [['a', 'b'], []],
      [['c'], ['a']],
    ])
  })

  it('is not told of what comes and goes within a tick', async () => {
    const { wanted, told } = scene()
    wanted.set(0, 'a', true)
    wanted.set(0, 'a', false)
    await rounds()
    wanted.set(0, 'b', true)
    await rounds()
    wanted.set(0, 'b', false)
    wanted.set(0, 'b', true)
    await rounds()
    expect(told).toEqual([[['b'], []]])
  })

  it('is not what a loop wanted that is gone', async () => {
    const { wanted, told } = scene()
    wanted.set(0, 'a', true)
    wanted.set(0, 'b', true)
    wanted.set(1, 'b', true)
    await rounds()
    wanted.loopGone(0)
    wanted.loopGone(0)
    await rounds()
    expect(told).toEqual([
      [['a', 'b'], []],
      [[], ['a']],
    ])
  })
})

describe('what was published with history', () => {
  it('settles once, when it comes back or will not', async () => {
    const echoes = new Echoes()
    const [one, two, three] = [1, 2, 3].map((each) => echoes.expect(each, undefined))
    echoes.take(1)?.resolve({ sent: 5, dropped: 0, closed: 0 })
    echoes.giveUp(1)
    echoes.giveUp(2)
    echoes.giveUpAll()
    expect(echoes.take(3)).toBeUndefined()
    expect((await Promise.all([one, two, three])).map((result) => result?.sent)).toEqual([5, 0, 0])
  })
})

describe('reads of a history', () => {
  function scene() {
    const asked: { topic: string; since: unknown; answer(): void; refuse(): void }[] = []
    const read = (topic: string, since: unknown): Promise<KeptMessages> =>
      new Promise((resolve, reject) => {
        const position = { epoch: 'e', offset: asked.length + 1 }
        asked.push({
          topic,
          since,
          answer: () => resolve({ position, messages: [], recovered: true }),
          refuse: () => reject(new Error('away')),
        })
      })
    const reads = new SharedReads({ read } as never, new InFlight('b', 60_000, () => {}))
    return { asked, reads }
  }

  it('who asks while one is under way gets the next, all of them the same', async () => {
    const { asked, reads } = scene()
    const since = { epoch: 'e', offset: 1 }
    const first = reads.read('t', since)
    const later = [1, 2, 3].map(() => reads.read('t', { ...since }))
    expect(asked).toHaveLength(1)
    asked[0]!.answer()
    expect((await first).position.offset).toBe(1)
    await rounds()
    expect(asked).toHaveLength(2)
    asked[1]!.answer()
    expect((await Promise.all(later)).map(({ position }) => position.offset)).toEqual([2, 2, 2])
    await rounds()
    void reads.read('t', since)
    expect(asked).toHaveLength(3)
    reads.stop()
  })

  const position = { epoch: 'e', offset: 3 }
  it.each([
    [undefined],
    [{}],
    [{ position: { epoch: 'e-', offset: 3 }, messages: [], recovered: true }],
    [{ position: { epoch: 'e', offset: -1 }, messages: [], recovered: true }],
    [{ position, recovered: true }],
    [{ position, messages: [undefined], recovered: true }],
    [{ position, messages: [{ offset: '3', bytes: Buffer.from('x') }], recovered: true }],
    [{ position, messages: [{ offset: 3, bytes: 'x' }], recovered: true }],
  ])('of a broker that answers nonsense fail: %j', async (kept) => {
    const reads = new SharedReads(
      { name: 'mad', read: async () => kept } as never,
      new InFlight('b', 60_000, () => {}),
    )
    await expect(reads.read('t', undefined)).rejects.toThrow('the broker mad')
    reads.stop()
  })

  it('of another topic or place are reads of their own, and a failure is not shared with the next', async () => {
    const { asked, reads } = scene()
    const first = reads.read('t', { epoch: 'e', offset: 1 })
    const next = reads.read('t', { epoch: 'e', offset: 1 })
    void reads.read('t', { epoch: 'e', offset: 2 })
    void reads.read('t', undefined)
    void reads.read('u', { epoch: 'e', offset: 1 })
    expect(asked).toHaveLength(4)
    asked[0]!.refuse()
    await expect(first).rejects.toThrow('away')
    await rounds()
    asked[4]!.answer()
    expect((await next).recovered).toBe(true)
    reads.stop()
  })
})

describe('what is under way to the broker', () => {
  const never = (): Promise<never> => new Promise(() => {})
  const refused = expect.objectContaining({ code: 'ERR_RINGLOOP_BROKER' })

  it('settles as the broker does, also where it throws', async () => {
    const inFlight = new InFlight('b', 5_000, () => {})
    expect(await inFlight.run(1, async () => 'done')).toBe('done')
    await expect(inFlight.run(1, () => Promise.reject(new Error('no')))).rejects.toThrow('no')
    const thrower = (): Promise<void> => {
      throw new Error('at once')
    }
    await expect(inFlight.run(1, thrower)).rejects.toThrow('at once')
  })

  it('is bounded by its number and its bytes, and takes more when something is answered', async () => {
    const inFlight = new InFlight('b', 60_000, () => {})
    let answer!: () => void
    const first = inFlight.run(0, () => new Promise<void>((resolve) => (answer = resolve)))
    for (let i = 1; i < 8_192; i++) inFlight.run(0, never).catch(() => {})
    await expect(inFlight.run(0, never)).rejects.toEqual(refused)
    answer()
    await first
    await rounds()
    expect(await inFlight.run(0, async () => 'fits')).toBe('fits')
    inFlight.stop()
    const large = new InFlight('b', 60_000, () => {})
    large.run(32 * 1024 * 1024, never).catch(() => {})
    await expect(large.run(1, never)).rejects.toEqual(refused)
    large.stop()
  })

  it('that is never answered makes one stall, and not one for ever', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
    try {
      const onStall = vi.fn()
      const inFlight = new InFlight('b', 1000, onStall)
      let answer!: () => void
      const lost = inFlight.run(1, never)
      const late = inFlight.run(1, () => new Promise<void>((resolve) => (answer = resolve)))
      const both = expect(Promise.allSettled([lost, late])).resolves.toMatchObject([
        { status: 'rejected' },
        { status: 'rejected' },
      ])
      vi.advanceTimersByTime(1000)
      await both
      answer()
      await rounds()
      const next = inFlight.run(1, () => new Promise<void>((resolve) => (answer = resolve)))
      vi.advanceTimersByTime(900)
      answer()
      await next
      expect(onStall).toHaveBeenCalledTimes(1)
      inFlight.stop()
    } finally {
      vi.useRealTimers()
    }
  })

  it('that is not answered in time rejects, and everything new at once until there is an answer', async () => {
    const onStall = vi.fn()
    const inFlight = new InFlight('b', 40, onStall)
    let answer!: () => void
    const first = inFlight.run(1, () => new Promise<void>((resolve) => (answer = resolve)))
    const second = inFlight.run(1, never)
    await expect(first).rejects.toEqual(refused)
    await expect(second).rejects.toEqual(refused)
    const give = vi.fn(never)
    await expect(inFlight.run(1, give)).rejects.toEqual(refused)
    expect(give).not.toHaveBeenCalled()
    expect(onStall).toHaveBeenCalledTimes(1)
    answer()
    await until('it is not silent any more', async () => {
      try {
        return (await inFlight.run(1, async () => true)) === true
      } catch {
        return false
      }
    })
    inFlight.stop()
  })
})
