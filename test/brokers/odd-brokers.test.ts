/**
 * Brokers as somebody may write them: that answer late, in another order, never, or say what they should not. Whatever they do,
 * every publication settles, what was lost is told in its place, and the server stops.
 */
import { type Broker, type BrokerHost, type BrokerPosition, type KeptMessages, Server } from 'ringloop'
import { afterEach, describe, expect, it } from 'vitest'
import { encodeFrame } from '../../src/broker/frame.js'
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
  await Promise.all(servers.splice(0).map((server) => within('a server’s stop', server.stop(), 20_000)))
})

/** Does by itself nothing but to join what is wanted; what it answers each test says. */
class OddBroker implements Broker {
  readonly name = 'odd'
  history: { readonly prefix: string } | undefined
  host!: BrokerHost
  readonly published: { readonly bytes: Uint8Array; resolve(position?: BrokerPosition): void }[] = []
  readonly reads: ((kept: KeptMessages) => void)[] = []
  readonly wanted = new Set<string>()
  joins = true

  async start(host: BrokerHost): Promise<void> {
    this.host = host
  }

  async stop(): Promise<void> {}

  subscribe(topics: readonly string[]): void {
    for (const topic of topics) this.wanted.add(topic)
    if (this.joins) setImmediate(() => this.host.joined(topics))
  }

  unsubscribe(topics: readonly string[]): void {
    for (const topic of topics) this.wanted.delete(topic)
  }

  publish(_topic: string, bytes: Uint8Array): Promise<BrokerPosition | undefined> {
    return new Promise((resolve) => this.published.push({ bytes, resolve }))
  }

  read(): Promise<KeptMessages> {
    return new Promise((resolve) => this.reads.push(resolve))
  }

  /** Of another machine. */
  arrive(topic: string, sequence: number, position?: BrokerPosition): void {
    const frame = {
      publisher: 'aaaaaaaaaaaaaaaa',
      sequence,
      out: `${topic} ${sequence}`,
      slow: 'drop',
    } as const
    this.host.message(topic, encodeFrame(frame), position)
  }
}

interface Scene {
  // biome-ignore lint/suspicious/noExplicitAny: what lines are is not the point here
  readonly server: Server<any, any>
  readonly broker: OddBroker
  readonly logger: MemoryLogger
  readonly client: LineClient
}

async function scene(loops: number, options: { history?: boolean; timeout?: number } = {}): Promise<Scene> {
  const broker = new OddBroker()
  if (options.history === true) broker.history = { prefix: 'kept' }
  const logger = memoryLogger()
  const all = { address: '127.0.0.1:0', logger, broker, brokerTimeout: options.timeout ?? 60_000 }
  const server =
    loops === 0
      ? new Server(handler as never, { ...all, protocol: protocol as never })
      : new Server(fixtureUrl('broker-topics.mjs'), { ...all, numLoops: loops })
  servers.push(server as never)
  await within('the start', server.start())
  const client = await LineClient.connect({ port: server.address.port })
  clients.push(client)
  return { server, broker, logger, client }
}

const at = (offset: number): BrokerPosition => ({ epoch: 'e', offset })
const standsAt = (offset: number): KeptMessages => ({ position: at(offset), messages: [], recovered: true })

