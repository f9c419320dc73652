// test/http.test.ts once more, over TLS.
import { vi } from 'vitest'

vi.mock('ringloop', async (original) => {
  const { secureServers } = await import('../support/over-tls.js')
  return secureServers(await original())
})
vi.mock('../support/raw-client.js', async (original) => {
  const { secureClients } = await import('../support/over-tls.js')
  return secureClients(await original())
})

await import('../http.test.js')
