/** The balancing client: the server list, the strategies, health, retries, changes while it runs. */
import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { fnv1, parseServers } from '../src/plugins/iip/balancer.js'
import { IipBalancer, type IipBalancerOptions, IipFailure, IipRouter } from '../src/plugins/iip/index.js'
import { FrameServer, type FrameSocket } from './iip-frame-server.js'
import { atEnd, endAll, type Frame, startIip, until } from './iip-support.js'
import { freePort } from './support/free-port.js'
import { until as within } from './support/wait.js'

afterEach(endAll)

interface Named {
  readonly address: string
  readonly port: number
  requests: number
  /** It never answers who it is. */
  slow: boolean
  stop(): Promise<void>
}

/** A server that answers with its name. */
async function named(name: string, port = 0): Promise<Named> {
  const router = new IipRouter({ statistics: 'off' })
    .handle('/who', () => {
      self.requests++
      return self.slow ? new Promise(() => {}) : name
    })
    .handle('/sleep', async ({ query }) => {
      self.requests++
      await sleep(Number(query.get('ms')))
      return name
    })
    .handle('/die', ({ connection }) => {
      self.requests++
      connection.close()
      return 'lost'
    })
    .handle('/fail', () => {
      throw new IipFailure('ill')
    })
  const server = await startIip(router, {}, { address: `127.0.0.1:${port}` })
  const self: Named = {
    address: `127.0.0.1:${server.address.port}`,
    port: server.address.port,
    requests: 0,
    slow: false,
    stop: () => server.stop(),
  }
  return self
}

/** Loses its connection where it is asked to. */
function cut(asked: Frame, on: FrameSocket): void {
  if (asked.path === '/cut') on.socket.destroy()
  else on.answer(asked)
}

function balance(options: IipBalancerOptions): IipBalancer {
  const balancer = new IipBalancer({ logger: false, minReconnectDelay: 10, raw: true, ...options })
  atEnd(() => balancer.close())
  return balancer
}

async function ask(balancer: IipBalancer, times: number, path = '/who', clientIp = ''): Promise<string[]> {
  const answers: string[] = []
  for (let i = 0; i < times; i++)
    answers.push((await balancer.request(path, undefined, { clientIp })).toString())
  return answers
}

describe('a server list', () => {
  it('is read entry by entry, and bad ones are reported', () => {
    const list = ' a:1#3, b:2#100 ,c:3,d:4#0,e:5#101,f:6#x,g#1,h:70000#1,:8#2,[::1]:9#1,i:1#1#1,,a:1#2'
    const { entries, bad } = parseServers(list)
    expect(entries).toEqual([
      { address: 'a:1', weight: 5 },
      { address: 'b:2', weight: 100 },
      { address: ':8', weight: 2 },
      { address: '[::1]:9', weight: 1 },
    ])
    expect(bad.map(({ entry }) => entry)).toEqual([
      'c:3',
      'd:4#0',
      'e:5#101',
      'f:6#x',
      'g#1',
      'h:70000#1',
      'i:1#1#1',
      '',
    ])
  })

  it.each([
    {},
    { servers: 5 },
    { isHealthy: 5 },
    { strategy: 'uri-param', paramKey: 5 },
    { paramKey: 5 },
    { probe: null },
    { probe: {} },
    { probe: { path: 5 } },
    { probe: { path: '' } },
    { probe: { path: '/sys/drain' } },
    { probe: { path: '/p', data: '' } },
    { probe: { path: '/p', data: (async function* () {})() } },
    { probe: { path: '/p', timeout: -1 } },
    { probe: { path: '/p', timeout: 0 } },
    { probe: { path: '/p', interval: 0 } },
    { probe: { path: '/p', check: 5 } },
    { probe: { path: '/p', raw: true } },
    { loop: {} },
    { tls: 5 },
  ])('and options that cannot be are refused: %j', (options) => {
    const given = Object.keys(options).length === 0 ? {} : { servers: '127.0.0.1:1#1', ...options }
    expect(() => new IipBalancer(given as never)).toThrow(
      expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }),
    )
  })

  it('is a string, also one entry', () => {
    const balancer = balance({ servers: 'a:1#1' })
    expect(() => balancer.addBackend(5 as never)).toThrow(
      expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }),
    )
  })

  it('without a good entry is refused with the reasons', () => {
    expect(() => balance({ servers: 'a:1,b' })).toThrow(/'a:1': it must have one # and a weight behind it/)
  })
})

