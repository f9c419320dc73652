/**
 * Two processes with two loops each over a real engine that is killed, stopped and continued while they publish: what was
 * accepted is with every subscriber, or a gap was told in its place; nothing comes twice or out of order; nothing is left.
 */
import { afterEach, describe, expect, it } from 'vitest'
import { HostedServer } from '../support/hosted-server.js'
import { LineClient } from '../support/line-client.js'
import { hasNats, NatsEngine } from '../support/nats-engine.js'
import { hasRedis, RedisEngine } from '../support/redis-engine.js'
import { until } from '../support/wait.js'
import type { Engine } from './broker.case.js'

const MIB = 1024 * 1024
const BROKER_TIMEOUT_MS = 1_000
const servers: HostedServer[] = []
const clients: LineClient[] = []
const engines: Engine[] = []

afterEach(async () => {
  for (const { raw } of clients.splice(0)) raw.destroy()
  for (const server of servers.splice(0)) server.kill()
  for (const engine of engines.splice(0)) await engine.close()
})

interface Kind {
  readonly name: string
  readonly isThere: boolean
  start(): Promise<Engine & { readonly url: string; stop(): void; continue(): void }>
  broker(url: string, more: object): Readonly<Record<string, unknown>>
}

const KINDS: readonly Kind[] = [
  {
    name: 'Redis',
    isThere: hasRedis,
    start: () => RedisEngine.start(),
    broker: (url, more) => ({ redis: { url, ...more } }),
  },
  {
    name: 'NATS',
    isThere: hasNats,
    start: async () => {
      const engine = await NatsEngine.start()
      return Object.assign(engine, { url: engine.server })
    },
    broker: (url) => ({ nats: { servers: url } }),
  },
]

async function serve(broker: Readonly<Record<string, unknown>>, options: object = {}): Promise<HostedServer> {
  const server = await HostedServer.start('../broker-topics.mjs', {
    poller: 'native',
    loops: 2,
    broker,
    options: { logger: 'silent', brokerTimeout: BROKER_TIMEOUT_MS, ...options },
  })
  servers.push(server)
  return server
}

async function client(server: HostedServer): Promise<LineClient> {
  const one = await LineClient.connect(server)
  clients.push(one)
  return one
}

/** One on each loop. */
async function ofEachLoop(server: HostedServer): Promise<LineClient[]> {
  const found = new Map<string, LineClient>()
  while (found.size < 2) {
    const one = await client(server)
    const loop = await one.say('loop', 'loop')
    if (found.has(loop)) one.raw.destroy()
    else found.set(loop, one)
  }
  return [...found.values()]
}

/** What it was told of a topic, in order: a message of somebody with its number, or a gap. */
type Heard = { readonly who: string; readonly n: number } | { readonly missed: string }

function heardOf(one: LineClient, topic: string): Heard[] {
  return one.lines.flatMap((line): Heard[] => {
    const [word, name, missed] = line.split(' ')
    if (word === 'gap' && name === topic) return [{ missed: missed! }]
    if (word !== topic) return []
    const [who, n] = line.split(' ')[1]!.split(':')
    return [{ who: who!, n: Number(n) }]
  })
}

/** Fails where something of `who` came twice or out of order, or something accepted is missing and no gap stands there. */
function assertNothingSilentlyLost(heard: readonly Heard[], who: string, accepted: readonly number[]): void {
  let last = -1
  let hasGap = false
  let next = 0
  for (const each of heard) {
    if ('missed' in each) {
      hasGap = true
      continue
    }
    if (each.who !== who) continue
    expect(each.n, `${who} in order`).toBeGreaterThan(last)
    for (; next < accepted.length && accepted[next]! <= each.n; next++) {
      if (accepted[next] === each.n || hasGap) continue
      throw new Error(`${who}:${accepted[next]} is missing before ${each.n}, without a gap`)
    }
    last = each.n
    hasGap = false
  }
}

/** Starts a publisher; it says of each what became of it. */
async function stream(server: HostedServer, topic: string, who: string): Promise<LineClient> {
  const one = await client(server)
  one.raw.write(`stream ${topic} ${who}\n`)
  await one.heard('accepted', 1)
  return one
}

