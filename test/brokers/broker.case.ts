/**
 * What every broker must do: one suite, called with each of them. It uses the interface alone, and an engine that can be
 * taken away and brought back.
 */
import { afterEach, describe, expect, it } from 'vitest'
import type { Broker, BrokerPosition, KeptMessages } from '../../src/broker.js'
import { RecordingHost } from '../support/recording-host.js'
import { rounds, until, within } from '../support/wait.js'

/** What brokers connect to. */
export interface Engine {
  /** Ends it at once, as a crash would; what it kept is gone. */
  kill(): Promise<void>
  /** After `kill`: it is there again, where it was. */
  restart(): Promise<void>
  /** It answers no more, but does not end its connections. */
  stop?(): void
  continue?(): void
  /** How many topics it has subscribers for, whoever they are. */
  subscriptions(): Promise<number>
  /** Ends it for good, whatever state it is in. */
  close(): Promise<void>
}

export interface History {
  readonly prefix: string
  readonly size: number
  /** ms */
  readonly ttl: number
}

export interface BrokerSetting {
  readonly history?: History
  /** An engine that has been silent for about so many ms is given up; it may take thrice that. By default not in these tests. */
  readonly patience?: number
  /** ms until a start must have rejected. */
  readonly startTimeout?: number
}

export interface BrokerKind<E extends Engine> {
  readonly name: string
  startEngine(): Promise<E>
  /** A broker that is not started yet. */
  create(engine: E, setting: BrokerSetting): Broker
  readonly hasHistory: boolean
  /** Messages are forgotten after their `ttl`. */
  readonly hasTtl: boolean
  /** The engine has `stop` and `continue`. */
  readonly canBeSilent: boolean
}

interface Member {
  readonly broker: Broker
  readonly host: RecordingHost
}

const BYTES = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))
const HISTORY: History = { prefix: 'kept/', size: 5, ttl: 600_000 }
const PATIENCE = 300
/** What must be said at once is said within this, also on a busy machine. */
const AT_ONCE_MS = 5000