describe('a strategy', () => {
  it('round-robin takes turns as often as the weights say', async () => {
    const [a, b, c] = [await named('a'), await named('b'), await named('c')]
    const balancer = balance({
      servers: `${a.address}#3,${b.address}#1,${c.address}#2`,
      strategy: 'round-robin',
    })
    expect((await ask(balancer, 12)).join('')).toBe('abcacaabcaca')
  })

  it('random reaches all of them', async () => {
    const [a, b] = [await named('a'), await named('b')]
    const balancer = balance({ servers: `${a.address}#1,${b.address}#1`, strategy: 'random' })
    expect(new Set(await ask(balancer, 60)).size).toBe(2)
  })

  it('min-pending, the default, avoids the busy one', async () => {
    const [a, b] = [await named('a'), await named('b')]
    const balancer = balance({ servers: `${a.address}#1,${b.address}#1` })
    const slow = balancer.request('/sleep?ms=300')
    await until(() => balancer.backends.some(({ pending }) => pending > 0))
    const answers = new Set(await ask(balancer, 10))
    expect(answers.size).toBe(1)
    expect(answers.has((await slow).toString())).toBe(false)
  })

  it('ip-hash and uri-param choose as Go does: FNV-1, 32 bits', async () => {
    // Of hash/fnv.New32.
    expect([fnv1(''), fnv1('a'), fnv1('foobar')]).toEqual([0x811c9dc5, 0x050c5d7e, 0x31f0b262])
    const [a, b] = [await named('a'), await named('b')]
    const servers = `${a.address}#1,${b.address}#1`
    const nameFor = (text: string): string => (fnv1(text) % 2 === 0 ? 'a' : 'b')
    const byIp = balance({ servers, strategy: 'ip-hash' })
    const byParam = balance({ servers, strategy: 'uri-param', paramKey: 'user' })
    for (const text of ['10.0.0.1', '10.0.0.2', '::1', 'ada']) {
      expect(await ask(byIp, 2, '/who', text)).toEqual(Array(2).fill(nameFor(text)))
      expect(await ask(byParam, 2, `/who?user=${text}`)).toEqual(Array(2).fill(nameFor(text)))
    }
  })

  it('may be a function of the request', async () => {
    const [a, b] = [await named('a'), await named('b')]
    const balancer = balance({
      servers: `${a.address}#1,${b.address}#1`,
      strategy: ({ query, path }, backends) => {
        expect([path.startsWith('/who'), backends.length]).toEqual([true, 2])
        return query.get('to') === 'b' ? b.address : query.get('to') === 'x' ? 'nowhere:1' : undefined
      },
    })
    expect(await ask(balancer, 3, '/who?to=b')).toEqual(['b', 'b', 'b'])
    expect(new Set(await ask(balancer, 4)).size).toBe(2)
    await expect(balancer.request('/who?to=x')).rejects.toMatchObject({ code: 'ERR_RINGLOOP_OPTION' })
  })
})

