/** Echo over TLS in Bun, with its own sockets. */
import { credentials } from '../harness/credentials.js'
import { ready } from './ready.js'

interface BunSocket {
  write(data: Uint8Array): number
}

interface BunListener {
  readonly hostname: string
  readonly port: number
}

declare const Bun: {
  listen(options: {
    readonly hostname: string
    readonly port: number
    readonly tls: { readonly key: string; readonly cert: string }
    readonly socket: {
      data(socket: BunSocket, data: Uint8Array): void
      drain(socket: BunSocket): void
    }
  }): BunListener
}

/** What a socket did not take. */
const waiting = new Map<BunSocket, Uint8Array[]>()

function send(socket: BunSocket, data: Uint8Array): Uint8Array {
  return data.subarray(Math.max(0, socket.write(data)))
}

function drain(socket: BunSocket): void {
  const rest = waiting.get(socket)
  while (rest !== undefined && rest.length > 0) {
    const left = send(socket, rest[0]!)
    if (left.length > 0) {
      rest[0] = left
      return
    }
    rest.shift()
  }
  waiting.delete(socket)
}

const listener = Bun.listen({
  hostname: '127.0.0.1',
  port: 0,
  tls: credentials(),
  socket: {
    data(socket, data) {
      const rest = waiting.get(socket)
      const left = rest === undefined ? send(socket, data) : data
      if (left.length === 0) return
      if (rest === undefined) waiting.set(socket, [Uint8Array.from(left)])
      else rest.push(Uint8Array.from(left))
    },
    drain,
  },
})
ready(listener.hostname, listener.port)
