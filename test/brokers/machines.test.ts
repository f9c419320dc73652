/**
 * Servers that stand for machines, with one exchange between them: what is published on one reaches the subscribers of all,
 * what is lost is told, and what is kept is caught up with. With one loop in this thread and with two in threads.
 */
import { type Broker, type BrokerHost, type Gap, MemoryBroker, MemoryExchange, Server } from 'ringloop'
import { afterEach, describe, expect, it } from 'vitest'
// @ts-expect-error: plain JavaScript, as a user may write it
import handler, { protocol } from '../fixtures/broker-topics.mjs'
import { fixtureUrl } from '../support/child.js'
import { LineClient } from '../support/line-client.js'
import { type MemoryLogger, memoryLogger } from '../support/memory-logger.js'
import { rounds, until, within } from '../support/wait.js'

const servers: Server<never, never>[] = []
const clients: LineClient[] = []

afterEach(async () => {
  for (const { raw } of clients.splice(0)) raw.destroy()
  await Promise.all(servers.splice(0).map((server) => within('a server’s stop', server.stop())))
})

interface Machine {
  // biome-ignore lint/suspicious/noExplicitAny: what lines are is not the point here
  readonly server: Server<any, any>
  readonly logger: MemoryLogger
}

async function machine(broker: Broker, loops: number, brokerTimeout = 60_000): Promise<Machine> {
  const logger = memoryLogger()
  const options = { address: '127.0.0.1:0', logger, broker, brokerTimeout }
  const server =
    loops === 0
      ? new Server(handler as never, { ...options, protocol: protocol as never })
      : new Server(fixtureUrl('broker-topics.mjs'), { ...options, numLoops: loops })
  servers.push(server as never)
  await within('the start', server.start())
  return { server, logger }
}

async function client({ server }: Machine): Promise<LineClient> {
  const one = await LineClient.connect({ port: server.address.port })
  clients.push(one)
  return one
}

/** Clients on each of the loops. */
async function clientsOfLoops(where: Machine, loops: number): Promise<LineClient[]> {
  const found = new Map<string, LineClient>()
  while (found.size < Math.max(1, loops)) {
    const one = await client(where)
    found.set(await one.say('loop', 'loop'), one)
  }
  return [...found.values()]
}

/** The exchange has what every machine wants. */
async function wanted(exchange: MemoryExchange, ...topics: string[]): Promise<void> {
  await until(`${topics} are wanted`, () => String([...exchange.topics].sort()) === String(topics))
  await rounds(4)
}