describe('a server that fails', () => {
  it('is left out, and asked again when it is back', async () => {
    const a = await named('a')
    const port = await freePort()
    const balancer = balance({ servers: `${a.address}#1,127.0.0.1:${port}#1`, maxFailures: 2, pause: 200 })
    expect(new Set(await ask(balancer, 20))).toEqual(new Set(['a']))
    expect(balancer.backends.map(({ paused }) => paused)).toEqual([false, true])
    await named('b', port)
    const answers = new Set<string>()
    while (answers.size < 2) for (const answer of await ask(balancer, 4)) answers.add(answer)
    expect(balancer.backends.every(({ paused, failures }) => !paused && failures === 0)).toBe(true)
  })

  it('has its requests done elsewhere only where they are safe', async () => {
    const [a, b] = [await named('a'), await named('b')]
    const balancer = balance({ servers: `${a.address}#1,${b.address}#1`, strategy: 'round-robin' })
    await expect(balancer.request('/die')).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED', sent: true })
    expect(a.requests + b.requests).toBe(1)
    await expect(balancer.request('/die', 'x', { safe: true })).rejects.toMatchObject({
      code: 'ERR_IIP_CLOSED',
    })
    expect(a.requests + b.requests).toBe(3)
  })

  it('loses no safe request when it is stopped in the middle', async () => {
    const servers = [await named('a'), await named('b'), await named('c')]
    const balancer = balance({
      servers: servers.map(({ address }) => `${address}#1`).join(','),
      maxConnections: 2,
    })
    const asked = Array.from({ length: 300 }, (_, i) =>
      balancer.request(`/sleep?ms=${i % 20}`, 'x', { safe: true }),
    )
    const answered = new Set<string>()
    for (const each of asked) void each.then((name) => answered.add(String(name)))
    await until(() => answered.size === servers.length)
    await servers[1]!.stop()
    const names = (await Promise.all(asked)).map(String)
    expect(names).toHaveLength(300)
    expect(new Set(names)).toEqual(new Set(['a', 'b', 'c']))
  })

  it('has its requests done by one that is paused where no other is left', async () => {
    const [a, b] = [await named('a'), await named('b')]
    const balancer = balance({
      servers: `${a.address}#1,${b.address}#1`,
      strategy: (_, [first]) => first?.address,
      maxFailures: 1,
      pause: 60_000,
      isHealthy: (error, answer) => error === undefined && answer?.includes('ill') === false,
    })
    // Both are paused by what they answer, and alive.
    while (!balancer.backends.every(({ paused }) => paused)) await ask(balancer, 1, '/fail')
    await a.stop()
    const answers = Array.from({ length: 20 }, () => balancer.request('/who', 'x', { safe: true }))
    expect((await Promise.all(answers)).map(String)).toEqual(Array(20).fill('b'))
  })

  it.each(['native', 'net'] as const)(
    'is connected to at once where no other is left, however long its client would pause (%s)',
    async (poller) => {
      const [a, port] = [await named('a'), await freePort()]
      const balancer = balance({
        servers: `127.0.0.1:${port}#1,${a.address}#1`,
        strategy: (_, [first]) => first?.address,
        maxFailures: 1,
        pause: 60_000,
        minReconnectDelay: 60_000,
        maxReconnectDelay: 60_000,
        poller,
      })
      expect(await ask(balancer, 2)).toEqual(['a', 'a'])
      expect(balancer.backends.map(({ paused }) => paused)).toEqual([true, false])
      await named('b', port)
      await a.stop()
      const answers = Array.from({ length: 20 }, () => balancer.request('/who', 'x', { safe: true }))
      expect((await Promise.all(answers)).map(String)).toEqual(Array(20).fill('b'))
    },
  )

  it('is connected to by one attempt at a time, however many ask', async () => {
    let attempts = 0
    const server = net.createServer((socket) => {
      attempts++
      socket.on('error', () => {}).resetAndDestroy()
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    atEnd(() => server.close())
    const balancer = balance({
      servers: `127.0.0.1:${(server.address() as net.AddressInfo).port}#1`,
      maxFailures: 1,
      maxChannelsPerConn: 1,
      pause: 60_000,
      minReconnectDelay: 60_000,
    })
    for (let i = 1; i <= 3; i++) {
      const asked = Array.from({ length: i === 1 ? 1 : 20 }, () =>
        balancer.request('/who').catch(() => 'lost'),
      )
      expect(new Set(await Promise.all(asked))).toEqual(new Set(['lost']))
      expect(attempts).toBe(i)
    }
  })

  it('is tried when its pause is over, however long its client would pause', async () => {
    const port = await freePort()
    const balancer = balance({
      servers: `127.0.0.1:${port}#1`,
      maxFailures: 1,
      pause: 50,
      minReconnectDelay: 60_000,
      maxReconnectDelay: 60_000,
    })
    await expect(balancer.request('/who')).rejects.toMatchObject({ code: 'ERR_IIP_CONNECT' })
    await named('back', port)
    await within('it is back', async () => {
      const answer = await balancer.request('/who').catch(() => undefined)
      return String(answer) === 'back'
    })
  })

  it('is tried by one request when its pause is over, and the others go elsewhere', async () => {
    const [a, b] = [await named('a'), await named('b')]
    const balancer = balance({
      servers: `${a.address}#1,${b.address}#1`,
      strategy: 'round-robin',
      maxFailures: 1,
      pause: 400,
    })
    await expect(balancer.request('/die')).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED' })
    expect(balancer.backends[0]!.paused).toBe(true)
    await until(() => !balancer.backends[0]!.paused)
    const before = a.requests
    const asked = Array.from({ length: 20 }, () => balancer.request('/sleep?ms=100'))
    expect(balancer.backends[0]).toMatchObject({ paused: true, failures: 1 })
    const names = (await Promise.all(asked)).map(String)
    expect([names.filter((name) => name === 'a').length, a.requests - before]).toEqual([1, 1])
    expect(balancer.backends[0]).toMatchObject({ paused: false, failures: 0 })
    expect(new Set(await ask(balancer, 4))).toEqual(new Set(['a', 'b']))
  })

  it('is paused again when the request that tries it fails, and tried anew when that is given up', async () => {
    const [a, b] = [await named('a'), await named('b')]
    const balancer = balance({
      servers: `${a.address}#1,${b.address}#1`,
      strategy: (_, [first]) => (first?.paused === true ? undefined : first?.address),
      maxFailures: 1,
      pause: 400,
    })
    const first = (): boolean => balancer.backends[0]!.paused
    for (let i = 1; i <= 2; i++) {
      await until(() => !first())
      await expect(balancer.request('/die')).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED' })
      expect(balancer.backends[0]).toMatchObject({ paused: true, failures: i })
    }
    await until(() => !first())
    const controller = new AbortController()
    const trial = balancer.request('/sleep?ms=10000', 'x', { signal: controller.signal })
    expect(first()).toBe(true)
    controller.abort(new Error('never mind'))
    await expect(trial).rejects.toThrow('never mind')
    expect([first(), balancer.backends[0]!.failures]).toEqual([false, 2])
    expect(await ask(balancer, 1)).toEqual(['a'])
    expect(b.requests).toBe(0)
  })

  it('is asked again no more often than the retry budget allows', async () => {
    const servers = [await FrameServer.start(cut), await FrameServer.start(cut)]
    const balancer = balance({
      servers: servers.map(({ port }) => `127.0.0.1:${port}#1`).join(),
      maxFailures: 1_000_000,
      minReconnectDelay: 0,
      retry: { budget: 0.5 },
    })
    const asked = (): number =>
      servers.flatMap(({ connections }) => connections).flatMap((on) => on.of('/cut')).length
    for (let i = 0; i < 300; i++) {
      await expect(balancer.request('/cut', 'x', { safe: true })).rejects.toMatchObject({
        code: 'ERR_IIP_CLOSED',
      })
    }
    // 100 are free, and then every second request is tried twice.
    expect(asked()).toBe(300 + 250)
  })

  it('that is slow is given a part of the time of a safe request', async () => {
    const [a, b] = [await named('a'), await named('b')]
    const balancer = balance({
      servers: `${a.address}#1,${b.address}#1`,
      strategy: (_, [first]) => first?.address,
      retry: { perTryTimeout: 400 },
    })
    expect(await ask(balancer, 1)).toEqual(['a'])
    const since = performance.now()
    a.slow = true
    expect(String(await balancer.request('/who', 'x', { safe: true, timeout: 60_000 }))).toBe('b')
    expect(performance.now() - since).toBeLessThan(20_000)
    expect([a.requests, b.requests]).toEqual([2, 1])
    // The last try has all that is left, as a request has that cannot be done twice.
    expect(String(await balancer.request('/sleep?ms=200', 'x', { timeout: 60_000 }))).toBe('a')
    await b.stop()
    const last = balancer.request('/who', 'x', { safe: true, timeout: 300 })
    await expect(last).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_IIP_(CONNECT|CLOSED|TIMEOUT)$/),
    })
    for (const retry of [{ budget: -1 }, { budget: 'x' }, { perTryTimeout: -1 }, { tries: 3 }, 5]) {
      expect(() => balance({ servers: 'a:1#1', retry: retry as never })).toThrow(
        expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }),
      )
    }
  })

  it('that is slow is left only by those that may be sent again', async () => {
    const [a, b] = [await named('a'), await named('b')]
    const balancer = balance({
      servers: `${a.address}#1,${b.address}#1`,
      strategy: (_, [first]) => first?.address,
      maxFailures: 1_000_000,
      maxChannelsPerConn: 64,
      retry: { perTryTimeout: 200, budget: 0 },
    })
    async function* once(): AsyncGenerator<string> {
      yield 'x'
    }
    const chunks = balancer.request('/sleep?ms=1000', once(), { safe: true })
    const asked = Array.from({ length: 150 }, () => balancer.request('/sleep?ms=1000', 'x', { safe: true }))
    const names = (await Promise.all(asked)).map(String)
    // 100 are free.
    expect(names.filter((name) => name === 'b')).toHaveLength(100)
    expect(String(await chunks)).toBe('a')
    // The caller's own signal counts as before.
    const controller = new AbortController()
    const given = balancer.request('/who?', 'x', { safe: true, signal: controller.signal })
    controller.abort(new Error('never mind'))
    await expect(given).rejects.toThrow('never mind')
  })

  it('is judged by its streams, too', async () => {
    const server = await FrameServer.start(cut)
    const balancer = balance({ servers: `127.0.0.1:${server.port}#1`, maxFailures: 2, pause: 50 })
    for (let i = 0; i < 2; i++) {
      await expect(balancer.stream('/cut').bytes()).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED' })
    }
    await until(() => balancer.backends[0]!.failures === 2)
    await until(() => !balancer.backends[0]!.paused)
    expect(String(await balancer.stream('/echo', 'x').bytes())).toBe('x')
    await until(() => balancer.backends[0]!.failures === 0)
    // One that its reader leaves says nothing against the server.
    await balancer.stream('/echo', 'x').return()
    expect(String(await balancer.stream('/echo', 'x').bytes())).toBe('x')
    expect(balancer.backends[0]).toMatchObject({ paused: false, failures: 0 })
  })

  it('is back with the first packet of a stream that tries it, however long that goes on', async () => {
    const server = await FrameServer.start((asked, on) => {
      if (asked.path === '/endless') on.send(4, asked.path, asked.channel, 'first')
      else cut(asked, on)
    })
    const balancer = balance({
      servers: `127.0.0.1:${server.port}#1,${(await named('other')).address}#1`,
      strategy: (_, [first]) => (first?.paused === true ? undefined : first?.address),
      maxFailures: 1,
      pause: 50,
      timeout: 0,
    })
    await expect(balancer.stream('/cut').bytes()).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED' })
    expect(balancer.backends[0]!.failures).toBe(1)
    await until(() => !balancer.backends[0]!.paused)
    const endless = balancer.stream('/endless')
    expect(balancer.backends[0]!.paused).toBe(true)
    await within('it is back', () => !balancer.backends[0]!.paused)
    expect(balancer.backends[0]).toMatchObject({ failures: 0, pending: 1 })
    expect(await ask(balancer, 2, '/echo')).toEqual(['{}', '{}'])
    await endless.return()
  })

  it('is found by a probe without any request, and may be judged by its answers', async () => {
    const [a, b] = [await named('a'), await named('b')]
    const balancer = balance({
      servers: `${a.address}#1,${b.address}#1`,
      pause: 60_000,
      probe: { path: '/who', interval: 20, check: (answer) => answer.toString() !== 'b' },
    })
    await until(() => balancer.backends[1]!.paused)
    expect(await ask(balancer, 5)).toEqual(Array(5).fill('a'))
    const judging = balance({
      servers: `${a.address}#1`,
      maxFailures: 1,
      isHealthy: (error, answer) => error === undefined && answer?.includes('ill') === false,
    })
    await ask(judging, 1, '/fail')
    expect(judging.backends[0]!.paused).toBe(true)
    expect(await ask(judging, 1)).toEqual(['a'])
  })
})

