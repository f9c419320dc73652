import { execFile } from 'node:child_process'
import net from 'node:net'
import { promisify } from 'node:util'
import { Gauge, Registry } from 'prom-client'
import {
  type BrokerStats,
  type Handler,
  LineProtocol,
  MemoryBroker,
  MemoryExchange,
  type ModuleServerOptions,
  Server,
  type ServerOptions,
} from 'ringloop'
import {
  type MetricsExtension,
  type MetricsOptions,
  metrics,
  registerMetrics,
  unregisterMetrics,
} from 'ringloop/metrics'
import { afterEach, describe, expect, it } from 'vitest'
import { SharedStats } from '../src/loop/stats.js'
import { MetricsText } from './metrics-text.js'
import { connectRaw, type RawClient } from './support/raw-client.js'
import { until } from './support/wait.js'

const LOOP = new URL('./fixtures/metrics-loop.mjs', import.meta.url)

const servers: Server<never, never>[] = []
const clients: RawClient[] = []
/** The endpoint of each server that has one. */
const endpoints = new WeakMap<object, MetricsExtension>()

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  await Promise.all(servers.splice(0).map((server) => server.stop()))
})

async function start(
  source: URL | Handler,
  options: object,
  at: MetricsOptions = { address: ':0' },
): Promise<Server> {
  const endpoint = metrics(at)
  const server = new Server(source as URL, {
    address: '127.0.0.1:0',
    logger: false,
    ...(options as ServerOptions),
  }).use(endpoint)
  servers.push(server as never)
  endpoints.set(server, endpoint)
  await server.start()
  return server
}

function startModule(numLoops: number, options: ModuleServerOptions = {}): Promise<Server> {
  return start(LOOP, { numLoops, ...options })
}

async function startObject(at?: MetricsOptions): Promise<Server> {
  const handler: Handler = await import(LOOP.href).then((module) => module.default)
  return start(handler, { protocol: new LineProtocol({ maxPacket: 1000 }) }, at)
}

const addressOf = (server: Server): MetricsExtension['address'] => endpoints.get(server)!.address

async function connect(server: Server, options?: { paused: boolean }): Promise<RawClient> {
  const client = await connectRaw({ port: server.address.port }, options)
  clients.push(client)
  return client
}

function url(server: Server, path = '/metrics'): string {
  return `http://${addressOf(server)}${path}`
}

async function scrape(server: Server): Promise<MetricsText> {
  const response = await fetch(url(server))
  expect(response.status).toBe(200)
  return new MetricsText(await response.text())
}

/** The first scrape in which `name` is `value`: what was sent a moment ago may be counted a moment later. */
async function scrapeUntil(server: Server, name: string, value: number): Promise<MetricsText> {
  let text = await scrape(server)
  await until(`${name} is ${value} (it is ${text.sum(name)})`, async () => {
    text = await scrape(server)
    return text.sum(name) >= value
  })
  expect(text.sum(name)).toBe(value)
  return text
}

function perLoop(text: MetricsText, name: string): number[] {
  return text.samples(name).map(({ value }) => value)
}

