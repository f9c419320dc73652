import { existsSync } from 'node:fs'
import http from 'node:http'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { type Browser, chromium, type Page } from 'playwright-core'
import { type Histogram, MemoryBroker, MemoryExchange, type ModuleServerOptions, Server } from 'ringloop'
import { type ConsoleExtension, console as webConsole } from 'ringloop/console'
import { metrics } from 'ringloop/metrics'
import { WebSocket } from 'undici'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { CELL, LoopCounters, SharedStats } from '../src/loop/stats.js'
import { frameOf, quantile } from '../src/plugins/console/frame.js'
import { endExamples, startExample } from './example-process.js'
import { connectRaw, type RawClient } from './support/raw-client.js'
import { until } from './support/wait.js'

const LOOP = new URL('./fixtures/metrics-loop.mjs', import.meta.url)

const servers: { stop(): Promise<void> }[] = []
const clients: RawClient[] = []
/** The page of each server. */
const pages = new WeakMap<object, ConsoleExtension>()

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  await endExamples()
  await Promise.all(servers.splice(0).map((server) => server.stop()))
})

async function start(numLoops: number, address = ':0', options: ModuleServerOptions = {}): Promise<Server> {
  const page = webConsole({ address })
  const server = new Server(LOOP, { address: '127.0.0.1:0', numLoops, logger: false, ...options }).use(page)
  servers.push(server)
  pages.set(server, page)
  await server.start()
  return server
}

const pageOf = (server: Server): ConsoleExtension['address'] => pages.get(server)!.address

/** Echoes a line over and over, on so many connections, until told to stop. */
async function startLoad(server: Server, connections: number): Promise<() => void> {
  let running = true
  const run = async (client: RawClient): Promise<void> => {
    while (running) await client.echo('0123456789\n'.repeat(20))
  }
  for (let i = 0; i < connections; i++) {
    const client = await connectRaw({ port: server.address.port })
    clients.push(client)
    run(client).catch(() => {})
  }
  return () => {
    running = false
  }
}

describe('a frame', () => {
  const values = fc.array(fc.double({ min: 0.0001, max: 900, noNaN: true }), { minLength: 1, maxLength: 200 })

  function histogramOf(each: readonly number[]): Histogram {
    const stats = new SharedStats(1)
    const counters = new LoopCounters(stats, 0)
    for (const value of each) counters.addHandlerTime(value, 1)
    return stats.snapshot().total.handlerTime
  }

  it('has quantiles that are in the bucket of the right value', () => {
    fc.assert(
      fc.property(values, fc.double({ min: 0.01, max: 1, noNaN: true }), (each, q) => {
        const found = quantile(histogramOf(each), q)!
        const right = [...each].sort((a, b) => a - b)[Math.ceil(q * each.length) - 1]!
        const { bounds } = histogramOf([])
        const bucket = bounds.findIndex((bound) => right <= bound)
        expect(found).toBeGreaterThanOrEqual(bucket === 0 ? 0 : bounds[bucket - 1]!)
        expect(found).toBeLessThanOrEqual(bounds[bucket]!)
      }),
    )
  })

  it('has no quantiles where nothing was timed, and the last bound for what is above it', () => {
    expect(quantile(histogramOf([]), 0.5)).toBeNull()
    expect(quantile(histogramOf([60_000]), 0.5)).toBe(histogramOf([]).bounds.at(-1))
  })

  it('shows what came between two looks, per second', () => {
    const stats = new SharedStats(2)
    const loops = [new LoopCounters(stats, 0), new LoopCounters(stats, 1)]
    loops[0]!.add(CELL.messagesIn, 1000)
    loops[0]!.addHandlerTime(500, 1000)
    loops[0]!.addDelay(70)
    const before = stats.snapshot()
    stats.admit(1, 10)
    loops[0]!.add(CELL.messagesIn, 30)
    loops[1]!.add(CELL.messagesIn, 10)
    loops[1]!.add(CELL.bytesOut, 5)
    loops[0]!.addHandlerTime(0.0003, 30)
    loops[0]!.add(CELL.activeMs, 500)
    loops[0]!.add(CELL.idleMs, 1500)
    loops[1]!.add(CELL.idleMs, 2000)
    loops[1]!.addDelay(3)
    loops[1]!.addDelay(5)
    loops[1]!.add(CELL.writeBufferBytes, 9)
    const { time, loops: frames, total } = frameOf(before, stats.snapshot(), 2, 1234)
    expect(time).toBe(1234)
    expect(frames[0]).toMatchObject({
      connections: 0,
      messagesIn: 15,
      p50: expect.closeTo(0.000375, 9),
      utilisation: 0.25,
      delay: 0,
    })
    expect(frames[1]).toMatchObject({
      connections: 1,
      messagesIn: 5,
      bytesOut: 2.5,
      p50: null,
      utilisation: 0,
    })
    expect(frames[1]).toMatchObject({ delay: 4, waiting: 9 })
    expect(total).toMatchObject({ connections: 1, messagesIn: 20, utilisation: 0.125, delay: 4, waiting: 9 })
    expect(total.p99).toBeLessThan(0.0005)
  })
})

