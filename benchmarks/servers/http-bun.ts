/** "Hello World" by Bun.serve; runs in Bun, which takes this file as it is compiled. */
import { ready } from './ready.js'

interface BunLike {
  serve(options: { hostname: string; port: number; fetch(): Response }): { hostname: string; port: number }
}

const { Bun } = globalThis as unknown as { Bun: BunLike }
const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch: () => new Response('Hello World'),
})
ready(server.hostname, server.port)