describe('the numbers', () => {
  const kinds: [string, number, () => Promise<Server>][] = [
    ['one loop here', 1, () => startObject()],
    ['one loop in a thread', 1, () => startModule(1)],
    ['four loops', 4, () => startModule(4)],
    ['four loops of the net poller', 4, () => startModule(4, { poller: 'net' })],
  ]

  it.each(kinds)('are what was sent: %s', async (_kind, numLoops, start) => {
    const server = await start()
    const CONNECTIONS = 12
    const MESSAGES = 40
    const lines = Array.from({ length: MESSAGES }, (_, i) => `${'x'.repeat(i * 3)}\n`)
    const bytes = lines.join('').length
    const all: RawClient[] = []
    for (let i = 0; i < CONNECTIONS; i++) all.push(await connect(server))
    for (const [i, client] of all.entries()) {
      for (const line of i % 2 === 0 ? lines : [lines.join('')]) await client.echo(line)
    }
    const text = await scrapeUntil(server, 'ringloop_sent_bytes_total', CONNECTIONS * bytes)
    expect(text.sum('ringloop_received_bytes_total')).toBe(CONNECTIONS * bytes)
    expect(text.sum('ringloop_messages_received_total')).toBe(CONNECTIONS * MESSAGES)
    expect(text.sum('ringloop_messages_sent_total')).toBe(CONNECTIONS * MESSAGES)
    expect(text.sum('ringloop_connections')).toBe(CONNECTIONS)
    expect(perLoop(text, 'ringloop_connections')).toEqual(Array(numLoops).fill(CONNECTIONS / numLoops))
    expect(perLoop(text, 'ringloop_messages_received_total')).toEqual(
      Array(numLoops).fill((CONNECTIONS * MESSAGES) / numLoops),
    )
    expect(text.sum('ringloop_connections_accepted_total')).toBe(CONNECTIONS)
    expect(text.sum('ringloop_connections_closed_total')).toBe(0)
    expect(text.sum('ringloop_handler_errors_total')).toBe(0)
    const timed = text.sum('ringloop_handler_seconds_count')
    expect(timed).toBeGreaterThanOrEqual(numLoops)
    expect(timed).toBeLessThanOrEqual(CONNECTIONS * MESSAGES)
    expect(text.sum('ringloop_batch_records_sum')).toBeGreaterThanOrEqual(CONNECTIONS)
    expect(text.sum('ringloop_batch_records_count')).toBe(text.sum('ringloop_batch_seconds_count'))
    for (const client of all) client.destroy()
    const after = await scrapeUntil(server, 'ringloop_connections_closed_total', CONNECTIONS)
    expect(after.sum('ringloop_connections_closed_total', { reason: 'peer-closed' })).toBe(CONNECTIONS)
    expect(after.sum('ringloop_connections')).toBe(0)
  })

  it.each([1, 4])('tell closes and errors by their reason: %i loops', async (numLoops) => {
    const server = await startModule(numLoops)
    const does = async (line: string, times: number): Promise<void> => {
      for (let i = 0; i < times; i++) {
        const client = await connect(server)
        client.write(line)
        await client.whenEnded()
        client.destroy()
      }
    }
    await does('throw\n', 3)
    await does('reject\n', 2)
    await does('close\n', 4)
    await does('x'.repeat(3000), 5)
    const text = await scrapeUntil(server, 'ringloop_connections_closed_total', 14)
    const closed = Object.fromEntries(
      ['handler-error', 'closed', 'protocol-error', 'peer-closed'].map((reason) => [
        reason,
        text.sum('ringloop_connections_closed_total', { reason }),
      ]),
    )
    expect(closed).toEqual({ 'handler-error': 5, closed: 4, 'protocol-error': 5, 'peer-closed': 0 })
    expect(text.sum('ringloop_handler_errors_total')).toBe(5)
    expect(text.sum('ringloop_protocol_errors_total')).toBe(5)
    expect(text.sum('ringloop_messages_received_total')).toBe(9)
  })

  it('count what maxConnections turned away', async () => {
    const server = await startModule(2, { maxConnections: 3 })
    for (let i = 0; i < 3; i++) await (await connect(server)).echo('here\n')
    for (let i = 0; i < 2; i++) await (await connect(server)).whenEnded()
    const text = await scrapeUntil(server, 'ringloop_connections_rejected_total', 2)
    expect(text.sum('ringloop_connections')).toBe(3)
    expect(text.sum('ringloop_connections_accepted_total')).toBe(3)
  })

  it('show the bytes that wait for a slow peer, and what a broadcast left out', async () => {
    const server = await startModule(1, { highWaterMark: 10_000 })
    const client = await connect(server, { paused: true })
    const FILL = 32 * 1024 * 1024
    client.write(`fill ${FILL}\n`)
    await until('bytes wait', async () => (await scrape(server)).sum('ringloop_write_buffer_bytes') > 0)
    await server.broadcast('not for you')
    await server.broadcast('nor this')
    const text = await scrapeUntil(server, 'ringloop_slow_consumer_drops_total', 2)
    const waiting = text.sum('ringloop_write_buffer_bytes')
    expect(waiting + text.sum('ringloop_sent_bytes_total')).toBe(FILL)
    client.socket.resume()
    await client.bytes(FILL)
    const after = await scrapeUntil(server, 'ringloop_sent_bytes_total', FILL)
    expect(after.sum('ringloop_write_buffer_bytes')).toBe(0)
  })

  it('only grow when the thread of a loop dies and is replaced', async () => {
    const server = await startModule(2)
    const all: RawClient[] = []
    for (let i = 0; i < 6; i++) all.push(await connect(server))
    for (const client of all) await client.echo('hello\n')
    const before = await scrapeUntil(server, 'ringloop_sent_bytes_total', 36)
    all[0]!.write('exit\n')
    await all[0]!.whenEnded()
    const after = await scrapeUntil(server, 'ringloop_loop_restarts_total', 1)
    expect(after.sum('ringloop_connections_lost_total')).toBe(3)
    expect(after.sum('ringloop_connections')).toBe(3)
    for (const [name, { type, samples }] of before.families) {
      if (type === 'gauge') continue
      for (const sample of samples) {
        const now = after.samples(sample.name).find((s) => sameLabels(s.labels, sample.labels))
        expect(now?.value, `${name} ${JSON.stringify(sample.labels)}`).toBeGreaterThanOrEqual(sample.value)
      }
    }
    await until('both loops answer again', async () => {
      const client = await connect(server)
      await client.echo('again\n')
      return perLoop(await scrape(server), 'ringloop_connections').every((n) => n > 0)
    })
  })
})

