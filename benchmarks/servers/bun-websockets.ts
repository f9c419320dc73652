/** WebSockets by Bun.serve, for the contenders that run in Bun, which takes these files as they are compiled. */
import { ready } from './ready.js'

/** As much of Bun's socket and server as they use: its types are no dependency. */
export interface BunSocket {
  send(data: string | Uint8Array): void
  subscribe(topic: string): void
  unsubscribe(topic: string): void
}

export interface BunServer {
  readonly hostname: string
  readonly port: number
  upgrade(request: unknown): boolean
  publish(topic: string, data: string): void
}

interface BunLike {
  serve(options: {
    hostname: string
    port: number
    tls?: { readonly key: string; readonly cert: string } | undefined
    fetch(request: unknown, server: BunServer): unknown
    websocket: { message(socket: BunSocket, data: string | Uint8Array): void }
  }): BunServer
}

/** Serves with `message`, which is given the server too. */
export function serveBun(
  message: (socket: BunSocket, data: string | Uint8Array, server: BunServer) => void,
  tls?: { readonly key: string; readonly cert: string },
): void {
  const { Bun } = globalThis as unknown as { Bun: BunLike }
  const server: BunServer = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    tls,
    fetch: (request, own) => {
      own.upgrade(request)
    },
    websocket: { message: (socket, data) => message(socket, data, server) },
  })
  ready(server.hostname, server.port)
}