describe.each([
  { name: 'one loop here', loops: 0 },
  { name: 'two loops', loops: 2 },
])('machines with $name', ({ loops }) => {
  const twoMachines = async (exchange: MemoryExchange): Promise<[Machine, Machine]> => [
    await machine(new MemoryBroker(exchange), loops),
    await machine(new MemoryBroker(exchange), loops),
  ]

  it('a connection and the server publish to every loop of every machine, once', async () => {
    const exchange = new MemoryExchange()
    const [a, b] = await twoMachines(exchange)
    const [here, there] = [await clientsOfLoops(a, loops), await clientsOfLoops(b, loops)]
    for (const one of [...here, ...there]) expect(await one.say('sub t', 'subscribed')).toBe('true')
    await wanted(exchange, 't')
    const [publisher, ...others] = here as [LineClient, ...LineClient[]]
    const result = JSON.parse(await publisher.say('pub t one', 'published'))
    expect(result).toEqual({ sent: others.length, dropped: 0, closed: 0 })
    expect(await a.server.publish('t', 't two')).toEqual({ sent: here.length, dropped: 0, closed: 0 })
    expect(JSON.parse(await publisher.say('bytes t three', 'published'))).toMatchObject({
      sent: others.length,
    })
    for (const one of [...others, ...there]) expect(await one.heard('t', 3)).toEqual(['one', 'two', 'three'])
    expect(await publisher.heard('t', 1)).toEqual(['two'])
    expect(a.server.stats().broker).toMatchObject({
      name: 'memory',
      connected: true,
      topics: 1,
      published: 3,
      rejected: 0,
    })
    expect(b.server.stats().broker).toMatchObject({ published: 0, received: 3, gaps: 0 })
  })

  it('what many publish keeps the order of each, and nothing is lost or comes twice', async () => {
    const COUNT = 300
    const exchange = new MemoryExchange()
    const [a, b] = await twoMachines(exchange)
    const listeners = [await client(a), await client(b)]
    for (const one of listeners) await one.say('sub t', 'subscribed')
    await wanted(exchange, 't')
    const publishers = [await client(a), await client(b), await client(b)]
    for (const [i, one] of publishers.entries()) {
      for (let n = 0; n < COUNT; n++) one.raw.write(`pub t ${i}:${n}\n`)
    }
    for (const one of listeners) {
      const heard = await one.heard('t', publishers.length * COUNT)
      for (const i of publishers.keys()) {
        const own = heard.filter((text) => text.startsWith(`${i}:`))
        expect(own).toEqual(Array.from({ length: COUNT }, (_, n) => `${i}:${n}`))
      }
      expect(heard).toHaveLength(publishers.length * COUNT)
    }
  })

  it('a topic is wanted of the broker while it has subscribers', async () => {
    const exchange = new MemoryExchange()
    const [a] = await twoMachines(exchange)
    const [one, two] = [await client(a), await client(a)]
    await one.say('sub t', 'subscribed')
    await two.say('sub t', 'subscribed')
    await two.say('sub u', 'subscribed')
    await wanted(exchange, 't', 'u')
    await one.say('unsub t', 'unsubscribed')
    two.raw.destroy()
    await wanted(exchange)
    expect(a.server.stats().broker?.topics).toBe(0)
  })

  it('while the broker is away a publication reaches those here, rejects at once, and is told elsewhere', async () => {
    const exchange = new MemoryExchange()
    const [a, b] = await twoMachines(exchange)
    const [here, there, publisher] = [await client(a), await client(b), await client(a)]
    for (const one of [here, there]) await one.say('sub t', 'subscribed')
    await wanted(exchange, 't')
    await publisher.say('pub t one', 'published')
    exchange.goAway('for a test')
    expect(await publisher.say('pub t two', 'rejected')).toMatch(
      /^ERR_RINGLOOP_BROKER: the broker memory is away/,
    )
    await expect(a.server.publish('t', 't three')).rejects.toMatchObject({ code: 'ERR_RINGLOOP_BROKER' })
    expect(await here.heard('t', 3)).toEqual(['one', 'two', 'three'])
    expect(a.server.stats().broker).toMatchObject({ connected: false, published: 1, rejected: 2 })
    exchange.comeBack()
    for (const one of [here, there]) {
      expect(await one.heard('gap', 1)).toEqual(['t undefined broker-away'])
    }
    await publisher.say('pub t four', 'published')
    expect(await there.heard('t', 2)).toEqual(['one', 'four'])
    expect(a.logger.find('error', 'away')).toHaveLength(1)
    expect(a.logger.find('info', 'is back')).toHaveLength(1)
    expect(b.server.stats().broker).toMatchObject({ connected: true, gaps: 1, missed: 0 })
  })

  it('what one machine could not bring to the broker is counted by the others', async () => {
    const exchange = new MemoryExchange()
    const broker = new MemoryBroker(exchange)
    let refuses = false
    const publish = broker.publish.bind(broker)
    broker.publish = (...given) => (refuses ? Promise.reject(new Error('no')) : publish(...given))
    const a = await machine(broker, loops)
    const b = await machine(new MemoryBroker(exchange), loops)
    const there = await client(b)
    await there.say('sub t', 'subscribed')
    await wanted(exchange, 't')
    await a.server.publish('t', 't 1')
    refuses = true
    for (let i = 0; i < 3; i++) await expect(a.server.publish('t', 't x')).rejects.toThrow('no')
    refuses = false
    await a.server.publish('t', 't 2')
    await there.heard('t', 2)
    expect(there.lines.slice(-3)).toEqual(['t 1', 'gap t 3 unpublished', 't 2'])
    expect(a.logger.find('error', 'did not take it: no')).toHaveLength(1)
  })

  it('what is not ours is dropped, counted, and logged once', async () => {
    const exchange = new MemoryExchange()
    const [, b] = await twoMachines(exchange)
    const there = await client(b)
    await there.say('sub t', 'subscribed')
    await wanted(exchange, 't')
    for (let i = 0; i < 5; i++) exchange.publish('t', Buffer.from('garbage'))
    await b.server.publish('t', 't mine')
    await there.heard('t', 1)
    expect(b.server.stats().broker?.strangers).toBe(5)
    expect(b.logger.find('warn', 'not from ringloop')).toHaveLength(1)
  })

  it('what cannot cross machines rejects, and those here do not get it either', async () => {
    const [a] = await twoMachines(new MemoryExchange({ history: { size: 5 } }))
    const one = await client(a)
    expect(await one.say('function t', 'rejected')).toMatch(/^ERR_RINGLOOP_PACKET/)
    expect(a.server.stats().broker).toMatchObject({ published: 0 })
  })

  describe('with history', () => {
    const kept = (size = 100): MemoryExchange => new MemoryExchange({ history: { size, prefix: 'kept' } })

    it('all see one order, each with its position, and the publisher what was done here', async () => {
      const COUNT = 100
      const exchange = kept()
      const [a, b] = await twoMachines(exchange)
      const listeners = [...(await clientsOfLoops(a, loops)), ...(await clientsOfLoops(b, loops))]
      for (const one of listeners) expect(await one.say('sub kept', 'subscribed')).toBe('true')
      await wanted(exchange, 'kept')
      const publishers = [await client(a), await client(b)]
      for (let n = 0; n < COUNT; n++) for (const one of publishers) one.raw.write(`pub kept ${n}\n`)
      const heard = await Promise.all(listeners.map((one) => one.heard('kept', 2 * COUNT)))
      for (const each of heard) expect(each).toEqual(heard[0])
      expect(heard[0]!.map((line) => Number(line.split('-')[1]))).toEqual(
        Array.from({ length: 2 * COUNT }, (_, i) => i + 1),
      )
      const results = await publishers[0]!.heard('published', COUNT)
      const sent = Math.max(1, loops)
      expect(new Set(results)).toEqual(new Set([JSON.stringify({ sent, dropped: 0, closed: 0 })]))
    })

    it('a publisher does not get its own, and the topics beside it are as ever', async () => {
      const exchange = kept()
      const [a, b] = await twoMachines(exchange)
      const [one, two] = [await client(a), await client(b)]
      for (const each of [one, two]) {
        await each.say('sub kept', 'subscribed')
        await each.say('sub t', 'subscribed')
      }
      await wanted(exchange, 'kept', 't')
      expect(JSON.parse(await one.say('pub kept mine', 'published'))).toMatchObject({ sent: 0 })
      await two.say('pub kept yours', 'published')
      await two.say('pub t yours', 'published')
      expect(await one.heard('t', 1)).toEqual(['yours'])
      expect(await one.heard('kept', 1)).toEqual(['yours @e1-2'])
      expect(await two.heard('kept', 1)).toEqual(['mine @e1-1'])
    })

    it('whoever comes back gets what it has missed, and then what comes', async () => {
      const exchange = kept()
      const [a, b] = await twoMachines(exchange)
      const one = await client(a)
      const first = JSON.parse(await one.say('resume kept', 'resumed'))
      expect(first).toEqual({ isNew: true, recovered: true, position: 'e1-0' })
      for (const n of [1, 2, 3]) await b.server.publish('kept', `kept ${n}`)
      expect(await one.heard('kept', 3)).toEqual(['1 @e1-1', '2 @e1-2', '3 @e1-3'])
      const again = await client(b)
      again.raw.write('resume kept e1-1\n')
      expect(JSON.parse((await again.heard('resumed', 1))[0]!)).toEqual({
        isNew: true,
        recovered: true,
        position: 'e1-3',
      })
      expect(again.of('kept')).toEqual(['2 @e1-2', '3 @e1-3'])
      await a.server.publish('kept', 'kept 4')
      expect(await again.heard('kept', 3)).toEqual(['2 @e1-2', '3 @e1-3', '4 @e1-4'])
      expect(JSON.parse(await again.say('resume kept e1-1', 'resumed'))).toEqual({
        isNew: false,
        recovered: false,
      })
    })

    it.each([
      ['further back than is kept', 'e1-1', ['4 @e1-4', '5 @e1-5']],
      ['of another history', 'e9-4', ['4 @e1-4', '5 @e1-5']],
      ['that does not exist yet', 'e1-9', ['4 @e1-4', '5 @e1-5']],
      ['that is none', 'nonsense', []],
    ])('to a place %s it cannot come back, and is told', async (_what, since, heard) => {
      const exchange = kept(2)
      const [a] = await twoMachines(exchange)
      for (const n of [1, 2, 3, 4, 5]) await a.server.publish('kept', `kept ${n}`)
      const one = await client(a)
      expect(JSON.parse(await one.say(`resume kept ${since}`, 'resumed'))).toMatchObject({ recovered: false })
      expect(one.of('kept')).toEqual(heard)
      await a.server.publish('kept', 'kept 6')
      expect((await one.heard('kept', heard.length + 1)).at(-1)).toBe('6 @e1-6')
    })

    it('nothing is lost, doubled or out of order for who comes back while everybody publishes', async () => {
      const exchange = kept(10_000)
      const [a, b] = await twoMachines(exchange)
      const publishers = [await client(a), await client(b)]
      for (const one of publishers) one.raw.write('burst kept 500\n')
      const resumed: LineClient[] = []
      for (let i = 0; i < 20; i++) {
        const one = await client(i % 2 === 0 ? a : b)
        one.raw.write('resume kept e1-0\n')
        resumed.push(one)
        if (i % 5 === 0) for (const each of publishers) each.raw.write('burst kept 100\n')
      }
      const total = 2 * 500 + 2 * 4 * 100
      for (const one of resumed) {
        const heard = await one.heard('kept', total)
        expect(heard.map((line) => Number(line.split('-')[1]))).toEqual(
          Array.from({ length: total }, (_, i) => i + 1),
        )
        expect(JSON.parse((await one.heard('resumed', 1))[0]!)).toMatchObject({ recovered: true })
      }
    })

    it('after the broker was away everybody catches up, without a gap', async () => {
      const exchange = kept()
      const [a, b] = await twoMachines(exchange)
      const one = await client(a)
      await one.say('sub kept', 'subscribed')
      await wanted(exchange, 'kept')
      await b.server.publish('kept', 'kept 1')
      await one.heard('kept', 1)
      exchange.goAway()
      await expect(b.server.publish('kept', 'kept x')).rejects.toMatchObject({ code: 'ERR_RINGLOOP_BROKER' })
      // Somebody whose connection was not gone.
      const bytes = Buffer.from('524c0100aaaaaaaaaaaaaaaa000000000001', 'hex')
      exchange.publish('kept', Buffer.concat([bytes, Buffer.from('kept 2')]))
      exchange.comeBack()
      await b.server.publish('kept', 'kept 3')
      expect(await one.heard('kept', 3)).toEqual(['1 @e1-1', '2 @e1-2', '3 @e1-3'])
      expect(one.of('gap')).toEqual([])
    })

    it('what the history has not kept meanwhile is told', async () => {
      const exchange = kept(2)
      const [a, b] = await twoMachines(exchange)
      const one = await client(a)
      await one.say('sub kept', 'subscribed')
      await one.say('sub kept-too', 'subscribed')
      await wanted(exchange, 'kept', 'kept-too')
      await b.server.publish('kept', 'kept 1')
      await b.server.publish('kept-too', 'kept-too 1')
      await one.heard('kept-too', 1)
      exchange.goAway()
      const bytes = Buffer.from('524c0100aaaaaaaaaaaaaaaa000000000001', 'hex')
      for (const n of [2, 3, 4, 5]) exchange.publish('kept', Buffer.concat([bytes, Buffer.from(`kept ${n}`)]))
      exchange.comeBack()
      expect(await one.heard('kept', 3)).toEqual(['1 @e1-1', '4 @e1-4', '5 @e1-5'])
      expect(await one.heard('gap', 1)).toEqual(['kept 2 history-lost'])
      exchange.goAway()
      exchange.clear()
      exchange.comeBack()
      await one.heard('gap', 3)
      expect(one.of('gap').slice(1).sort()).toEqual([
        'kept undefined history-lost',
        'kept-too undefined history-lost',
      ])
    })

    it('a subscriber does not wait for a broker that is away: it is told that it cannot come back', async () => {
      const exchange = kept()
      const [a] = await twoMachines(exchange)
      exchange.goAway()
      const one = await client(a)
      expect(JSON.parse(await one.say('resume kept e1-1', 'resumed'))).toEqual({
        isNew: true,
        recovered: false,
      })
      exchange.comeBack()
      expect(await one.heard('gap', 1)).toEqual(['kept undefined broker-away'])
    })

    it('who leaves while it catches up, or subscribes anew, harms nobody', async () => {
      const exchange = kept()
      const [a, b] = await twoMachines(exchange)
      await a.server.publish('kept', 'kept 1')
      const one = await client(a)
      one.raw.write('resume kept e1-0\nunsub kept\nresume kept e1-0\n')
      const all = await one.heard('resumed', 2)
      expect(all.map((line) => JSON.parse(line).isNew)).toEqual([true, true])
      const two = await client(b)
      two.raw.write('resume kept e1-0\n')
      two.raw.destroy()
      await b.server.publish('kept', 'kept 2')
      expect(await one.heard('kept', 3)).toEqual(['1 @e1-1', '1 @e1-1', '2 @e1-2'])
    })
  })

  it('topics without history say so to who wants to come back', async () => {
    const exchange = new MemoryExchange()
    const [a, b] = await twoMachines(exchange)
    const one = await client(a)
    expect(JSON.parse(await one.say('resume t', 'resumed'))).toEqual({ isNew: true, recovered: true })
    await b.server.publish('t', 't from now on')
    expect(await one.heard('t', 1)).toEqual(['from now on'])
    const two = await client(a)
    expect(JSON.parse(await two.say('resume t e1-1', 'resumed'))).toEqual({ isNew: true, recovered: false })
  })

  it('a broker that does not answer: publications reject in time, then at once', async () => {
    const broker = new MemoryBroker(new MemoryExchange())
    broker.publish = () => new Promise(() => {})
    const a = await machine(broker, loops, 100)
    const one = await client(a)
    expect(await one.say('pub t one', 'rejected')).toMatch(/has not answered within 100 ms/)
    expect(await one.say('pub t two', 'rejected')).toMatch(/has not answered within 100 ms/)
    expect(a.logger.find('error', 'has not answered')).toHaveLength(1)
  })

  it('a broker that does not start or stop: start rejects and says why, stop ends', async () => {
    const broker = new MemoryBroker(new MemoryExchange())
    broker.start = () => Promise.reject(new Error('nobody listens on :1; is it running?'))
    await expect(machine(broker, loops)).rejects.toMatchObject({
      code: 'ERR_RINGLOOP_BROKER',
      message: 'the broker memory did not start: nobody listens on :1; is it running?',
    })
    const failing = new MemoryBroker(new MemoryExchange())
    failing.stop = () => Promise.reject(new Error('it hangs'))
    const { server, logger } = await machine(failing, loops)
    await within('the stop', server.stop())
    expect(logger.find('error', 'it hangs')).toHaveLength(1)
    expect(server.stats().broker?.connected).toBe(false)
  })
})

