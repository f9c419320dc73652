/**
 * A subscriber that catches up, on a fake poller: what is published meanwhile, in whatever order it comes, a peer that reads
 * slowly, one that leaves, and what cannot be packed.
 */
import { describe, expect, it } from 'vitest'
import type { Handler } from '../../src/handler.js'
import type { CaughtUp } from '../../src/loop/remote-topics.js'
import { LengthFieldProtocol } from '../../src/protocol/length-field.js'
import { type FakeLoop, type FakeLoopOptions, fakeLoop, settle } from '../support/fake-loop.js'
import { within } from '../support/wait.js'

const silent: Handler = { onMessage() {} }
const EPOCH = 'e'
const at = (offset: number) => ({ epoch: EPOCH, offset })

interface Scene extends FakeLoop {
  /** What the broker is asked, and answers then. */
  answer(caught: Partial<CaughtUp>): void
  /** Comes over the broker. */
  arrive(offset: number, epoch?: string): void
  readonly wanted: string[]
  readonly asked: string[]
}

async function scene(handler: Handler = silent, options: FakeLoopOptions = {}): Promise<Scene> {
  const waiting: ((caught: CaughtUp) => void)[] = []
  const wanted: string[] = []
  const asked: string[] = []
  const fake = await fakeLoop(handler, {
    ...options,
    beyond: {
      relay: () => Promise.resolve({ sent: 0, dropped: 0, closed: 0 }),
      remoteTopics: {
        historyPrefix: 'kept',
        want: (topic, isWanted) => wanted.push(`${isWanted ? '+' : '-'}${topic}`),
        catchUp(topic, since) {
          asked.push(`${topic} ${since}`)
          return new Promise((resolve) => waiting.push(resolve))
        },
      },
    },
  })
  return {
    ...fake,
    wanted,
    asked,
    answer: (caught) => waiting.shift()!({ position: undefined, messages: [], recovered: true, ...caught }),
    arrive: (offset, epoch = EPOCH) => {
      const publication = { topic: 'kept', out: `${offset} `, options: {}, position: { epoch, offset } }
      void fake.loop.topics.deliverOf(publication)
    },
  }
}

const messages = (...offsets: number[]) => offsets.map((offset) => ({ out: `${offset} `, offset }))

