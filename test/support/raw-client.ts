/** A client on `node:net` that keeps everything it sees, for tests that look at the bytes and at how a socket ends. */
import { once } from 'node:events'
import net from 'node:net'
import { until } from './wait.js'

export interface Where {
  readonly host?: string
  readonly port?: number
  readonly path?: string | undefined
}

export class RawClient {
  readonly socket: net.Socket
  #chunks: Buffer[] = []
  #length = 0
  /** The other side has ended. */
  ended = false
  closed = false
  error: NodeJS.ErrnoException | undefined = undefined

  constructor(socket: net.Socket) {
    this.socket = socket
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk)
      this.#length += chunk.length
    })
    socket.on('end', () => {
      this.ended = true
    })
    socket.on('error', (error) => {
      this.error = error
    })
    socket.on('close', () => {
      this.closed = true
    })
  }

  get length(): number {
    return this.#length
  }

  /** Everything that has come so far. */
  get received(): Buffer {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)]
    return this.#chunks[0] ?? Buffer.alloc(0)
  }

  get text(): string {
    return this.received.toString()
  }

  /** Resolves when at least `length` bytes are here. */
  async bytes(length: number): Promise<Buffer> {
    await until(
      `${length} bytes have come (${this.#length} are here)`,
      () => this.#length >= length || this.closed,
    )
    if (this.#length < length) throw new Error(`closed after ${this.#length} of ${length} bytes`)
    return this.received
  }

  whenEnded(): Promise<void> {
    return until('the server has ended the connection', () => this.ended || this.closed)
  }

  whenClosed(): Promise<void> {
    return until('the connection is closed', () => this.closed)
  }

  write(bytes: Uint8Array | string): void {
    this.socket.write(bytes)
  }

  /** Sends and waits for an answer as long as what was sent. */
  async echo(bytes: Uint8Array | string): Promise<Buffer> {
    const from = this.#length
    this.socket.write(bytes)
    const length = Buffer.byteLength(bytes)
    return (await this.bytes(from + length)).subarray(from, from + length)
  }

  /** Sends and gives what has come of the answer, at least a byte. */
  async ask(question: string): Promise<string> {
    const from = this.#length
    this.write(question)
    await this.bytes(from + 1)
    return this.received.subarray(from).toString()
  }

  /** Ends with a reset. A socket that is shutting down cannot be reset in Node (its handle would leak): it is destroyed. */
  reset(): void {
    if (this.socket.connecting || this.socket.writableEnded) this.socket.destroy()
    else this.socket.resetAndDestroy()
  }

  destroy(): void {
    this.socket.destroy()
  }
}

/** Connects; `allowHalfOpen`, so that the end of one side is not the end of the other. */
export async function connectRaw(
  where: Where,
  options: { readonly paused?: boolean } = {},
): Promise<RawClient> {
  const target =
    where.path === undefined
      ? { host: where.host ?? '127.0.0.1', port: where.port ?? 0 }
      : { path: where.path }
  const socket = net.connect({ ...target, allowHalfOpen: true, noDelay: true })
  await once(socket, 'connect')
  if (options.paused === true) {
    socket.pause()
    const client = new RawClient(socket)
    socket.pause()
    return client
  }
  return new RawClient(socket)
}
