/** WebSocket echo by Bun.serve; runs in Bun, which takes this file as it is compiled. */
import { ready } from './ready.js'

interface Socket {
  send(data: string | Uint8Array): void
}

interface BunServer {
  readonly hostname: string
  readonly port: number
  upgrade(request: unknown): boolean
}

interface BunLike {
  serve(options: {
    hostname: string
    port: number
    fetch(request: unknown, server: BunServer): unknown
    websocket: { message(socket: Socket, data: string | Uint8Array): void }
  }): BunServer
}

const { Bun } = globalThis as unknown as { Bun: BunLike }
const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch: (request, own) => {
    own.upgrade(request)
  },
  websocket: {
    message: (socket, data) => {
      socket.send(data)
    },
  },
})
ready(server.hostname, server.port)
