// An IPv6 address with a zone, as a link-local one needs, was refused by the native poller as no address.
import { networkInterfaces } from 'node:os'
import { EventLoop, type Handler, Server } from 'ringloop'
import { afterEach, describe, expect, it } from 'vitest'
import { within } from '../support/wait.js'

const echo: Handler = { onMessage: (_c, _ctx, data) => data }
const ends: (() => Promise<void>)[] = []

afterEach(async () => {
  for (const end of ends.splice(0)) await within('the end', end())
})

function linkLocal(): string | undefined {
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    const found = addresses?.find(({ address }) => address.startsWith('fe80:'))
    if (found !== undefined) return `${found.address}%${name}`
  }
  return undefined
}

const host = linkLocal()

for (const poller of ['native', 'net'] as const) {
  describe(`${poller}: a link-local address`, () => {
    it('that no interface has is the system’s error, not a bad option', async () => {
      const server = new Server(echo, { address: '[fe80::1%lo]:0', poller, logger: false })
      ends.push(() => server.stop())
      await expect(within('the start', server.start())).rejects.toMatchObject({
        code: 'ERR_RINGLOOP_LISTEN',
        cause: { code: expect.stringMatching(/^(EADDRNOTAVAIL|EAFNOSUPPORT)$/) },
      })
    })

    it.skipIf(host === undefined)('is listened on and connected to', async () => {
      const server = new Server(echo, { address: `[${host}]:0`, poller, logger: false })
      ends.push(() => server.stop())
      await within('the start', server.start())
      const loop = new EventLoop({ poller, logger: false })
      ends.push(() => loop.stop())
      const answered = new Promise<string>((resolve, reject) => {
        const handler: Handler = {
          onConnect: (c) => void c.send('over the link'),
          onMessage: (_c, _ctx, data) => resolve(String(data)),
        }
        loop.connect(`[${host}]:${server.address.port}`, { handler }).catch(reject)
      })
      expect(await within('the answer', answered)).toBe('over the link')
    })
  })
}