interface Told {
  readonly type: string
  readonly about: { readonly address: string }
  readonly frames: readonly unknown[]
  readonly frame: { readonly loops: readonly { readonly connections: number }[] }
  readonly since: {
    readonly accepted: number
    readonly tlsHandshakes: number
    readonly tlsFailures: object
    readonly broker?: { readonly published: number }
  }
}

function upgrade(server: Server, headers: Record<string, string>): Promise<number> {
  const request = http.get(`http://${pageOf(server)}`, {
    headers: {
      Connection: 'Upgrade',
      Upgrade: 'websocket',
      'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
      ...headers,
    },
  })
  return new Promise((resolve, reject) => {
    request.on('upgrade', (response, socket) => {
      socket.destroy()
      resolve(response.statusCode!)
    })
    request.on('response', (response) => resolve(response.resume().statusCode!))
    request.on('error', reject)
  })
}

describe('the console', () => {
  it('tells a WebSocket what there is, and then a frame each second', async () => {
    const server = await start(2)
    const stop = await startLoad(server, 4)
    const told: Told[] = []
    const socket = new WebSocket(`ws://${pageOf(server)}`)
    socket.onmessage = ({ data }) => told.push(JSON.parse(data as string) as Told)
    await until('a hello and two frames have come', () => told.length >= 3)
    stop()
    socket.close()
    const [hello, frame] = told as [Told, Told]
    expect(hello).toMatchObject({ type: 'hello', about: { address: String(server.address) } })
    expect(Array.isArray(hello.frames)).toBe(true)
    expect(frame).toMatchObject({
      type: 'frame',
      since: { accepted: 4, tlsHandshakes: 0, tlsFailures: { left: 0 } },
    })
    expect(frame.frame.loops.map(({ connections }) => connections)).toEqual([2, 2])
  })

  it('tells a WebSocket what the broker has counted', async () => {
    const server = await start(1, ':0', { broker: new MemoryBroker(new MemoryExchange()) })
    await server.publish('t', 'taken')
    const told: Told[] = []
    const socket = new WebSocket(`ws://${pageOf(server)}`)
    socket.onmessage = ({ data }) => told.push(JSON.parse(data as string) as Told)
    await until('a frame has come', () => told.length >= 2)
    socket.close()
    expect(told[1]!.since.broker).toMatchObject({ name: 'memory', connected: true, published: 1 })
  })

  it('lets in its own page and what is not a browser, but no other page', async () => {
    const server = await start(1)
    const host = String(pageOf(server))
    expect(await upgrade(server, {})).toBe(101)
    expect(await upgrade(server, { Origin: `http://${host}` })).toBe(101)
    expect(await upgrade(server, { Origin: 'http://elsewhere.test' })).toBe(403)
    expect(await upgrade(server, { Origin: 'null' })).toBe(403)
  })

  it('serves a page that may load nothing from elsewhere', async () => {
    const server = await start(1)
    for (const [path, type] of [
      ['/', 'text/html'],
      ['/console.css', 'text/css'],
      ['/console.js', 'text/javascript'],
    ]) {
      const response = await fetch(`http://${pageOf(server)}${path}`)
      expect(response.headers.get('content-type')).toBe(`${type}; charset=utf-8`)
      expect(response.headers.get('content-security-policy')).toContain("default-src 'none'")
      const text = await response.text()
      expect(text.length).toBeGreaterThan(500)
      expect(text.replaceAll('http://www.w3.org/2000/svg', '')).not.toMatch(/https?:\/\/|@import/)
    }
    const missed = await fetch(`http://${pageOf(server)}/../package.json`)
    expect(missed.status).toBe(404)
    expect((await fetch(`http://${pageOf(server)}`, { method: 'POST' })).status).toBe(405)
  })

  it('is on the loopback interface unless told otherwise, and gone when the server has stopped', async () => {
    const server = await start(1)
    expect(pageOf(server).host).toBe('127.0.0.1')
    await server.stop()
    await expect(fetch(`http://${pageOf(server)}`)).rejects.toThrow()
  })

  it('serves beside the metrics, and with one loop in this thread', async () => {
    const page = webConsole({ address: ':0' })
    const endpoint = metrics({ address: ':0' })
    const server = new Server({ onMessage() {} }, { address: ':0', logger: false }).use(page).use(endpoint)
    servers.push(server)
    await server.start()
    expect((await fetch(`http://${page.address}`)).status).toBe(200)
    expect((await fetch(`http://${endpoint.address}/metrics`)).status).toBe(200)
  })

  it('whose address is taken fails the start, and the metrics are closed again', async () => {
    const first = await start(1)
    const endpoint = metrics({ address: ':0' })
    const second = new Server(LOOP, { address: '127.0.0.1:0', numLoops: 1, logger: false })
    second.use(endpoint).use(webConsole({ address: String(pageOf(first)) }))
    await expect(second.start()).rejects.toMatchObject({ code: 'ERR_RINGLOOP_ADDRESS_IN_USE' })
    await expect(fetch(`http://${endpoint.address}/metrics`)).rejects.toThrow()
  })

  it('refuses options that it cannot use', () => {
    expect(() => webConsole(1389 as never)).toThrow(expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }))
    expect(() => webConsole({ address: '1389' })).toThrow(
      expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }),
    )
  })
})

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium'
const hasBrowser = existsSync(CHROMIUM)
if (!hasBrowser)
  console.error(`there is no browser at ${CHROMIUM}: the tests of the console's page are skipped`)