describe.each([
  { name: 'one loop here', loops: 0 },
  { name: 'two loops', loops: 2 },
])('with $name', ({ loops }) => {
  it('what comes after a loss and before the topic is joined again is not taken for all there was', async () => {
    const { broker, client } = await scene(loops)
    await client.say('sub t', 'subscribed')
    await until('it is wanted', () => broker.wanted.has('t'))
    await rounds()
    broker.arrive('t', 1)
    await client.heard('t', 1)
    broker.host.parted(['t'], 'for a test')
    broker.arrive('t', 4)
    broker.host.joined(['t'])
    broker.arrive('t', 5)
    await client.heard('t', 2)
    expect(client.lines.slice(-3)).toEqual(['t 1', 'gap t undefined broker-away', 't 5'])
  })

  it('a publication with history settles where its message came before the place from which the topic is followed', async () => {
    const { broker, client, server } = await scene(loops, { history: true })
    await client.say('sub kept', 'subscribed')
    await until('it is read', () => broker.reads.length === 1)
    const publishing = server.publish('kept', 'kept mine')
    await until('it is published', () => broker.published.length === 1)
    broker.reads[0]!(standsAt(1))
    await rounds(4)
    broker.published[0]!.resolve(at(1))
    expect(await within('it settles', publishing)).toMatchObject({ sent: 0 })
  })

  it('a publication with history leaves its publisher out also where the topic catches up meanwhile', async () => {
    const { broker, client, server } = await scene(loops, { history: true })
    await client.say('sub kept', 'subscribed')
    await until('it is read', () => broker.reads.length === 1)
    client.raw.write('pub kept mine\n')
    await until('it is published', () => broker.published.length === 1)
    broker.host.message('kept', broker.published[0]!.bytes, at(1))
    broker.published[0]!.resolve(at(1))
    await rounds(4)
    broker.reads[0]!(standsAt(1))
    await client.heard('published', 1)
    void server.publish('kept', 'kept next')
    await until('it is published', () => broker.published.length === 2)
    broker.host.message('kept', broker.published[1]!.bytes, at(2))
    broker.published[1]!.resolve(at(2))
    expect(await client.heard('kept', 1)).toEqual(['next @e-2'])
  })

  it('a publication with history settles where its message was lost, and is not kept', async () => {
    const { broker, client, server } = await scene(loops, { history: true })
    await client.say('sub kept', 'subscribed')
    await until('it is read', () => broker.reads.length === 1)
    broker.reads[0]!(standsAt(0))
    await rounds(4)
    const publishing = server.publish('kept', 'kept mine')
    await until('it is published', () => broker.published.length === 1)
    broker.published[0]!.resolve(at(1))
    await rounds(4)
    broker.arrive('kept', 1, at(3))
    await until('it is read again', () => broker.reads.length === 2)
    broker.reads[1]!({ ...standsAt(3), recovered: false })
    expect(await within('it settles', publishing)).toMatchObject({ sent: 0 })
    expect(await client.heard('gap', 1)).toEqual(['kept 3 history-lost'])
  })

  it('publications that are never answered settle when the server stops', async () => {
    const { broker, client, server } = await scene(loops)
    await client.say('sub t', 'subscribed')
    const publishing = expect(server.publish('t', 't mine')).rejects.toMatchObject({
      code: 'ERR_RINGLOOP_BROKER',
    })
    await until('it is published', () => broker.published.length === 1)
    await within('the stop', server.stop())
    await within('it settles', publishing)
  })
})

it('a broker is stopped once, also where its server is stopped while it starts', async () => {
  const broker = new OddBroker()
  let stops = 0
  broker.stop = async () => void stops++
  let stopping: Promise<void> | undefined
  const server = new Server(
    {
      onStart() {
        stopping = server.stop()
      },
      onMessage() {},
    },
    { address: '127.0.0.1:0', logger: 'silent', broker },
  )
  await expect(server.start()).rejects.toMatchObject({ code: 'ERR_RINGLOOP_CLOSED' })
  await within('the stop', stopping!)
  expect(stops).toBe(1)
})

it('what is no topic is refused in the same way where there is history', async () => {
  const refused: unknown[] = []
  const broker = new OddBroker()
  broker.history = { prefix: '' }
  const server = new Server(
    {
      onStart(loop) {
        for (const topic of [5, undefined, null, '', 'a\n']) {
          try {
            void loop.publish(topic as never, 'x')
          } catch (error) {
            refused.push((error as { code?: string }).code)
          }
        }
      },
      onMessage() {},
    },
    { address: '127.0.0.1:0', logger: 'silent', broker },
  )
  servers.push(server as never)
  await server.start()
  expect(refused).toEqual(Array(5).fill('ERR_RINGLOOP_TOPIC'))
})

it('a time for which no timer can be set is no brokerTimeout', async () => {
  await expect(scene(0, { timeout: 2 ** 31 })).rejects.toMatchObject({ code: 'ERR_RINGLOOP_OPTION' })
})
