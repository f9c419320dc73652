/**
 * Suites of tests once more over TLS: what `vi.mock` puts in the place of `ringloop` and of `raw-client.js`, so that servers
 * and clients of a suite speak TLS without knowing of it.
 */
import { afterAll } from 'vitest'
import { Authority } from './certificates.js'
import type { Where } from './raw-client.js'

const authority = new Authority()
const { key, cert } = authority.issue()
afterAll(() => authority.remove())

type Ringloop = typeof import('ringloop')

/** Every server speaks TLS. */
export function secureServers(ringloop: Ringloop): Ringloop {
  class SecureServer extends ringloop.Server {
    // biome-ignore lint/suspicious/noExplicitAny: the arguments are passed on as they are
    constructor(source: any, options: object = {}) {
      super(source, { tls: { key, cert }, ...options })
    }
  }
  return { ...ringloop, Server: SecureServer as Ringloop['Server'] }
}

type RawClients = typeof import('./raw-client.js')

/** Every client that is connected with `connectRaw` speaks TLS. */
export function secureClients(clients: RawClients): RawClients {
  const connectRaw = async (where: Where, options: { readonly paused?: boolean } = {}) => {
    const { connectTls } = await import('./tls-client.js')
    return connectTls(where, { ca: authority.cert, ...options })
  }
  return { ...clients, connectRaw }
}