export function testBroker<E extends Engine>(kind: BrokerKind<E>): void {
  const engines: E[] = []
  const brokers: Broker[] = []
  const hosts: RecordingHost[] = []

  afterEach(async () => {
    const violations = hosts.splice(0).flatMap((host) => host.violations)
    for (const engine of engines) engine.continue?.()
    await Promise.all(brokers.splice(0).map((broker) => broker.stop()))
    for (const engine of engines.splice(0)) await engine.close()
    expect(violations).toEqual([])
  })

  async function startEngine(): Promise<E> {
    const engine = await kind.startEngine()
    engines.push(engine)
    return engine
  }

  async function join(engine: E, topics: readonly string[] = [], setting?: BrokerSetting): Promise<Member> {
    const member = { broker: kind.create(engine, setting ?? {}), host: new RecordingHost() }
    await member.broker.start(member.host)
    brokers.push(member.broker)
    hosts.push(member.host)
    await subscribe(member, ...topics)
    return member
  }

  async function subscribe({ broker, host }: Member, ...topics: readonly string[]): Promise<void> {
    host.subscribe(broker, ...topics)
    await until('they are joined', () => host.has(...topics))
  }

  /** It is over: ended by the test itself, so not by its end. */
  async function stop({ broker }: Member): Promise<void> {
    brokers.splice(brokers.indexOf(broker), 1)
    await within('the broker to stop', broker.stop())
  }

  const send = ({ broker }: Member, topic: string, text: string): Promise<BrokerPosition | undefined> =>
    broker.publish(topic, Buffer.from(text))

  const isEmpty = (engine: E): Promise<void> =>
    until('nobody is subscribed', async () => (await engine.subscriptions()) === 0)

  /** Publishes until it is accepted: who has just joined again does not know when others have. */
  const sendWhenBack = async (member: Member, topic: string, text: string): Promise<void> =>
    until(`'${text}' is accepted`, () =>
      send(member, topic, text).then(
        () => true,
        () => false,
      ),
    )

  describe(`${kind.name}: messages`, () => {
    it('come as the bytes that they were', async () => {
      const engine = await startEngine()
      const reader = await join(engine, ['a'])
      const writer = await join(engine)
      const large = Buffer.alloc(300_000, BYTES)
      const within = new Uint8Array(BYTES.buffer, BYTES.byteOffset + 10, 5)
      for (const bytes of [BYTES, Buffer.alloc(0), large, within]) await writer.broker.publish('a', bytes)
      await until('all have come', () => reader.host.received.length === 4)
      const came = reader.host.of('a').map(({ bytes }) => bytes)
      for (const [i, bytes] of [BYTES, Buffer.alloc(0), large, within].entries()) {
        expect(came[i]!.equals(bytes)).toBe(true)
      }
      expect(reader.host.received.every(({ position }) => position === undefined)).toBe(true)
    })

    it('come to topics of any name, and to no other', async () => {
      const engine = await startEngine()
      const names = [
        ' ',
        'a b',
        'a.b',
        'a.*',
        '>',
        '*',
        '?[a]',
        '{a}',
        '$SYS',
        'ä/日本',
        '%41',
        'A',
        'x'.repeat(255),
      ]
      const reader = await join(engine, names)
      const writer = await join(engine)
      for (const name of [...names, 'a', 'a.c', 'x']) await send(writer, name, name)
      await until('the last one has come', () => reader.host.texts(names.at(-1)!).length > 0)
      expect(reader.host.received.map(({ topic }) => topic)).toEqual(names)
      expect(reader.host.received.map(({ bytes }) => String(bytes))).toEqual(names)
    })

    it('of one publisher to one topic come in its order, each once', async () => {
      const engine = await startEngine()
      const readers = [await join(engine, ['a', 'b']), await join(engine, ['a'])]
      const writer = await join(engine)
      const texts = Array.from({ length: 1000 }, (_, i) => `${i}`)
      await Promise.all(texts.flatMap((text) => [send(writer, 'a', text), send(writer, 'b', text)]))
      for (const { host } of readers) {
        await until('all have come', () => host.texts('a').length >= texts.length)
        expect(host.texts('a')).toEqual(texts)
      }
      await until('all have come', () => readers[0]!.host.texts('b').length >= texts.length)
      expect(readers[0]!.host.texts('b')).toEqual(texts)
    })

    it('are accepted although nobody is subscribed', async () => {
      const writer = await join(await startEngine())
      await expect(send(writer, 'a', 'x')).resolves.toBeUndefined()
    })
  })

  describe(`${kind.name}: what is wanted`, () => {
    it('is known to the engine while it is wanted, and not after', async () => {
      const engine = await startEngine()
      const reader = await join(engine, ['a', 'b'])
      const other = await join(engine, ['b'])
      expect(await engine.subscriptions()).toBe(2)
      reader.host.unsubscribe(reader.broker, 'a', 'b')
      await until('one is left', async () => (await engine.subscriptions()) === 1)
      await send(reader, 'a', 'x')
      await send(reader, 'b', 'x')
      await until('the other has it', () => other.host.texts('b').length === 1)
      expect(reader.host.received).toEqual([])
      other.host.unsubscribe(other.broker, 'b')
      await isEmpty(engine)
    })

    it('ends as the last call says, however quickly they follow each other', async () => {
      const engine = await startEngine()
      const reader = await join(engine)
      const { broker, host } = reader
      for (let i = 0; i < 5; i++) {
        host.subscribe(broker, 'in', 'out')
        if (i === 2) await until('one is joined', () => host.has('in'))
        host.unsubscribe(broker, 'in', 'out')
      }
      await subscribe(reader, 'in')
      await until('one is left', async () => (await engine.subscriptions()) === 1)
      await send(reader, 'in', 'x')
      const writer = await join(engine)
      await send(writer, 'in', 'y')
      await send(writer, 'out', 'y')
      await until('it has come', () => host.texts('in').includes('y'))
      expect([...host.joinedTopics]).toEqual(['in'])
      host.unsubscribe(broker, 'in')
      await isEmpty(engine)
    })

    it('is told again where it was given up in between, and nothing of what was', async () => {
      const engine = await startEngine()
      const reader = await join(engine, ['a', 'b'])
      const writer = await join(engine)
      const { broker, host } = reader
      host.onMessage = () => {
        host.onMessage = () => {}
        host.subscribe(broker, 'c')
        host.unsubscribe(broker, 'a', 'b')
        host.subscribe(broker, 'a')
      }
      const all = Array.from({ length: 200 }, (_, i) => [
        send(writer, 'a', `${i}`),
        send(writer, 'b', `${i}`),
      ])
      await until('it was given up', () => !host.has('b'))
      await until('it is joined', () => host.has('a'))
      await Promise.all(all.flat())
      await send(writer, 'a', 'end')
      await until('the end has come', () => host.texts('a').includes('end'))
      await until('two are left', async () => (await engine.subscriptions()) === 2)
    })

    it('may be 10,000 topics in one call', async () => {
      const engine = await startEngine()
      const topics = Array.from({ length: 10_000 }, (_, i) => `topic ${i}`)
      const { broker, host } = await join(engine, topics)
      expect(await engine.subscriptions()).toBe(topics.length)
      host.unsubscribe(broker, ...topics)
      await isEmpty(engine)
      expect(host.reasons).toEqual([])
    })

    it('is told once where it was wanted already, and may be given up without having been', async () => {
      const engine = await startEngine()
      const reader = await join(engine, ['a'])
      reader.broker.subscribe(['a', 'b'])
      reader.broker.unsubscribe(['b', 'c'])
      reader.broker.subscribe([])
      await subscribe(reader, 'd')
      expect([...reader.host.joinedTopics]).toEqual(['a', 'd'])
      expect(await engine.subscriptions()).toBe(2)
    })
  })

  describe(`${kind.name}: an engine that goes and comes back`, () => {
    it('is told with a reason, and everything wanted is joined again', async () => {
      const engine = await startEngine()
      const reader = await join(engine, ['a', 'b'])
      const writer = await join(engine)
      await engine.kill()
      await until('both are parted', () => reader.host.joinedTopics.size === 0)
      expect(reader.host.reasons[0]).not.toBe('')
      await expect(within('a rejection', send(writer, 'a', 'lost'), AT_ONCE_MS)).rejects.toThrow(Error)
      await engine.restart()
      await until('both are joined', () => reader.host.has('a', 'b'))
      await sendWhenBack(writer, 'a', 'kept')
      await until('it has come', () => reader.host.received.length > 0)
      expect(reader.host.texts('a')).toEqual(['kept'])
    })

    it('is told also where nothing is wanted, and takes publications when it is back', async () => {
      const engine = await startEngine()
      const { broker, host } = await join(engine)
      await engine.kill()
      await until('it is away', () => host.isAway)
      expect(host.reasons).toHaveLength(1)
      await engine.restart()
      await until('it is back', () => !host.isAway)
      await expect(broker.publish('a', Buffer.from('x'))).resolves.toBeUndefined()
    })

    it('finds what has become wanted meanwhile, and not what is wanted no more', async () => {
      const engine = await startEngine()
      const reader = await join(engine, ['old', 'kept'])
      const { broker, host } = reader
      await engine.kill()
      host.subscribe(broker, 'early')
      host.unsubscribe(broker, 'old')
      await until('it is parted', () => host.joinedTopics.size === 0)
      host.subscribe(broker, 'new', 'brief')
      host.unsubscribe(broker, 'brief')
      await engine.restart()
      await until('all are joined', () => host.has('kept', 'early', 'new'))
      expect(host.joinedTopics.size).toBe(3)
      expect(await engine.subscriptions()).toBe(3)
      host.unsubscribe(broker, 'kept', 'early', 'new')
      await isEmpty(engine)
    })

    it('may do so again and again, in the middle of changes', async () => {
      const engine = await startEngine()
      const reader = await join(engine)
      const { broker, host } = reader
      const topics = Array.from({ length: 3000 }, (_, i) => `${i}`)
      for (let i = 0; i < 3; i++) {
        host.subscribe(broker, ...topics)
        await until('the first are joined', () => host.joinedTopics.size > 0)
        host.unsubscribe(broker, ...topics.slice(0, 1500))
        await engine.kill()
        host.unsubscribe(broker, ...topics.slice(1500, 2999))
        await engine.restart()
        await until('the last is joined', () => host.has('2999'))
      }
      await until('one is left', async () => (await engine.subscriptions()) === 1)
      expect(host.joinedTopics.size).toBe(1)
    })

    it('settles every publication, accepted or not, and brings none of them twice', async () => {
      const engine = await startEngine()
      const reader = await join(engine, ['a'])
      const writer = await join(engine)
      const accepted: string[] = []
      let settled = 0
      const texts = Array.from({ length: 500 }, (_, i) => `${i}`)
      const all = texts.map((text) =>
        send(writer, 'a', text)
          .then(() => accepted.push(text))
          .catch(() => {})
          .then(() => settled++),
      )
      await engine.kill()
      await within('all to settle', Promise.all(all))
      expect(settled).toBe(texts.length)
      await engine.restart()
      await until('it is joined', () => reader.host.has('a'))
      await sendWhenBack(writer, 'a', 'end')
      await until('the end has come', () => reader.host.texts('a').includes('end'))
      const came = reader.host.texts('a')
      expect(new Set(came).size).toBe(came.length)
      expect(came.slice(0, -1)).toEqual(texts.slice(0, came.length - 1))
    })
  })

  describe(`${kind.name}: start and stop`, () => {
    it('a start without an engine rejects with a sentence, and leaves nothing behind', async () => {
      const engine = await startEngine()
      await engine.kill()
      const host = new RecordingHost()
      const broker = kind.create(engine, {})
      const failure = await within(
        'a rejection',
        broker.start(host).catch((error: Error) => error),
        20_000,
      )
      expect(failure).toBeInstanceOf(Error)
      expect((failure as Error).message).toMatch(/ /)
      await engine.restart()
      expect(host.calls).toBe(0)
    })

    it('after a stop nothing is told, publications reject and nobody is subscribed', async () => {
      const engine = await startEngine()
      const reader = await join(engine, ['a', 'b'])
      const writer = await join(engine)
      await stop(reader)
      const { calls } = reader.host
      await isEmpty(engine)
      await send(writer, 'a', 'x')
      reader.broker.subscribe(['c'])
      reader.broker.unsubscribe(['a'])
      await expect(within('a rejection', send(reader, 'a', 'x'))).rejects.toThrow(Error)
      expect(await engine.subscriptions()).toBe(0)
      expect(reader.host.calls).toBe(calls)
    })

    it('a stop settles what is under way', async () => {
      const engine = await startEngine()
      const member = await join(engine, ['a'])
      const all = Array.from({ length: 100 }, (_, i) => send(member, 'a', `${i}`).catch(() => {}))
      await stop(member)
      await within('all to settle', Promise.all(all))
    })

    it('a stop while the engine is away ends the attempts', async () => {
      const engine = await startEngine()
      const member = await join(engine, ['a'])
      await engine.kill()
      await until('it is parted', () => member.host.joinedTopics.size === 0)
      await stop(member)
      const { calls } = member.host
      await engine.restart()
      const other = await join(engine, ['b'])
      expect(await engine.subscriptions()).toBe(1)
      await stop(other)
      await isEmpty(engine)
      expect(member.host.calls).toBe(calls)
    })
  })

  if (kind.canBeSilent) {
    describe(`${kind.name}: an engine that is silent`, () => {
      it('gets what was published when it goes on', async () => {
        const engine = await startEngine()
        const reader = await join(engine, ['a'])
        engine.stop!()
        const sent = send(reader, 'a', 'x')
        const other = send(reader, 'a', 'y')
        engine.continue!()
        await within('both to be accepted', Promise.all([sent, other]))
        const writer = await join(engine)
        await send(writer, 'a', 'z')
        await until('the last has come', () => reader.host.texts('a').includes('z'))
        expect(reader.host.reasons).toEqual([])
      })

      it('does not keep a stop from ending, nor leave anything unsettled', async () => {
        const engine = await startEngine()
        const member = await join(engine, ['a'])
        engine.stop!()
        const sent = send(member, 'a', 'x').catch(() => 'rejected')
        member.host.subscribe(member.broker, 'b')
        await stop(member)
        expect(await within('it to settle', sent)).toBe('rejected')
      })

      it('is seen, and found again when it goes on', async () => {
        const engine = await startEngine()
        const member = await join(engine, ['a'], { patience: PATIENCE })
        engine.stop!()
        const sent = send(member, 'a', 'x').catch(() => 'rejected')
        await until('it is parted', () => member.host.joinedTopics.size === 0, 20_000)
        expect(await within('it to settle', sent)).toBe('rejected')
        engine.continue!()
        await until('it is joined', () => member.host.has('a'), 20_000)
      })

      it('lets no start wait for ever', async () => {
        const engine = await startEngine()
        engine.stop!()
        const broker = kind.create(engine, { startTimeout: PATIENCE })
        const start = broker.start(new RecordingHost()).catch((error: Error) => error)
        expect(await within('a rejection', start, 20_000)).toBeInstanceOf(Error)
      })
    })
  }

  if (kind.hasHistory) {
    describe(`${kind.name}: history`, () => {
      const read = ({ broker }: Member, topic: string, since?: BrokerPosition): Promise<KeptMessages> =>
        broker.read!(topic, since)
      const textsOf = ({ messages }: KeptMessages): string[] =>
        messages.map(({ bytes }) => String(Buffer.from(bytes)))
      const offsetsOf = ({ messages }: KeptMessages): number[] => messages.map(({ offset }) => offset)

      async function sendAll(
        member: Member,
        topic: string,
        texts: readonly string[],
      ): Promise<BrokerPosition[]> {
        return (await Promise.all(texts.map((text) => send(member, topic, text)))) as BrokerPosition[]
      }

      it('gives every message its place, the same for all', async () => {
        const engine = await startEngine()
        const members = await Promise.all([1, 2, 3].map(() => join(engine, ['kept/a'], { history: HISTORY })))
        const each = await Promise.all(
          members.map((member, i) =>
            sendAll(
              member,
              'kept/a',
              Array.from({ length: 50 }, (_, j) => `${i} ${j}`),
            ),
          ),
        )
        for (const { host } of members) {
          await until('all have come', () => host.received.length >= 150)
          expect(host.received.map(({ position }) => position!.offset)).toEqual(
            Array.from({ length: 150 }, (_, i) => i + 1),
          )
          expect(host.texts('kept/a')).toEqual(members[0]!.host.texts('kept/a'))
        }
        const epochs = new Set(
          members.flatMap(({ host }) => host.received.map(({ position }) => position!.epoch)),
        )
        expect([...epochs]).toEqual([expect.stringMatching(/^[A-Za-z0-9_]{1,64}$/)])
        for (const [i, positions] of each.entries()) {
          const mine = members[0]!.host.received.filter(({ bytes }) => String(bytes).startsWith(`${i} `))
          expect(mine.map(({ position }) => position)).toEqual(positions)
        }
      })

      it('keeps bytes as they were', async () => {
        const engine = await startEngine()
        const member = await join(engine, ['kept/a'], { history: HISTORY })
        const before = (await read(member, 'kept/a')).position
        const all = [BYTES, Buffer.alloc(0), Buffer.from(':1:'), Buffer.alloc(300_000, BYTES)]
        for (const bytes of all) await member.broker.publish('kept/a', bytes)
        await until('all have come', () => member.host.received.length === all.length)
        const { messages } = await read(member, 'kept/a', before)
        for (const [i, bytes] of all.entries()) {
          expect(member.host.received[i]!.bytes.equals(bytes)).toBe(true)
          expect(Buffer.from(messages[i]!.bytes).equals(bytes)).toBe(true)
        }
      })

      it('says where a topic stands, also one that has never had a message', async () => {
        const engine = await startEngine()
        const member = await join(engine, [], { history: HISTORY })
        const { position, messages } = await read(member, 'kept/a')
        expect(position.offset).toBe(0)
        expect(messages).toEqual([])
        const [first] = await sendAll(member, 'kept/a', ['x'])
        expect(first).toEqual({ epoch: position.epoch, offset: 1 })
        const kept = await read(member, 'kept/a', position)
        expect(kept).toMatchObject({ position: first, recovered: true })
        expect(textsOf(kept)).toEqual(['x'])
        expect(await read(member, 'kept/a')).toMatchObject({ position: first, messages: [] })
      })

      it('gives what came after a place, and says when something of it is gone', async () => {
        const engine = await startEngine()
        const member = await join(engine, [], { history: HISTORY })
        const places = await sendAll(member, 'kept/a', ['1', '2', '3', '4', '5', '6', '7'])
        const newest = places.at(-1)!
        const since = (offset: number): Promise<KeptMessages> =>
          read(member, 'kept/a', { epoch: newest.epoch, offset })
        for (const offset of [7, 6, 4, 2]) {
          const kept = await since(offset)
          expect(kept).toMatchObject({ position: newest, recovered: true })
          expect(offsetsOf(kept)).toEqual([1, 2, 3, 4, 5, 6, 7].slice(offset))
          expect(textsOf(kept)).toEqual(offsetsOf(kept).map(String))
        }
        for (const offset of [1, 0]) {
          const kept = await since(offset)
          expect(kept).toMatchObject({ position: newest, recovered: false })
          expect(offsetsOf(kept)).toEqual([3, 4, 5, 6, 7])
        }
      })

      it('gives everything from a place that it does not know, which is not recovered', async () => {
        const engine = await startEngine()
        const member = await join(engine, [], { history: HISTORY })
        const [, newest] = await sendAll(member, 'kept/a', ['1', '2'])
        for (const strange of [
          { epoch: 'another', offset: 1 },
          { epoch: newest!.epoch, offset: 3 },
          { epoch: newest!.epoch, offset: Number.MAX_SAFE_INTEGER },
        ]) {
          const kept = await read(member, 'kept/a', strange)
          expect(kept).toMatchObject({ position: newest, recovered: false })
          expect(textsOf(kept)).toEqual(['1', '2'])
        }
      })

      it('is of topics with the prefix only', async () => {
        const engine = await startEngine()
        const member = await join(engine, ['other'], { history: HISTORY })
        expect(await send(member, 'other', 'x')).toBeUndefined()
        const writer = await join(engine, [], { history: HISTORY })
        await send(writer, 'other', 'y')
        await until('it has come', () => member.host.texts('other').includes('y'))
        expect(member.host.of('other').every(({ position }) => position === undefined)).toBe(true)
      })

      it('of another topic is another one', async () => {
        const engine = await startEngine()
        const member = await join(engine, [], { history: HISTORY })
        await sendAll(member, 'kept/a', ['1', '2'])
        const [only] = await sendAll(member, 'kept/b', ['3'])
        expect(only!.offset).toBe(1)
      })

      it('begins anew, with another epoch, when the engine has lost it', async () => {
        const engine = await startEngine()
        const member = await join(engine, ['kept/a'], { history: HISTORY })
        const [before] = await sendAll(member, 'kept/a', ['1'])
        await engine.kill()
        await until('it is parted', () => !member.host.has('kept/a'))
        await expect(within('a rejection', read(member, 'kept/a'), AT_ONCE_MS)).rejects.toThrow(Error)
        await engine.restart()
        await until('it is joined', () => member.host.has('kept/a'))
        const [after] = await sendAll(member, 'kept/a', ['2'])
        expect(after!.offset).toBe(1)
        expect(after!.epoch).not.toBe(before!.epoch)
        const kept = await read(member, 'kept/a', before)
        expect(kept).toMatchObject({ position: after, recovered: false })
        expect(textsOf(kept)).toEqual(['2'])
      })

      if (kind.hasTtl) {
        it('forgets messages when their time is over, and goes on counting', async () => {
          const engine = await startEngine()
          const member = await join(engine, [], { history: { ...HISTORY, ttl: 100 } })
          const places = await sendAll(member, 'kept/a', ['1', '2'])
          const start = { epoch: places[0]!.epoch, offset: 0 }
          await until(
            'they are forgotten',
            async () => (await read(member, 'kept/a', start)).messages.length === 0,
          )
          expect(await read(member, 'kept/a', start)).toMatchObject({ position: places[1], recovered: false })
          expect(await read(member, 'kept/a', places[1])).toMatchObject({
            position: places[1],
            recovered: true,
          })
          expect(await sendAll(member, 'kept/a', ['3'])).toEqual([{ epoch: start.epoch, offset: 3 }])
        })
      }

      it('leaves no hole between what is read and what comes', async () => {
        const engine = await startEngine()
        const history = { ...HISTORY, size: 1000 }
        const writer = await join(engine, [], { history })
        const [first] = await sendAll(writer, 'kept/a', ['1'])
        let isOver = false
        const writing = (async () => {
          for (let i = 2; !isOver; i++) {
            await send(writer, 'kept/a', `${i}`)
            await rounds(1)
          }
        })()
        const reader = await join(engine, ['kept/a'], { history })
        const kept = await read(reader, 'kept/a', first)
        const { offset } = kept.position
        await until('more has come', () => (reader.host.received.at(-1)?.position?.offset ?? 0) > offset)
        isOver = true
        await writing
        expect(kept.recovered).toBe(true)
        const live = reader.host.received.map(({ position }) => position!.offset)
        const all = [...new Set([1, ...offsetsOf(kept), ...live])].sort((a, b) => a - b)
        expect(all).toEqual(Array.from({ length: all.length }, (_, i) => i + 1))
        expect(live).toEqual([...live].sort((a, b) => a - b))
      })
    })
  }
}
