import { randomBytes, randomInt } from 'node:crypto'
import { type LoadBalance, Server } from 'ringloop'
import { afterEach, describe, expect, it } from 'vitest'
import { fixtureUrl } from './support/child.js'
import { frames } from './support/length-protocol.js'
import { connectRaw, type RawClient } from './support/raw-client.js'
import { until, within } from './support/wait.js'

const STRATEGIES: LoadBalance[] = [
  'round-robin',
  'least-connection',
  'source-hash',
  (peerAddr, loops) => Number(peerAddr.split(':').at(-1)) % loops.length,
]
const MIB = 1024 * 1024

let server: Server | undefined
const clients: RawClient[] = []

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  await within('stop', server?.stop() ?? Promise.resolve())
  server = undefined
})

/** Mostly small, now and then up to 1 MiB. */
function randomSize(): number {
  const bits = randomInt(0, 21)
  return randomInt(1, 2 ** bits + 1)
}

/** Sends random messages in random pieces and compares what comes back. */
async function exchange(port: number, framed: boolean, total: number): Promise<void> {
  const client = await connectRaw({ port })
  clients.push(client)
  const parts: Buffer[] = []
  for (let sent = 0; sent < total; ) {
    const body = randomBytes(Math.min(randomSize(), MIB))
    const bytes = framed ? frames(body) : body
    parts.push(bytes)
    sent += bytes.length
    const cut = randomInt(0, bytes.length)
    client.write(bytes.subarray(0, cut))
    client.write(bytes.subarray(cut))
    if (randomInt(0, 3) === 0) await client.bytes(sent)
  }
  const all = Buffer.concat(parts)
  await client.bytes(all.length)
  expect(client.received.equals(all)).toBe(true)
}

describe('random echo', () => {
  const modules = { raw: 'echo.mjs', framed: 'length-echo.mjs' }
  for (const poller of ['native', 'net'] as const) {
    it(`${poller}, one loop here`, async () => {
      server = new Server(
        { onMessage: (_c, _ctx, data) => data },
        { address: '127.0.0.1:0', poller, logger: false },
      )
      await server.start()
      const { port } = server.address
      await Promise.all(Array.from({ length: 8 }, () => exchange(port, false, 2 * MIB)))
    })

    for (const numLoops of [1, 2, 4]) {
      for (const strategy of STRATEGIES) {
        for (const [name, module] of Object.entries(modules)) {
          const text = typeof strategy === 'function' ? 'a function' : strategy
          it(`${poller}, ${numLoops} loop thread(s), ${text}, ${name}`, async () => {
            server = new Server(fixtureUrl(module), {
              address: '127.0.0.1:0',
              poller,
              numLoops,
              loadBalance: strategy,
              logger: false,
            })
            await within('start', server.start())
            const { port } = server.address
            await Promise.all(Array.from({ length: 5 }, () => exchange(port, name === 'framed', MIB / 2)))
            // A client can be faster than the count of what it has got.
            const counts = () => server!.stats().total
            await until('all is counted', () => counts().bytesOut === counts().bytesIn)
            expect(counts()).toMatchObject({ accepted: 5, connections: 5 })
          })
        }
      }
    }
  }
})
