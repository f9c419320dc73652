/** Listens as a server of NATS would, for what a real one cannot be made to do. Keeps what it gets; ended by `close`. */
import { once } from 'node:events'
import net from 'node:net'
import { until } from './wait.js'

export interface FakeNatsOptions {
  /** Said to whoever connects. Default: what a server says of itself; `''` for nothing. */
  readonly greeting?: string
  /** Servers that it says it knows of. */
  readonly siblings?: readonly string[]
}

export class FakeNats {
  readonly #listener = net.createServer((socket) => this.#take(socket))
  readonly #greeting: string
  /** Those that are connected. */
  readonly sockets: Set<net.Socket> = new Set()
  /** How many have ever connected. */
  taken = 0
  /** All that has come, over every connection. */
  received = ''
  /** Whether PINGs are answered. */
  answers = true

  private constructor({ greeting, siblings }: FakeNatsOptions) {
    const info = { server_id: 'fake', version: '2.9.10', proto: 1, max_payload: 1000, connect_urls: siblings }
    this.#greeting = greeting ?? `INFO ${JSON.stringify(info)}\r\n`
  }

  static async listen(options: FakeNatsOptions = {}): Promise<FakeNats> {
    const fake = new FakeNats(options)
    await once(fake.#listener.listen(0, '127.0.0.1'), 'listening')
    return fake
  }

  get server(): string {
    return `127.0.0.1:${(this.#listener.address() as net.AddressInfo).port}`
  }

  #take(socket: net.Socket): void {
    this.taken++
    this.sockets.add(socket)
    socket.on('close', () => this.sockets.delete(socket))
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => {
      this.received += chunk.toString('latin1')
      const pings = chunk.toString('latin1').match(/^PING\r\n/gm)?.length ?? 0
      if (this.answers) socket.write('PONG\r\n'.repeat(pings))
    })
    socket.write(this.#greeting)
  }

  /** To everybody. */
  say(text: string): void {
    for (const socket of this.sockets) socket.write(text)
  }

  /** Says it, and ends every connection. */
  hangUp(text = ''): void {
    for (const socket of this.sockets) socket.end(text)
  }

  async has(text: string): Promise<void> {
    await until(`the server has got '${text}'`, () => this.received.includes(text))
  }

  async close(): Promise<void> {
    const closed = once(this.#listener, 'close')
    this.#listener.close()
    for (const socket of this.sockets) socket.destroy()
    await closed
  }
}