describe.skipIf(!hasBrowser)('the page', () => {
  let browser: Browser

  beforeAll(async () => {
    browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: [
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    })
  })

  afterAll(() => browser?.close())

  async function open(server: Server, options: Parameters<Browser['newPage']>[0] = {}): Promise<Page> {
    const page = await browser.newPage(options)
    await page.goto(`http://${pageOf(server)}`)
    await page.locator('#state[data-state=live]').waitFor()
    return page
  }

  const panel = (page: Page, title: string): ReturnType<Page['locator']> =>
    page.locator('.panel', { has: page.getByRole('heading', { name: title, exact: true }) })

  /** What the panel says in numbers, without units. */
  const numbersOf = async (page: Page, title: string): Promise<string> =>
    (await panel(page, title).locator('.plot').getAttribute('aria-label')) ?? ''

  /** The vertical extent of everything drawn in a panel, in pixels. */
  const heightOf = (page: Page, title: string): Promise<number> =>
    panel(page, title)
      .locator('path')
      .evaluateAll((paths) =>
        // biome-ignore lint/suspicious/noExplicitAny: the types of the browser are not those of this test
        paths.reduce((most, path: any) => Math.max(most, path.getBBox().height), 0),
      )

  const pathsOf = (page: Page, title: string): Promise<(string | null)[]> =>
    panel(page, title)
      .locator('path')
      .evaluateAll((paths) => paths.map((path) => path.getAttribute('d')))

  const isQuiet = (numbers: string): boolean => /: 0\s\/s$/.test(numbers)

  const TITLES = [
    'Connections',
    'Messages received',
    'Bytes',
    'Handler time',
    'Loop utilisation',
    'Loop delay',
  ]

  it.each([1, 4])('moves while load runs, and asks nobody else: %i loop(s)', async (numLoops) => {
    const server = await start(numLoops)
    const page = await open(server)
    const wrong: string[] = []
    const asked: string[] = []
    page.on('pageerror', (error) => wrong.push(error.message))
    page.on('console', (message) => wrong.push(message.text()))
    page.on('request', (request) => asked.push(request.url()))
    await page.reload()
    await until(
      'a quiet frame is drawn',
      async () => isQuiet(await numbersOf(page, 'Messages received')),
      20_000,
    )
    const stop = await startLoad(server, 8)
    for (const title of TITLES) {
      await until(
        `${title} moves`,
        async () => {
          const before = await pathsOf(page, title)
          await page.waitForTimeout(1100)
          const after = await pathsOf(page, title)
          return JSON.stringify(after) !== JSON.stringify(before) && (await heightOf(page, title)) > 5
        },
        30_000,
      )
    }
    expect(await numbersOf(page, 'Connections')).toBe('Connections: 8')
    expect(await numbersOf(page, 'Messages received')).toMatch(/: [1-9][\d.]*\s[kM]?\/s$/)
    expect(await numbersOf(page, 'Handler time')).toMatch(/p99 [\d.]+\s(µs|ms), p50 [\d.]+\s(µs|ms)$/)
    expect(await page.locator('#loops tbody tr').count()).toBe(numLoops)
    expect(await page.locator('#legend li').count()).toBe(numLoops === 1 ? 0 : numLoops)
    stop()
    await until('it is quiet again', async () => isQuiet(await numbersOf(page, 'Messages received')), 20_000)
    expect(wrong).toEqual([])
    expect(new Set(asked.map((url) => new URL(url).host))).toEqual(new Set([String(pageOf(server))]))
    await page.close()
  })

  it('is dark or light as the reader likes, and fits a phone', async () => {
    const server = await start(2)
    const backgrounds: string[] = []
    for (const colorScheme of ['dark', 'light'] as const) {
      const page = await open(server, { colorScheme, viewport: { width: 360, height: 740 } })
      await page.locator('#loops tbody tr').first().waitFor()
      const look = await page.evaluate<[string, number]>(
        '[getComputedStyle(document.body).backgroundColor, document.documentElement.scrollWidth]',
      )
      backgrounds.push(look[0])
      expect(look[1]).toBeLessThanOrEqual(360)
      await page.close()
    }
    expect(backgrounds[0]).not.toBe(backgrounds[1])
  })

  it('shows an earlier moment under the pointer', async () => {
    const server = await start(1)
    const page = await open(server)
    await until(
      'there is something to point at',
      async () => (await pathsOf(page, 'Bytes'))[0]?.includes('L') === true,
      20_000,
    )
    await panel(page, 'Bytes')
      .locator('.plot')
      .hover({ position: { x: 70, y: 40 } })
    await expect.poll(() => page.locator('#state-text').textContent()).toMatch(/^\d+ s ago$/)
    expect(await page.locator('.cursor').count()).toBe(TITLES.length)
    await page.locator('h1').hover()
    await expect.poll(() => page.locator('#state-text').textContent()).toBe('live')
    await page.close()
  })

  it.each([1, 2])('says when the broker is away, and counts what that cost: %i loop(s)', async (numLoops) => {
    const exchange = new MemoryExchange()
    const server = await start(numLoops, ':0', { broker: new MemoryBroker(exchange) })
    await server.publish('t', 'taken')
    const page = await open(server)
    const broker = page.locator('#broker')
    await page.locator('#broker[data-state=live]').waitFor()
    expect(await broker.textContent()).toBe('memory connected')
    exchange.goAway()
    await expect(server.publish('t', 'not taken')).rejects.toMatchObject({ code: 'ERR_RINGLOOP_BROKER' })
    await page.locator('#broker[data-state=lost]').waitFor()
    expect(await broker.textContent()).toBe('memory away')
    const rejected = page.locator('#since .bad', { hasText: 'memory: rejected' })
    await rejected.waitFor()
    expect(await rejected.textContent()).toBe('memory: rejected1')
    for (const [name, value] of [
      ['published', 1],
      ['topics now', 0],
      ['received', 0],
      ['gaps', 0],
      ['messages missed', 0],
      ['not from ringloop', 0],
    ]) {
      expect(await page.getByText(`memory: ${name}`).locator('..').textContent()).toBe(
        `memory: ${name}${value}`,
      )
    }
    exchange.comeBack()
    await page.locator('#broker[data-state=live]').waitFor()
    await page.close()
  })

  it('says nothing of a broker where there is none, or where the server is gone', async () => {
    const alone = await start(1)
    const page = await open(alone)
    await page.getByText('Accepted').waitFor()
    expect(await page.locator('#broker').textContent()).toBe('')
    expect(await page.getByText('published').count()).toBe(0)
    await page.close()

    const server = await start(1, ':0', { broker: new MemoryBroker(new MemoryExchange()) })
    const second = await open(server)
    await second.getByText('memory connected').waitFor()
    await server.stop()
    await second.locator('#state[data-state=lost]').waitFor()
    expect(await second.locator('#broker').textContent()).toBe('')
    await second.close()
  })

  it('says when the server is gone, and goes on when it is back', async () => {
    const first = await start(1)
    const page = await open(first)
    const address = String(pageOf(first))
    await first.stop()
    await page.locator('#state[data-state=lost]').waitFor()
    const second = await start(1, address)
    await page.locator('#state[data-state=live]').waitFor()
    await until(
      'it shows the new one',
      async () => (await page.locator('#address').textContent()) === String(second.address),
    )
    await page.close()
  })
})

it('the example serves its page beside the echo, and ends with code 0 under its own load', async () => {
  const example = await startExample('console', '--console', '0', '--loops', '2', '--load', '20')
  const [, url] = await example.printed('stdout', /^console at (http:\S+)\n/m)
  expect(await (await fetch(url!)).text()).toContain('ringloop console')
  const message = Buffer.alloc(64, 'x')
  const peer = await example.connect()
  await peer.write(message)
  expect((await peer.received(64)).equals(message)).toBe(true)
  const { code, stderr } = await example.stop()
  expect([code, stderr]).toEqual([0, ''])
})

it('has its page where the package is published', async () => {
  const { files } = (await import('../package.json', { with: { type: 'json' } })).default
  expect(files).toContain('src/plugins/console/page')
  expect(existsSync(fileURLToPath(new URL('../src/plugins/console/page/index.html', import.meta.url)))).toBe(
    true,
  )
})
