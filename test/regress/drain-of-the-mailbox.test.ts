// A connection that was still on its way to its loop's thread when stop({ drain }) began was dropped without an answer.
import { Server } from 'ringloop'
import { afterEach, expect, it } from 'vitest'
import { fixtureUrl } from '../support/child.js'
import { connectRaw, type RawClient } from '../support/raw-client.js'
import { until, within } from '../support/wait.js'

const LATE = 400

const clients: RawClient[] = []
let server: Server | undefined

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  await within('the stop', server!.stop())
})

async function connect(): Promise<RawClient> {
  const client = await connectRaw({ port: server!.address.port })
  clients.push(client)
  // Else the closed socket lingers for as long as it may.
  client.socket.on('end', () => client.socket.end())
  return client
}

for (const poller of ['native', 'net'] as const) {
  it(`${poller}: what waits in the mailbox of a busy loop is answered before the stop is over`, async () => {
    server = new Server(fixtureUrl('commands.mjs'), {
      address: '127.0.0.1:0',
      poller,
      numLoops: 2,
      loadBalance: () => 0,
      logger: false,
    })
    await within('the start', server.start())
    const busy = await connect()
    await busy.echo('x')
    busy.write('spin 1500')
    await new Promise((resolve) => setTimeout(resolve, 50))
    // More than a loop takes out of its mailbox before it starts to drain.
    const late = await Promise.all(Array.from({ length: LATE }, connect))
    for (const client of late) client.write('served')
    await until('all are on their way', () => server!.stats().total.connections === LATE + 1)
    await within('the stop', server.stop({ drain: 5000 }))
    for (const client of late) {
      await client.whenEnded()
      expect(client.text).toBe('served')
      expect(client.error).toBeUndefined()
    }
    expect(busy.text).toBe('xspun')
    expect(server.stats().total.connections).toBe(0)
  })
}