describe('a balancer that runs', () => {
  it('takes new servers and lets go of old ones, whose requests are still answered', async () => {
    const [a, b] = [await named('a'), await named('b')]
    const balancer = balance({ servers: `${a.address}#1`, strategy: 'round-robin' })
    expect(await ask(balancer, 2)).toEqual(['a', 'a'])
    const running = balancer.request('/sleep?ms=150')
    await until(() => a.requests === 3)
    balancer.addBackend(`${b.address}#2`)
    expect(balancer.removeBackend(a.address)).toBe(true)
    expect(balancer.removeBackend(a.address)).toBe(false)
    expect(await ask(balancer, 3)).toEqual(['b', 'b', 'b'])
    expect((await running).toString()).toBe('a')
    expect(() => balancer.addBackend('c:1')).toThrow(/not one server/)
  })

  it('without servers, or closed, rejects with ERR_IIP_NO_BACKEND', async () => {
    const a = await named('a')
    const balancer = balance({ servers: `${a.address}#1` })
    balancer.removeBackend(a.address)
    await expect(balancer.request('/who')).rejects.toMatchObject({ code: 'ERR_IIP_NO_BACKEND' })
    await balancer.close()
    await expect(balancer.request('/who')).rejects.toThrow('the balancer is closed')
    expect(() => balancer.addBackend(`${a.address}#1`)).toThrow(/closed/)
  })
})