describe('a subscriber that catches up', () => {
  it('gets the history first, then what came meanwhile, each once', async () => {
    const { accept, answer, arrive } = await scene()
    const { socket, c } = accept()
    const subscribing = c.subscribe('kept', { since: 'e-1' })
    for (const offset of [3, 4]) arrive(offset)
    await settle()
    expect(socket.out.toString()).toBe('')
    answer({ position: at(3), messages: messages(2, 3) })
    expect(await subscribing).toEqual({ isNew: true, recovered: true, position: 'e-3' })
    for (const offset of [5, 6]) arrive(offset)
    await settle()
    expect(socket.out.toString()).toBe('2 3 4 5 6 ')
  })

  it('does not get again what it has from the history and comes after that', async () => {
    const { accept, answer, arrive } = await scene()
    const { socket, c } = accept()
    const subscribing = c.subscribe('kept', { since: 'e-1' })
    answer({ position: at(4), messages: messages(2, 3, 4) })
    await subscribing
    for (const offset of [2, 3, 4, 5, 6]) arrive(offset)
    arrive(1, 'of-a-new-history')
    await settle()
    expect(socket.out.toString()).toBe('2 3 4 5 6 1 ')
  })

  it('holds back nothing for the others', async () => {
    const { accept, answer, arrive } = await scene()
    const [other, one] = [accept(), accept()]
    expect(other.c.subscribe('kept')).toBe(true)
    const subscribing = one.c.subscribe('kept', {})
    arrive(7)
    await settle()
    expect([other.socket.out.toString(), one.socket.out.toString()]).toEqual(['7 ', ''])
    answer({ position: at(6) })
    expect(await subscribing).toEqual({ isNew: true, recovered: true, position: 'e-6' })
    await settle()
    expect(one.socket.out.toString()).toBe('7 ')
  })

  it('and reads slowly is not sent everything at once, and loses nothing', async () => {
    const { accept, answer, arrive, loop } = await scene(silent, { highWaterMark: 8, lowWaterMark: 2 })
    const { socket, c } = accept()
    let room = 0
    socket.room = () => room
    const subscribing = c.subscribe('kept', { since: 'e-0' })
    answer({ position: at(9), messages: messages(1, 2, 3, 4, 5, 6, 7, 8, 9) })
    await settle()
    expect(c.writeBufferLength).toBeLessThan(16)
    arrive(10)
    room = Number.POSITIVE_INFINITY
    socket.drain()
    expect(await within('it has caught up', subscribing)).toMatchObject({ recovered: true })
    await settle()
    expect(socket.out.toString()).toBe('1 2 3 4 5 6 7 8 9 10 ')
    expect(loop.stats().slowConsumerDrops).toBe(0)
  })

  it('for which too much came meanwhile is told so where the history does not have it', async () => {
    const { accept, answer, arrive } = await scene()
    const [one, two] = [accept(), accept()]
    const first = one.c.subscribe('kept', { since: 'e-0' })
    const second = two.c.subscribe('kept', { since: 'another' })
    for (let offset = 1; offset <= 1030; offset++) arrive(offset)
    await settle()
    answer({ position: at(5), messages: messages(1, 2, 3, 4, 5) })
    answer({ position: at(6), messages: messages(1, 2, 3, 4, 5, 6) })
    expect([await first, await second].map(({ recovered }) => recovered)).toEqual([false, true])
    await settle()
    expect(two.socket.out.toString().split(' ')).toHaveLength(1031)
    expect(one.socket.out.toString().split(' ')).toHaveLength(5 + 1024 + 1)
  })

  it('loses nothing that comes in the moment in which it has caught up', async () => {
    const { accept, answer, arrive } = await scene()
    const [one, two] = [accept(), accept()]
    const both = [one.c.subscribe('kept', { since: 'e-2' }), two.c.subscribe('kept', { since: 'e-1' })]
    // It waits for the end of the turn, until something is sent to the second.
    arrive(3)
    answer({ position: at(2) })
    answer({ position: at(2), messages: messages(2) })
    expect((await Promise.all(both)).map(({ recovered }) => recovered)).toEqual([true, true])
    await settle()
    expect([one.socket.out.toString(), two.socket.out.toString()]).toEqual(['3 ', '2 3 '])
  })

  it('has what it has missed in common with those who have missed the same', async () => {
    const { accept, answer, arrive, asked } = await scene()
    const all = Array.from({ length: 100 }, accept)
    const resuming = all.map(({ c }) => c.subscribe('kept', { since: 'e-1' }))
    arrive(3)
    expect(asked).toEqual(['kept e-1'])
    answer({ position: at(2), messages: messages(2) })
    await settle()
    expect(asked).toEqual(['kept e-1', 'kept e-1'])
    arrive(4)
    answer({ position: at(3), messages: messages(2, 3) })
    for (const each of await Promise.all(resuming)) expect(each.recovered).toBe(true)
    await settle()
    expect(new Set(all.map(({ socket }) => socket.out.toString()))).toEqual(new Set(['2 3 4 ']))
  })

  it('does not wait where too many wait already, each for something else, and is told', async () => {
    const { accept, answer, asked, arrive } = await scene()
    const [hostile, other] = [accept(), accept()]
    for (let i = 0; i < 4096; i++) {
      void hostile.c.subscribe('kept', { since: `e-${i}` })
      hostile.c.unsubscribe('kept')
    }
    expect(await within('it is told', other.c.subscribe('kept', { since: 'another' }))).toEqual({
      isNew: true,
      recovered: false,
      position: undefined,
    })
    expect(asked).toHaveLength(4096)
    arrive(3)
    await settle()
    expect(other.socket.out.toString()).toBe('3 ')
    answer({ position: at(3) })
    await settle()
    const again = accept().c.subscribe('kept', { since: 'e-4000' })
    for (let i = 1; i < 4096; i++) answer({ position: at(3) })
    await settle()
    answer({ position: at(3) })
    expect(await within('it has caught up', again)).toMatchObject({ recovered: true })
  })

  it('that leaves or closes gets nothing more, and is told', async () => {
    const { accept, answer, arrive, wanted } = await scene()
    const [one, two] = [accept(), accept()]
    const both = [one.c.subscribe('kept', { since: 'e-0' }), two.c.subscribe('kept', { since: 'e-1' })]
    one.c.unsubscribe('kept')
    two.c.close()
    for (let i = 0; i < 2; i++) answer({ position: at(2), messages: messages(1, 2) })
    for (const each of await Promise.all(both)) expect(each).toMatchObject({ isNew: true, recovered: false })
    arrive(3)
    await settle()
    expect([one.socket.out.toString(), two.socket.out.toString()]).toEqual(['', ''])
    expect(wanted).toEqual(['+kept', '-kept'])
  })

  it('that leaves and comes again catches up as the second time says', async () => {
    const { accept, answer, arrive } = await scene()
    const { socket, c } = accept()
    const first = c.subscribe('kept', { since: 'e-0' })
    c.unsubscribe('kept')
    const second = c.subscribe('kept', { since: 'e-1' })
    arrive(3)
    answer({ position: at(2), messages: messages(1, 2) })
    answer({ position: at(2), messages: messages(2) })
    expect([await first, await second].map(({ recovered }) => recovered)).toEqual([false, true])
    arrive(4)
    await settle()
    expect(socket.out.toString()).toBe('2 3 4 ')
  })

  it('to what cannot be packed is rejected, and gets what comes from then on', async () => {
    const { accept, answer, arrive } = await scene(silent, {
      protocol: new LengthFieldProtocol({ size: 1 }),
    })
    const { socket, c } = accept()
    const subscribing = c.subscribe('kept', { since: 'e-0' })
    answer({ position: at(1), messages: [{ out: 'x'.repeat(1000), offset: 1 }] })
    await expect(subscribing).rejects.toMatchObject({ code: 'ERR_RINGLOOP_PACKET' })
    arrive(2)
    await settle()
    expect(socket.out.toString()).toBe('\x022 ')
  })

  it('whose handler fails to place a message is rejected', async () => {
    const handler: Handler = {
      onMessage() {},
      withPosition() {
        throw new Error('a bad withPosition')
      },
    }
    const { accept, answer } = await scene(handler)
    const { c } = accept()
    const subscribing = c.subscribe('kept', { since: 'e-0' })
    answer({ position: at(1), messages: messages(1) })
    await expect(subscribing).rejects.toThrow('a bad withPosition')
    expect(c.connected).toBe(true)
  })

  it('that cannot be brought up to date harms nobody else where its promise is left alone, and that is logged', async () => {
    const { accept, answer, logger } = await scene(silent, { protocol: new LengthFieldProtocol({ size: 1 }) })
    const { c } = accept()
    void c.subscribe('kept', { since: 'e-0' })
    answer({ position: at(1), messages: [{ out: 'x'.repeat(1000), offset: 1 }] })
    await settle()
    expect(logger.find('error', 'could not catch up')).toHaveLength(1)
    expect(c.connected).toBe(true)
  })

  it.each([[{ since: 5 }], [{ sinse: 'e-1' }], ['e-1'], [null]])(
    'says where from by a string: not %j',
    async (options) => {
      const { accept } = await scene()
      const { c } = accept()
      expect(() => c.subscribe('kept', options as never)).toThrow(
        expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }),
      )
      expect(c.topics.size).toBe(0)
    },
  )
})