const accepted = (one: LineClient): number[] => one.of('accepted').map(Number)
const moreAccepted = async (one: LineClient, count = 20): Promise<void> => {
  await one.heard('accepted', accepted(one).length + count, 30_000)
}

async function untilConnected(...all: readonly HostedServer[]): Promise<void> {
  for (const server of all) {
    await until(
      'the broker is connected',
      async () => {
        const { broker } = await server.ask<{ broker: { connected: boolean } }>('stats')
        return broker.connected
      },
      30_000,
    )
  }
}

for (const kind of KINDS) {
  describe.skipIf(!kind.isThere)(`faults of ${kind.name}`, () => {
    it('killed and started again, stopped and continued: nothing is lost that was not told', async () => {
      const engine = await kind.start()
      engines.push(engine)
      const [a, b] = [await serve(kind.broker(engine.url, {})), await serve(kind.broker(engine.url, {}))]
      const listeners = [...(await ofEachLoop(a)), ...(await ofEachLoop(b))]
      for (const one of listeners) {
        expect(JSON.parse(await one.say('resume t', 'resumed'))).toMatchObject({ recovered: true })
      }
      const publishers = { p: await stream(a, 't', 'p'), q: await stream(b, 't', 'q') }
      const everybodyGoesOn = async (): Promise<void> => {
        for (const one of Object.values(publishers)) await moreAccepted(one)
      }
      for (let round = 0; round < 2; round++) {
        await everybodyGoesOn()
        await engine.kill()
        for (const one of Object.values(publishers)) {
          await one.heard('refused', one.of('refused').length + 5)
        }
        await engine.restart()
        await untilConnected(a, b)
        await everybodyGoesOn()
        engine.stop()
        for (const one of Object.values(publishers)) {
          await one.heard('refused', one.of('refused').length + 5)
        }
        engine.continue()
        await untilConnected(a, b)
        await everybodyGoesOn()
      }
      for (const one of Object.values(publishers)) await one.say('quiet', 'streamed')
      for (const [who, server] of [
        ['p', a],
        ['q', b],
      ] as const) {
        expect(await server.ask('publish', { topic: 't', out: `t ${who}:999999999` })).toMatchObject({
          sent: 2,
        })
      }
      for (const one of listeners) {
        await until('the last ones are here', () =>
          ['p', 'q'].every((who) => one.of('t').includes(`${who}:999999999`)),
        )
        for (const [who, publisher] of Object.entries(publishers)) {
          assertNothingSilentlyLost(heardOf(one, 't'), who, accepted(publisher))
        }
        expect(one.of('gap').length).toBeGreaterThanOrEqual(2)
      }
      for (const one of listeners) one.raw.destroy()
      await until('nobody is subscribed', async () => (await engine.subscriptions()) === 0)
      for (const server of [a, b]) {
        const { broker } = await server.ask<{ broker: { rejected: number; strangers: number } }>('stats')
        expect(broker.rejected).toBeGreaterThan(0)
        expect(broker.strangers).toBe(0)
      }
    })

    it('a subscriber that never reads costs bounded memory, and the others nothing', async () => {
      const engine = await kind.start()
      engines.push(engine)
      const limits = { highWaterMark: 64 * 1024 }
      const [a, b] = [
        await serve(kind.broker(engine.url, {}), limits),
        await serve(kind.broker(engine.url, {}), limits),
      ]
      const [slow, quick] = (await ofEachLoop(b)) as [LineClient, LineClient]
      for (const one of [slow, quick]) await one.say('resume t', 'resumed')
      slow.raw.socket.pause()
      const before = b.memory()
      const text = 'x'.repeat(64 * 1024)
      for (let n = 0; n < 500; n++) await a.ask('publish', { topic: 't', out: `t q:${n} ${text}` })
      await until('the quick one has them all', () => quick.of('t').length === 500, 30_000)
      expect(b.memory() - before).toBeLessThan(200 * MIB)
      expect((await b.total()).slowConsumerDrops).toBeGreaterThan(300)
      expect(quick.of('gap')).toEqual([])
    })

    it('a loop that dies, a server that stops: the others go on, and the engine has nothing of them', async () => {
      const engine = await kind.start()
      engines.push(engine)
      const [a, b] = [await serve(kind.broker(engine.url, {})), await serve(kind.broker(engine.url, {}))]
      const [one, two] = (await ofEachLoop(a)) as [LineClient, LineClient]
      const other = await client(b)
      for (const [each, topic] of [
        [one, 'one'],
        [two, 'two'],
        [other, 'other'],
      ] as const) {
        expect(JSON.parse(await each.say(`resume ${topic}`, 'resumed'))).toMatchObject({ recovered: true })
      }
      expect(await engine.subscriptions()).toBe(3)
      one.raw.write('crash\n')
      await until('its topic is given up', async () => (await engine.subscriptions()) === 2)
      await b.ask('publish', { topic: 'two', out: 'two 1' })
      expect(await two.heard('two', 1)).toEqual(['1'])
      await a.ask('stop', 0)
      await until('its topics are given up', async () => (await engine.subscriptions()) === 1)
      expect(await b.ask('publish', { topic: 'other', out: 'other 1' })).toMatchObject({ sent: 1 })
    })

    it('a server stops within its time beside an engine that says nothing', async () => {
      const engine = await kind.start()
      engines.push(engine)
      const a = await serve(kind.broker(engine.url, {}))
      const one = await client(a)
      await one.say('resume t', 'resumed')
      engine.stop()
      one.raw.write('stream t p\n')
      await one.heard('refused', 1)
      await a.ask('stop', 0, 9_000)
    })
  })
}

