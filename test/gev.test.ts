// What gev's own tests check (https://github.com/Allenxuxu/gev, server_test.go and eventloop tests), on our API.
import { type LoadBalance, type ModuleServerOptions, Server } from 'ringloop'
import { afterEach, describe, expect, it } from 'vitest'
import { fixtureUrl } from './support/child.js'
import { connectRaw, type RawClient } from './support/raw-client.js'
import { until, within } from './support/wait.js'

const servers: Server[] = []
const clients: RawClient[] = []

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  await Promise.all(servers.splice(0).map((server) => within('stop', server.stop())))
})

async function startServer(module: string, options: ModuleServerOptions): Promise<Server> {
  const server = new Server(fixtureUrl(module), { address: '127.0.0.1:0', logger: false, ...options })
  servers.push(server)
  await within('start', server.start())
  return server
}

async function connect(server: Server): Promise<RawClient> {
  const client = await connectRaw({ port: server.address.port })
  clients.push(client)
  return client
}

for (const poller of ['native', 'net'] as const) {
  describe(`${poller}: where connections go`, () => {
    async function spread(loadBalance: LoadBalance, count: number): Promise<number[]> {
      const server = await startServer('echo.mjs', { poller, numLoops: 4, loadBalance })
      for (let i = 0; i < count; i++) await (await connect(server)).echo('x')
      return server.stats().loops.map((loop) => loop.connections)
    }

    it('round-robin: 9 connections on 4 loops are 3, 2, 2, 2', async () => {
      expect(await spread('round-robin', 9)).toEqual([3, 2, 2, 2])
    })

    it('least-connection: 200 connections on 4 loops are 50 each', async () => {
      expect(await spread('least-connection', 200)).toEqual([50, 50, 50, 50])
    })

    it('least-connection fills the loop that has lost some', async () => {
      const server = await startServer('commands.mjs', {
        poller,
        numLoops: 2,
        loadBalance: 'least-connection',
      })
      const list = [
        await connect(server),
        await connect(server),
        await connect(server),
        await connect(server),
      ]
      for (const client of list) await client.echo('x')
      list[0]!.destroy()
      list[2]!.destroy()
      await until('they are gone', () => server.stats().loops[0]!.connections === 0)
      for (let i = 0; i < 2; i++) await (await connect(server)).echo('x')
      expect(server.stats().loops.map((loop) => loop.connections)).toEqual([2, 2])
    })

    it('source-hash: one address, one loop', async () => {
      const counts = await spread('source-hash', 12)
      expect(counts.filter((count) => count > 0)).toEqual([12])
    })

    it('a function sees the address and the loads, and decides', async () => {
      const seen: string[] = []
      const counts = await spread((peerAddr, loops) => {
        seen.push(peerAddr)
        return loops.length - 1
      }, 5)
      expect(counts).toEqual([0, 0, 0, 5])
      for (const addr of seen) expect(addr).toMatch(/^127\.0\.0\.1:\d+$/)
    })
  })
}

it('an idle time of 3 s reaps between 3 and 4 s, on both pollers', async () => {
  await Promise.all(
    (['native', 'net'] as const).map(async (poller) => {
      const server = await startServer('echo.mjs', { poller, numLoops: 2, idleTime: 3000 })
      const client = await connect(server)
      await client.echo('x')
      const since = performance.now()
      await client.whenEnded()
      const took = performance.now() - since
      expect(took, poller).toBeGreaterThan(2900)
      expect(took, poller).toBeLessThan(4500)
      await until('it is counted', () => server.stats().total.closed.idle === 1)
    }),
  )
})

it('runAfter fires once and runEvery until it is stopped, on every loop', async () => {
  const server = await startServer('timers.mjs', { numLoops: 2 })
  for (let i = 0; i < 2; i++) {
    const client = await connect(server)
    await until('the timers are through', async () => {
      const from = client.length
      client.write('?')
      await client.bytes(from + 3)
      return client.received.subarray(from).toString() === '1 10'
    })
  }
})

it('runAfter and runEvery of the server fire in its thread', async () => {
  const server = await startServer('echo.mjs', { numLoops: 1 })
  let after = 0
  let every = 0
  const since = performance.now()
  server.runAfter(200, () => after++)
  const handle = server.runEvery(100, () => {
    if (++every === 3) handle.stop()
  })
  await until('both have fired', () => after === 1 && every === 3)
  expect(performance.now() - since).toBeGreaterThanOrEqual(295)
  await new Promise((resolve) => setTimeout(resolve, 150))
  expect([after, every]).toEqual([1, 3])
})
