/**
 * Peers on `node:net` that end their sides one by one: what they send is made from a seed, what they get is hashed, so
 * that a byte lost, doubled or moved shows.
 */
import { createHash, type Hash } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { within } from './wait.js'

const PIECE = 64 * 1024

export interface Received {
  readonly bytes: number
  readonly hash: string
}

function pieceOf(seed: number, at: number, bytes: number): Buffer {
  const piece = Buffer.alloc(bytes, `${seed}:${at};`)
  piece.writeUInt32BE(at, 0)
  return piece
}

/** What {@link sendAll} of the same seed makes arrive. */
export function expected(seed: number, bytes: number): Received {
  const hash = createHash('sha1')
  for (let at = 0; at < bytes; at += PIECE) hash.update(pieceOf(seed, at, Math.min(PIECE, bytes - at)))
  return { bytes, hash: hash.digest('hex') }
}

/** Sends so many bytes, as fast as they are taken; does not end. */
export async function sendAll(socket: net.Socket, seed: number, bytes: number): Promise<void> {
  for (let at = 0; at < bytes; at += PIECE) {
    if (!socket.write(pieceOf(seed, at, Math.min(PIECE, bytes - at)))) await once(socket, 'drain')
  }
}

/** Reads to the end of the other side; a slow reader rests after each piece. */
export async function readAll(
  socket: net.Socket,
  restMs = 0,
  hash: Hash = createHash('sha1'),
): Promise<Received> {
  let bytes = 0
  for await (const piece of socket.iterator({ destroyOnReturn: false })) {
    hash.update(piece)
    bytes += piece.length
    if (restMs > 0) await sleep(restMs)
  }
  return { bytes, hash: hash.digest('hex') }
}

/** As {@link readAll}, for what is text. */
export async function readText(socket: net.Socket): Promise<string> {
  const pieces: Buffer[] = []
  for await (const piece of socket.iterator({ destroyOnReturn: false })) pieces.push(piece)
  return Buffer.concat(pieces).toString()
}

export type Target = { readonly port: number } | { readonly path: string }

export async function connectHalfOpen(target: Target): Promise<net.Socket> {
  const where = 'path' in target ? { path: target.path } : { host: '127.0.0.1', port: target.port }
  const socket = net.connect({ ...where, allowHalfOpen: true })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

/** A server whose sockets stay open when the other side has ended; what it does is given. */
export class Upstream {
  readonly sockets: net.Socket[] = []
  readonly #server: net.Server

  constructor(serve: (socket: net.Socket) => unknown) {
    this.#server = net.createServer({ allowHalfOpen: true }, (socket) => {
      this.sockets.push(socket)
      socket.on('error', () => {})
      void serve(socket)
    })
  }

  /** Returns its address as ringloop takes it. */
  async listen(path?: string): Promise<string | { readonly path: string }> {
    if (path !== undefined) {
      await once(this.#server.listen(path), 'listening')
      return { path }
    }
    await once(this.#server.listen(0, '127.0.0.1'), 'listening')
    return `127.0.0.1:${(this.#server.address() as net.AddressInfo).port}`
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    this.#server.close()
    await within('the upstream’s end', once(this.#server, 'close'))
  }
}
