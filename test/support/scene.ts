/** The servers and clients of one test file in processes of their own: made by its tests, ended after each. */
import { afterEach } from 'vitest'
import { HostedServer, type HostOptions } from './hosted-server.js'
import { connectRaw, type RawClient } from './raw-client.js'

export interface Scene {
  serve(module: string, host: HostOptions): Promise<HostedServer>
  client(server: HostedServer): Promise<RawClient>
}

/** To be called once, at the top of a test file. */
export function hostedScene(): Scene {
  const servers: HostedServer[] = []
  const clients: RawClient[] = []
  afterEach(() => {
    for (const client of clients.splice(0)) client.destroy()
    for (const server of servers.splice(0)) server.kill()
  })
  return {
    serve: async (module, host) => {
      const server = await HostedServer.start(module, host)
      servers.push(server)
      return server
    },
    client: async (server) => {
      const client = await connectRaw(server)
      clients.push(client)
      return client
    },
  }
}