function sameLabels(a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean {
  return Object.entries(a).every(([name, value]) => b[name] === value)
}

describe('time', () => {
  it('in handlers is put into the right buckets, and every message counts when they are slow', async () => {
    const server = await startModule(1)
    const client = await connect(server)
    for (let i = 1; i <= 4; i++) {
      client.write('busy 20\n')
      await client.bytes(i * 'done\n'.length)
    }
    const text = await scrapeUntil(server, 'ringloop_messages_received_total', 4)
    expect(text.sum('ringloop_handler_seconds_count')).toBe(4)
    expect(text.sum('ringloop_handler_seconds_bucket', { le: '0.016384' })).toBe(0)
    expect(text.sum('ringloop_handler_seconds_sum')).toBeGreaterThanOrEqual(0.08)
    expect(text.sum('ringloop_batch_seconds_sum')).toBeGreaterThanOrEqual(
      text.sum('ringloop_handler_seconds_sum'),
    )
  })

  it('of a promise is not handler time', async () => {
    const server = await startModule(1)
    const client = await connect(server)
    client.write('later 100\n')
    await client.bytes(5)
    const text = await scrapeUntil(server, 'ringloop_messages_sent_total', 1)
    expect(text.sum('ringloop_handler_seconds_sum')).toBeLessThan(0.1)
  })

  it('of a random sample stands for all messages', async () => {
    const server = await startObject()
    const client = await connect(server)
    const MESSAGES = 20_000
    await client.echo('x\n'.repeat(MESSAGES))
    const text = await scrapeUntil(server, 'ringloop_messages_received_total', MESSAGES)
    const estimated = text.sum('ringloop_handler_seconds_count')
    expect(estimated).toBeGreaterThan(MESSAGES - 256)
    expect(estimated).toBeLessThanOrEqual(MESSAGES)
  })

  it('that a loop was busy shows as activity and as delay', async () => {
    const server = await startModule(1)
    const client = await connect(server)
    const before = await scrape(server)
    client.write('busy 300\n')
    await until('the delay is seen', async () => {
      const text = await scrape(server)
      return text.sum('ringloop_loop_delay_seconds_sum') - before.sum('ringloop_loop_delay_seconds_sum') > 0.2
    })
    const text = await scrape(server)
    const ran =
      text.sum('ringloop_loop_active_seconds_total') - before.sum('ringloop_loop_active_seconds_total')
    expect(ran).toBeGreaterThan(0.25)
    await until('some rest is seen', async () => {
      return (await scrape(server)).sum('ringloop_loop_idle_seconds_total') > 0
    })
    expect(text.sum('ringloop_loop_delay_seconds_bucket', { le: '+Inf' })).toBeGreaterThan(
      text.sum('ringloop_loop_delay_seconds_bucket', { le: '0.128' }),
    )
  })
})

describe('of a broker', () => {
  const samplesOf = (text: MetricsText): object =>
    Object.fromEntries(
      [...text.families.values()]
        .filter(({ name }) => name.startsWith('ringloop_broker_'))
        .map(({ name, samples }) => [name.slice('ringloop_broker_'.length), samples]),
    )

  it('every number is served, with the name of the broker', async () => {
    const broker: BrokerStats = {
      name: 'redis',
      connected: true,
      topics: 2,
      published: 3,
      rejected: 4,
      received: 5,
      gaps: 6,
      missed: 7,
      strangers: 8,
    }
    const stats = { ...new SharedStats(2).snapshot(), broker }
    const text = new MetricsText(await registerMetrics({ stats: () => stats }).metrics())
    const sample = (name: string, value: number): object[] => [
      { name: `ringloop_broker_${name}`, labels: { broker: 'redis' }, value },
    ]
    expect(samplesOf(text)).toEqual({
      connected: sample('connected', 1),
      topics: sample('topics', 2),
      published_total: sample('published_total', 3),
      rejected_total: sample('rejected_total', 4),
      received_total: sample('received_total', 5),
      gaps_total: sample('gaps_total', 6),
      missed_total: sample('missed_total', 7),
      strangers_total: sample('strangers_total', 8),
    })
  })

  it('there are none where there is no broker', async () => {
    const text = await scrape(await startObject())
    expect(new Set(Object.values(samplesOf(text)).map(({ length }) => length))).toEqual(new Set([0]))
  })

  it.each([1, 2])('it is seen that it is away, and what that cost: %i loops', async (numLoops) => {
    const exchange = new MemoryExchange()
    const server = await startModule(numLoops, { broker: new MemoryBroker(exchange) })
    await server.publish('t', 'taken')
    exchange.goAway()
    await expect(server.publish('t', 'not taken')).rejects.toMatchObject({ code: 'ERR_RINGLOOP_BROKER' })
    const away = await scrape(server)
    expect(away.sum('ringloop_broker_connected', { broker: 'memory' })).toBe(0)
    expect(away.sum('ringloop_broker_published_total')).toBe(1)
    expect(away.sum('ringloop_broker_rejected_total')).toBe(1)
    exchange.comeBack()
    expect((await scrape(server)).sum('ringloop_broker_connected')).toBe(1)
  })
})

describe('the endpoint', () => {
  it('is on the loopback interface unless told otherwise', async () => {
    const server = await startObject()
    expect(addressOf(server).host).toBe('127.0.0.1')
    const everywhere = await startObject({ address: '0.0.0.0:0' })
    expect(addressOf(everywhere).host).toBe('0.0.0.0')
  })

  it('answers GET and HEAD of its path, and says what is wrong with the rest', async () => {
    const server = await startObject({ address: ':0', path: '/stats' })
    const got = await fetch(url(server, '/stats?name[]=x'))
    expect(got.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
    expect(new MetricsText(await got.text()).sum('ringloop_connections')).toBe(0)
    const head = await fetch(url(server, '/stats'), { method: 'HEAD' })
    expect([head.status, await head.text()]).toEqual([200, ''])
    const missed = await fetch(url(server))
    expect([missed.status, await missed.text()]).toEqual([404, 'metrics are at /stats\n'])
    const posted = await fetch(url(server, '/stats'), { method: 'POST', body: 'x' })
    expect([posted.status, posted.headers.get('allow')]).toEqual([405, 'GET, HEAD'])
  })

  it('is gone when the server has stopped, also under a client that keeps its connection', async () => {
    const server = await startObject()
    await scrape(server)
    const client = await connectRaw({ port: addressOf(server).port })
    clients.push(client)
    await server.stop()
    await client.whenEnded()
    await expect(fetch(url(server))).rejects.toThrow()
  })

  it('that cannot listen fails the start, and nothing is left open', async () => {
    const taken = net.createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => taken.once('listening', resolve))
    const { port } = taken.address() as net.AddressInfo
    const endpoint = metrics({ address: `:${port}` })
    const server = new Server({ onMessage() {} }, { address: ':0', logger: false }).use(endpoint)
    await expect(server.start()).rejects.toMatchObject({
      code: 'ERR_RINGLOOP_ADDRESS_IN_USE',
      message: expect.stringContaining('another address for metrics'),
    })
    expect(() => server.address).toThrow()
    expect(() => endpoint.address).toThrow()
    taken.close()
  })

  it.each([
    [true, "the options of metrics must be an object, not the boolean 'true'"],
    [{ path: 'metrics' }, "metrics.path must be a string that begins with '/', not metrics"],
    [{ registry: {} }, 'metrics.registry must be a Registry of prom-client'],
    [{ address: '9464' }, "address must be 'host:port', ':port' or '[ipv6]:port', not '9464'"],
    [{ address: { host: 'a' } }, 'address must have a port, or the path of a unix socket'],
  ])('says what is wrong with %j', (options, message) => {
    expect(() => metrics(options as never)).toThrow(
      expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION', message }),
    )
  })

  it('is for one server', async () => {
    const server = await startObject()
    const second = new Server({ onMessage() {} }, { address: ':0', logger: false })
    second.use(endpoints.get(server)!)
    await expect(second.start()).rejects.toMatchObject({ code: 'ERR_RINGLOOP_STATE' })
    expect((await scrape(server)).sum('ringloop_connections')).toBe(0)
  })

  it('costs nothing when it is not asked for: no monitor, no prom-client', async () => {
    const script = `
      import { createRequire } from 'node:module'
      import { Server } from 'ringloop'
      const server = new Server({ onMessage() {} }, { address: '127.0.0.1:0' })
      await server.start()
      await new Promise((resolve) => setTimeout(resolve, 150))
      const loaded = Object.keys(createRequire(import.meta.url).cache)
      const { idleMs, loopDelay } = server.stats().total
      console.log(JSON.stringify({ loaded: loaded.filter((f) => f.includes('prom-client')), idleMs, delays: loopDelay.count }))
      await server.stop()`
    const run = promisify(execFile)
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script])
    expect(JSON.parse(stdout)).toEqual({ loaded: [], idleMs: 0, delays: 0 })
  })
})

