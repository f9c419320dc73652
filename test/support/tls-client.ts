/** Clients of `node:tls` for tests, as raw-client.ts has them for plain sockets. */
import { once } from 'node:events'
import net from 'node:net'
import tls, { type ConnectionOptions } from 'node:tls'
import { RawClient, type Where } from './raw-client.js'

export interface TlsClientOptions extends Omit<ConnectionOptions, 'path' | 'host' | 'port'> {
  readonly paused?: boolean
}

/** A client whose reset is that of the socket underneath. */
export class TlsClient extends RawClient {
  declare readonly socket: tls.TLSSocket
  readonly raw: net.Socket

  constructor(socket: tls.TLSSocket, raw: net.Socket) {
    super(socket)
    this.raw = raw
  }

  override reset(): void {
    const isShuttingDown = this.raw.writableEnded || this.socket.writableEnded
    if (this.raw.connecting || isShuttingDown) this.destroy()
    else this.raw.resetAndDestroy()
  }

  override destroy(): void {
    super.destroy()
    this.raw.destroy()
  }
}

/** Starts a handshake; `allowHalfOpen`, so that the end of one side is not the end of the other. */
export function startTls(where: Where, options: TlsClientOptions): TlsClient {
  const { host = '127.0.0.1', port = 0, path } = where
  const target = path === undefined ? { host, port } : { path }
  const raw = net.connect({ ...target, allowHalfOpen: true, noDelay: true })
  const socket = tls.connect({ servername: 'localhost', ...options, socket: raw })
  if (options.paused === true) socket.pause()
  const client = new TlsClient(socket, raw)
  if (options.paused === true) socket.pause()
  return client
}

/** Resolves when the handshake is through, as far as the client knows. */
export async function connectTls(where: Where, options: TlsClientOptions): Promise<TlsClient> {
  const client = startTls(where, options)
  await once(client.socket, 'secureConnect')
  return client
}
