/** Servers that say that they are going to stop, and what an IIP client and a balancer make of it. */
import { afterEach, describe, expect, it } from 'vitest'
import { IipBalancer, IipRouter } from '../src/plugins/iip/index.js'
import { FrameServer } from './iip-frame-server.js'
import { atEnd, endAll, iipClient, serveIip, startIip } from './iip-support.js'
import { rounds, until } from './support/wait.js'

afterEach(endAll)

/** `/held` is answered when the test says so. */
async function holding(): Promise<{ server: FrameServer; held: (() => void)[] }> {
  const held: (() => void)[] = []
  const server = await FrameServer.start((asked, on) => {
    if (asked.path === '/held') held.push(() => on.answer(asked))
    else on.answer(asked)
  })
  return { server, held }
}

const closed = (server: FrameServer, index: number): Promise<void> =>
  until(`connection ${index} is closed`, () => server.connections[index]!.closed)

describe.each(['native', 'net'] as const)('%s', (poller) => {
  const one = { poller, maxConnections: 1, maxChannelsPerConn: 1 } as const

  it('a connection asks once for a notice, on a channel that nothing else uses or counts', async () => {
    const { server } = await holding()
    const client = iipClient(server.port, { ...one, timeout: 50 })
    const echo = (): Promise<Buffer> => client.request('/echo', 'x', { timeout: 0 })
    expect(String(await echo())).toBe('x')
    const [asked] = await server.asked('/sys/drain')
    expect([asked!.channel, client.pending, client.connections]).toEqual([2, 0, 1])
    await until('longer than requests may take', async () => {
      await Promise.all(Array.from({ length: 40 }, echo))
      return server.connections[0]!.of('/echo').length > 500
    })
    expect(server.connections[0]!.of('/echo').every(({ channel }) => channel === 1)).toBe(true)
    expect(server.connections[0]!.of('/sys/drain')).toHaveLength(1)
    expect(server.connections).toHaveLength(1)
  })

  it('on the notice pending requests end, and new ones take another connection', async () => {
    const { server, held } = await holding()
    let told = 0
    const client = iipClient(server.port, { ...one, onDrain: () => told++ })
    await client.request('/echo', 'x')
    await server.asked('/sys/drain')
    const slow = [1, 2].map((i) => client.request('/held', `${i}`))
    await server.asked('/held', 2)
    server.connections[0]!.drain()
    await until('the notice is there', () => told === 1)
    expect(String(await client.request('/echo', 'elsewhere'))).toBe('elsewhere')
    expect(server.connections.map((on) => on.of('/echo').length)).toEqual([1, 1])
    expect(server.connections[0]!.closed).toBe(false)
    for (const answer of held) answer()
    expect((await Promise.all(slow)).map(String)).toEqual(['1', '2'])
    await closed(server, 0)
    expect(client.connections).toBe(1)
  })

  it('a connection that nothing is pending on is closed at once, also before its first answer', async () => {
    const { server, held } = await holding()
    const client = iipClient(server.port, one)
    const slow = client.request('/held', 'x')
    await server.asked('/sys/drain')
    for (const answer of held.splice(0)) answer()
    await slow
    server.connections[0]!.drain()
    await closed(server, 0)
    expect(String(await client.request('/echo', 'x'))).toBe('x')
  })

  it('a channel of one’s own ends with its connection, and says so', async () => {
    const { server, held } = await holding()
    const client = iipClient(server.port, one)
    const channel = await client.channel()
    await channel.request('/echo', 'x')
    await server.asked('/sys/drain')
    const slow = channel.request('/held', 'mine')
    await server.asked('/held')
    server.connections[0]!.drain()
    await rounds()
    held[0]!()
    expect(String(await slow)).toBe('mine')
    await closed(server, 0)
    await until('the channel is closed', () => channel.closed)
    await expect(channel.request('/echo', 'x')).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED', sent: false })
  })

  it.each(['{"code":102,"message":"handle error"}', 'what?', 'null'])(
    'a server that answers %s gives no notices: the channel goes back',
    async (answer) => {
      const { server } = await holding()
      server.drains = answer
      const client = iipClient(server.port, one)
      await client.request('/echo', 'x')
      expect((await server.asked('/sys/delete_channel'))[0]).toMatchObject({ channel: 2 })
      expect(String(await client.request('/echo', 'y'))).toBe('y')
      expect(server.connections).toHaveLength(1)
    },
  )

  it('a balancer asks another server first, and comes back to one that is there again', async () => {
    const servers = [(await holding()).server, (await holding()).server]
    const balancer = new IipBalancer({
      servers: servers.map(({ port }) => `127.0.0.1:${port}#1`).join(),
      strategy: 'round-robin',
      poller,
      pause: 1500,
      logger: false,
    })
    atEnd(() => balancer.close())
    const ask = (): Promise<unknown> => Promise.all([1, 2].map(() => balancer.request('/echo', 'x')))
    const asked = (): number[] =>
      servers.map(({ connections: all }) => all.flatMap((on) => on.of('/echo')).length)
    await ask()
    expect(asked()).toEqual([1, 1])
    await servers[0]!.asked('/sys/drain')
    servers[0]!.connections[0]!.drain()
    await until('the balancer knows', () => balancer.backends[0]!.paused)
    expect(balancer.backends[0]!.failures).toBe(0)
    await ask()
    expect(asked()).toEqual([1, 3])
    await until('it is asked again', async () => {
      await ask()
      return asked()[0]! > 1
    })
    expect(balancer.backends.map(({ paused }) => paused)).toEqual([false, false])
  })

  it('a balancer leaves a server that drains, also when that answers what it still has', async () => {
    const { server, held } = await holding()
    const other = (await holding()).server
    const balancer = new IipBalancer({
      servers: `127.0.0.1:${server.port}#1,127.0.0.1:${other.port}#1`,
      strategy: (_, [first]) => (first?.paused === true ? undefined : first?.address),
      poller,
      pause: 60_000,
      logger: false,
    })
    atEnd(() => balancer.close())
    const slow = [1, 2].map((i) => balancer.request('/held', `${i}`))
    await server.asked('/sys/drain')
    await server.asked('/held', 2)
    server.connections[0]!.drain()
    await until('the balancer knows', () => balancer.backends[0]!.paused)
    for (const answer of held) answer()
    expect((await Promise.all(slow)).map(String)).toEqual(['1', '2'])
    expect(balancer.backends[0]).toMatchObject({ paused: true, failures: 0 })
    expect(String(await balancer.request('/echo', 'x'))).toBe('x')
    expect(other.connections[0]!.of('/echo')).toHaveLength(1)
  })

  it('no call is on its way before the question, and none waits for more than its channel', async () => {
    const { server } = await holding()
    const client = iipClient(server.port, { poller, maxConnections: 2, maxChannelsPerConn: 2 })
    await Promise.all(Array.from({ length: 8 }, (_, i) => client.request('/echo', `${i}`)))
    for (const { frames } of server.connections) {
      const paths = frames.map(({ path }) => path)
      expect(paths.slice(0, 2)).toEqual(['/sys/new_channel', '/sys/new_channel'])
      expect(paths.find((path) => path !== '/sys/new_channel')).toBe('/sys/drain')
    }
  })

  it('a server that gives few channels gives them for calls first', async () => {
    const router = new IipRouter().handle('/channel', ({ channel }) => `${channel}`)
    const port = await serveIip(router, { maxChannelsPerConn: 1 })
    const client = iipClient(port, { poller, maxConnections: 1 })
    const answers = Array.from({ length: 5 }, () => client.request('/channel'))
    expect((await Promise.all(answers)).map(String)).toEqual(Array(5).fill('1'))
  })

  it('no request is lost where servers drain while clients begin', async () => {
    const router = new IipRouter().handle('/echo', ({ data }) => data)
    const servers = [await startIip(router), await startIip(router)]
    const balancer = new IipBalancer({
      servers: servers.map(({ address }) => `127.0.0.1:${address.port}#1`).join(),
      strategy: (_, [first, second]) => (first?.paused === true ? second?.address : first?.address),
      poller,
      logger: false,
    })
    atEnd(() => balancer.close())
    expect(String(await balancer.request('/echo', 'first'))).toBe('first')
    let asked = 0
    let stopped = false
    const load = async (): Promise<void> => {
      for (; !stopped; asked++) expect(String(await balancer.request('/echo', 'x'))).toBe('x')
    }
    const loads = Promise.all([load(), load(), load()])
    await rounds(10)
    await servers[0]!.stop({ drain: 5000 })
    stopped = true
    await loads
    expect(asked).toBeGreaterThan(3)
  })
})