describe('a registry of one’s own', () => {
  it('is served with the metrics of the loops in it, and given back without them', async () => {
    const registry = new Registry()
    const mine = new Gauge({
      name: 'mine',
      help: 'A "quoted" \\ help\nof two lines',
      labelNames: ['a'],
      registers: [registry],
    })
    mine.set({ a: 'x"y\\z\n' }, 7)
    const server = await startObject({ address: ':0', registry })
    const text = await scrape(server)
    expect(text.sum('mine', { a: 'x"y\\z\n' })).toBe(7)
    expect(text.sum('ringloop_connections')).toBe(0)
    const second = new Server({ onMessage() {} }, { address: ':0', logger: false })
    second.use(metrics({ address: ':0', registry }))
    await expect(second.start()).rejects.toMatchObject({ code: 'ERR_RINGLOOP_OPTION' })
    await server.stop()
    expect(registry.getMetricsAsArray().map(({ name }) => name)).toEqual(['mine'])
  })

  it('takes the metrics of a server that has no endpoint', async () => {
    const server = new Server(LOOP, { address: '127.0.0.1:0', numLoops: 2, logger: false })
    servers.push(server as never)
    await server.start()
    const registry = registerMetrics(server)
    await (await connect(server)).echo('hello\n')
    await until('it is counted', async () => {
      return new MetricsText(await registry.metrics()).sum('ringloop_received_bytes_total') === 6
    })
    registry.resetMetrics()
    expect(new MetricsText(await registry.metrics()).sum('ringloop_received_bytes_total')).toBe(6)
    unregisterMetrics(registry)
    expect(registry.getMetricsAsArray()).toEqual([])
  })
})