it('a server may be stopped while its broker starts', async () => {
  const broker = new MemoryBroker(new MemoryExchange())
  let host: BrokerHost | undefined
  broker.start = (given) => {
    host = given
    return new Promise(() => {})
  }
  const starting = machine(broker, 0)
  await until('it starts', () => host !== undefined)
  const stopping = servers.at(-1)!.stop()
  await expect(starting).rejects.toMatchObject({ code: 'ERR_RINGLOOP_CLOSED' })
  await within('the stop', stopping, 20_000)
})

it('a loop that dies leaves its topics, and its successor wants its own', async () => {
  const exchange = new MemoryExchange()
  const a = await machine(new MemoryBroker(exchange), 2)
  const [one, two] = (await clientsOfLoops(a, 2)) as [LineClient, LineClient]
  await one.say('sub one', 'subscribed')
  await two.say('sub two', 'subscribed')
  await wanted(exchange, 'one', 'two')
  one.raw.write('crash\n')
  await wanted(exchange, 'two')
  await until('it is replaced', () => a.server.stats().total.restarts === 1)
})

it('an option that is no broker, and one broker for two servers, are refused', async () => {
  const refused = expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' })
  for (const broker of [{}, 'redis://here', { ...new MemoryBroker(new MemoryExchange()), name: 5 }]) {
    await expect(machine(broker as never, 0)).rejects.toEqual(refused)
  }
  const broker = new MemoryBroker(new MemoryExchange())
  await expect(machine(broker, 0, -1)).rejects.toEqual(refused)
  await machine(broker, 0)
  await expect(machine(broker, 0)).rejects.toMatchObject({ code: 'ERR_RINGLOOP_STATE' })
})

it('an onGap that throws is logged, and harms nobody', async () => {
  const exchange = new MemoryExchange()
  const logger = memoryLogger()
  const gaps: Gap[] = []
  const server = new Server(
    {
      onConnect: (c) => void c.subscribe('t'),
      onMessage() {},
      onGap(_topic, gap) {
        gaps.push(gap)
        throw new Error('a bad onGap')
      },
    },
    { address: '127.0.0.1:0', logger, broker: new MemoryBroker(exchange) },
  )
  servers.push(server as never)
  await server.start()
  await client({ server, logger })
  await wanted(exchange, 't')
  exchange.goAway()
  exchange.comeBack()
  await until('it was called', () => gaps.length === 1)
  expect(gaps).toEqual([{ missed: undefined, reason: 'broker-away' }])
  expect(logger.find('error', 'a bad onGap')).toHaveLength(1)
  expect(server.stats().total.handlerErrors).toBe(1)
})
