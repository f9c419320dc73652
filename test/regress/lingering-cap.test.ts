// Closed sockets whose peers did not end lingered, 1,501 of them at once with a maxConnections of 10.
import { type Handler, Server } from 'ringloop'
import { afterEach, expect, it } from 'vitest'
import { openSockets } from '../support/descriptors.js'
import { connectRaw, type RawClient } from '../support/raw-client.js'
import { until, within } from '../support/wait.js'

const LIMIT = 10
const CLIENTS = 300

const clients: RawClient[] = []
let server: Server | undefined

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  await within('the stop', server!.stop())
})

const farewell: Handler = {
  onConnect: (c) => c.close(),
  onMessage: () => {},
}

for (const poller of ['native', 'net'] as const) {
  it(`${poller}: no more linger than may be open`, async () => {
    server = new Server(farewell, { address: '127.0.0.1:0', poller, maxConnections: LIMIT, logger: false })
    await within('the start', server.start())
    const before = openSockets()
    while (clients.length < CLIENTS) {
      const { port } = server.address
      const some = await Promise.all(Array.from({ length: LIMIT }, () => connectRaw({ port })))
      clients.push(...some)
      await until('they are closed', () => some.every((each) => each.ended || each.closed))
      const open = clients.filter((each) => !each.closed).length
      expect(openSockets() - before - open).toBeLessThanOrEqual(2 * LIMIT)
    }
  })
}