describe('the checker of these tests', () => {
  const HEAD = '# HELP a_total A.\n# TYPE a_total counter\n'
  const HISTOGRAM = '# HELP h H.\n# TYPE h histogram\n'

  it.each([
    ['a line that does not end', `${HEAD}a_total 1`],
    ['help twice', `${HEAD}a_total 1\n${HEAD}a_total{b="1"} 1\n`],
    ['a type that there is not', '# HELP a A.\n# TYPE a number\na 1\n'],
    ['no type', '# HELP a A.\na 1\n'],
    ['no help', '# TYPE a gauge\na 1\n'],
    ['a sample elsewhere', `${HEAD}b 1\n`],
    ['a sample twice', `${HEAD}a_total{x="1",y="2"} 1\na_total{y="2",x="1"} 1\n`],
    ['a bad name', '# HELP 1a A.\n# TYPE 1a gauge\n1a 1\n'],
    ['a bad label', `${HEAD}a_total{1="x"} 1\n`],
    ['a label that is not escaped', `${HEAD}a_total{x="a"b"} 1\n`],
    ['a label with a bad escape', `${HEAD}a_total{x="a\\t"} 1\n`],
    ['not a number', `${HEAD}a_total one\n`],
    ['a counter without _total', '# HELP a A.\n# TYPE a counter\na 1\n'],
    ['a gauge with _total', '# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n'],
    ['a counter below zero', `${HEAD}a_total -1\n`],
    ['no bucket +Inf', `${HISTOGRAM}h_bucket{le="1"} 1\nh_sum 1\nh_count 1\n`],
    ['buckets that sink', `${HISTOGRAM}h_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n`],
    [
      'bounds that sink',
      `${HISTOGRAM}h_bucket{le="2"} 1\nh_bucket{le="1"} 1\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n`,
    ],
    ['another count', `${HISTOGRAM}h_bucket{le="+Inf"} 1\nh_sum 1\nh_count 2\n`],
    ['no sum', `${HISTOGRAM}h_bucket{le="+Inf"} 1\nh_count 1\n`],
  ])('refuses %s', (_what, text) => {
    expect(() => new MetricsText(text)).toThrow()
  })

  it('takes what is right', () => {
    const text = `${HEAD}a_total{x="\\"\\\\\\n"} 1e3\n${HISTOGRAM}h_bucket{le="+Inf"} 2\nh_sum NaN\nh_count 2\n`
    expect(new MetricsText(text).sum('a_total', { x: '"\\\n' })).toBe(1000)
  })
})
