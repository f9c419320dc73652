// A peer that ended its side in the middle of the TLS handshake, and left the socket open, stayed counted for ever.
import { type Handler, Server } from 'ringloop'
import { afterEach, expect, it } from 'vitest'
import { fixtureUrl } from '../support/child.js'
import { connectRaw, type RawClient } from '../support/raw-client.js'
import { until, within } from '../support/wait.js'

const clients: RawClient[] = []
let server: Server | undefined

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  await within('the stop', server!.stop())
})

const here: Handler = { onMessage: (_c, _ctx, data) => data }

for (const [name, source, numLoops] of [
  ['here', here, 1],
  ['2 threads', fixtureUrl('echo.mjs'), 2],
] as const) {
  it(`${name}: such a peer makes room for the next`, async () => {
    server = new Server(source as URL, {
      address: '127.0.0.1:0',
      numLoops,
      maxConnections: 2,
      logger: false,
      tls: {},
    })
    await within('the start', server.start())
    for (let i = 0; i < 6; i++) {
      const client = await connectRaw({ port: server.address.port })
      clients.push(client)
      // The first bytes of a ClientHello, and nothing after it.
      client.socket.end('\x16\x03\x01\x02\x00\x01')
      await client.whenEnded()
      await until('it is not counted', () => server!.stats().total.connections === 0)
    }
    expect(server.stats().total.rejected).toBe(0)
  })
}
