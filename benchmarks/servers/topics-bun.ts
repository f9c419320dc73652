/** WebSocket topics by Bun.serve; runs in Bun, which takes this file as it is compiled. */
import { ready } from './ready.js'

interface Socket {
  subscribe(topic: string): void
  unsubscribe(topic: string): void
}

interface BunServer {
  readonly hostname: string
  readonly port: number
  upgrade(request: unknown): boolean
  publish(topic: string, data: string): void
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
const server: BunServer = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch: (request, own) => {
    own.upgrade(request)
  },
  websocket: {
    message: (socket, data) => {
      const [command, name = '', ...words] = String(data).split(' ')
      if (command === 'sub') socket.subscribe(name)
      else if (command === 'unsub') socket.unsubscribe(name)
      else if (command === 'pub') server.publish(name, `${name} ${words.join(' ')}`)
    },
  },
})
ready(server.hostname, server.port)