describe.skipIf(!hasRedis)('a history over Redis', () => {
  it('clients that come and go catch up exactly, while the engine is stopped and connections are cut', async () => {
    const SIZE = 10_000
    const engine = await RedisEngine.start()
    engines.push(engine)
    const broker = { redis: { url: engine.url, history: { size: SIZE, ttl: 600_000 } } }
    const [a, b] = [await serve(broker), await serve(broker)]
    const steady = await client(b)
    await steady.say('resume t', 'resumed')
    const publishers = [await stream(a, 't', 'p'), await stream(b, 't', 'q')]
    /** What one client has heard over all its connections, and where it was. */
    const heard: string[] = []
    let since = 'none'
    for (let visit = 0; visit < 12; visit++) {
      const one = await client(visit % 2 === 0 ? a : b)
      const { recovered, position } = JSON.parse(
        await one.say(`resume t${since === 'none' ? '' : ` ${since}`}`, 'resumed'),
      )
      expect({ visit, recovered }).toEqual({ visit, recovered: true })
      if (since === 'none') since = position
      for (const each of publishers) await moreAccepted(each, 10)
      if (visit === 3) {
        engine.stop()
        for (const each of publishers) await each.heard('refused', each.of('refused').length + 2)
        engine.continue()
      }
      if (visit === 7) await engine.command('CLIENT', 'KILL', 'TYPE', 'normal')
      if (visit === 7) await engine.command('CLIENT', 'KILL', 'TYPE', 'pubsub')
      await untilConnected(a, b)
      for (const each of publishers) await moreAccepted(each, 10)
      one.raw.destroy()
      const lines = one.of('t')
      expect(one.of('gap')).toEqual([])
      heard.push(...lines)
      since = lines.at(-1)?.split('@')[1] ?? since
    }
    for (const each of publishers) await each.say('quiet', 'streamed')
    const offsets = heard.map((line) => Number(line.split('-').at(-1)))
    expect(offsets).toEqual(offsets.map((_, i) => offsets[0]! + i))
    const all = steady.of('t')
    const places = all.map((line) => Number(line.split('-').at(-1)))
    expect(places).toEqual(places.map((_, i) => i + 1))
    expect(all.slice(offsets[0]! - 1, offsets.at(-1)!)).toEqual(heard)
    expect(steady.of('gap')).toEqual([])
    for (const [i, each] of publishers.entries()) {
      const got = new Set(all.map((line) => line.split(' ')[0]!))
      for (const n of accepted(each)) expect(got.has(`${'pq'[i]}:${n}`)).toBe(true)
    }
  })
})
