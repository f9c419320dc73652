/**
 * One attempt to connect to one server. What it opens is its own until a connection comes of it: the client of NATS leaves
 * the socket of an attempt that failed open, and gives nobody a way to it. The server's thread only.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import diagnostics from 'node:diagnostics_channel'
import type { Socket } from 'node:net'
import { type ConnectionOptions, connect, errors, type NatsConnection } from '@nats-io/transport-node'
import { ErrorCode, RingloopError } from '../../index.js'

/** Node tells it of every socket that `net.connect` makes. */
const CHANNEL = 'net.client.socket'
/** What the client says where a socket has ended without an error. */
const NO_REASON = /undefined error/
/** So much of what a server, or whatever listens there, has said is quoted. */
const MAX_QUOTED = 200

export class Dial {
  readonly #server: string
  /** Tells the sockets of this attempt from all others of the thread. */
  readonly #storage = new AsyncLocalStorage<true>()
  readonly #sockets: Socket[] = []
  #isOver = false
  #reject: (reason: Error) => void = () => {}

  /** `server` is a `host:port`. */
  constructor(server: string) {
    this.#server = server
  }

  /**
   * Rejects within `options.timeout` ms with `ERR_RINGLOOP_CONNECT` and a sentence that says what to change; then nothing is left
   * open. Once.
   */
  async connect(options: ConnectionOptions & { readonly timeout: number }): Promise<NatsConnection> {
    const timer = setTimeout(() => this.abort(new errors.TimeoutError()), options.timeout)
    const aborted = new Promise<never>((_resolve, reject) => {
      this.#reject = reject
    })
    try {
      return await Promise.race([this.#attempt(options), aborted])
    } catch (error) {
      this.#close()
      throw this.#explained(error, options.timeout)
    } finally {
      clearTimeout(timer)
    }
  }

  /** Ends an attempt that has not settled: it rejects at once. */
  abort(reason: Error): void {
    this.#close()
    this.#reject(reason)
  }

  /** May settle when nobody waits any more: a name that is looked up cannot be given up. */
  async #attempt(options: ConnectionOptions): Promise<NatsConnection> {
    diagnostics.subscribe(CHANNEL, this.#keep)
    try {
      const connection = await this.#storage.run(true, () => connect({ ...options, servers: this.#server }))
      if (this.#isOver) void connection.close()
      return connection
    } finally {
      diagnostics.unsubscribe(CHANNEL, this.#keep)
      this.#storage.disable()
    }
  }

  readonly #keep = (message: unknown): void => {
    if (this.#storage.getStore() === undefined) return
    const { socket } = message as { readonly socket: Socket }
    this.#sockets.push(socket)
    // It is told of before it connects, and a socket that connects is not destroyed any more.
    if (this.#isOver) process.nextTick(() => socket.destroy())
  }

  #close(): void {
    this.#isOver = true
    for (const socket of this.#sockets) socket.destroy()
  }

  #explained(error: unknown, timeout: number): Error {
    const [what, advice] = this.#diagnosis(error as Error, timeout)
    return new RingloopError(ErrorCode.CONNECT, `NATS at ${this.#server} ${what}: check ${advice}`, error)
  }

  /** What is wrong, and what to change. */
  #diagnosis(error: Error, timeout: number): readonly [string, string] {
    if (error instanceof errors.TimeoutError) {
      return [`has not answered within ${timeout} ms`, "'servers', and that it is a NATS server that runs"]
    }
    if (error instanceof errors.AuthorizationError) {
      return ['refuses us', "'user' and 'pass', 'token' or 'authenticator'"]
    }
    const message = NO_REASON.test(error.message) ? 'it has ended the connection' : error.message
    return [`cannot be reached: ${message.slice(0, MAX_QUOTED)}`, "'servers' and 'tls', and that it runs"]
  }
}
