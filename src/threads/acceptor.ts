/**
 * Accepts in the server's thread and gives each connection to the thread of the loop that the picker chooses. From accept
 * to hand-off a socket is the acceptor's, then the loop's. The server's thread only.
 *
 * Accepting is throttled here: it pauses while no loop is alive (`#wait` … `resume`) and when descriptors run out
 * (`handleAcceptError`). The limit `maxConnections` is in loop-picker.ts. A loop that listens by itself has the same two
 * in loop/connection-table.ts (`handleAcceptError`) and loop/admission.ts (`SharedAdmission`).
 */
import { once } from 'node:events'
import net from 'node:net'
import { ErrorCode, RingloopError } from '../errors.js'
import type { Logger } from '../log.js'
import { listenFirst } from '../loop/listen.js'
import { AcceptOnlySink } from '../loop/poller/accept-only-sink.js'
import { hostPort } from '../loop/poller/endpoint.js'
import { NativePoller } from '../loop/poller/native-poller.js'
import { ACCEPT_RETRY_MS, type Endpoint, type ListenOptions } from '../loop/poller/poller.js'
import { errno, systemError } from '../system-error.js'
import type { HandOff, LoopPicker } from './loop-picker.js'
import type { LoopThread } from './loop-thread.js'

/** `stop` closes what it still has; it may throw when the listener cannot be closed, and has closed the rest then. */
export interface Acceptor {
  /** Rejects as `server.start` does. */
  listen(endpoint: Endpoint, options: ListenOptions): Promise<Endpoint>
  /** A loop has become ready: connections that wait for one can go. */
  resume(): void
  stop(): void
}

/** Descriptors through the addon's mailboxes. */
export class NativeAcceptor extends AcceptOnlySink implements Acceptor {
  readonly #picker: LoopPicker
  readonly #logger: Logger
  readonly #poller: NativePoller
  /** Accepted while no loop was alive. */
  #waiting: number[] = []
  #listener = -1
  #retry: NodeJS.Timeout | undefined

  constructor(picker: LoopPicker, logger: Logger) {
    super()
    this.#picker = picker
    this.#logger = logger
    this.#poller = new NativePoller(this)
  }

  async listen(endpoint: Endpoint, options: ListenOptions): Promise<Endpoint> {
    const listening = await listenFirst(this.#poller, endpoint, options)
    this.#listener = listening.listener
    return listening.endpoint
  }

  handleAccept(slot: number): void {
    const given = this.#picker.give(
      () => this.#poller.peerAddr(slot),
      (loop) => this.#handOff(slot, loop),
    )
    if (given === 'rejected') this.#poller.close(slot, false)
    if (given === 'nobody') this.#wait(slot)
  }

  #handOff(slot: number, loop: LoopThread): HandOff {
    const result = this.#poller.handOff(slot, loop.mailbox)
    if (result === 0) return 'given'
    // No such mailbox: the loop's thread has ended.
    if (result === errno.ESRCH) return 'gone'
    const err = systemError(result)
    this.#logger.error({ err, loop: loop.id }, `loop ${loop.id} takes no connection: ${err.message}`)
    return 'failed'
  }

  handleLost(): void {}

  #wait(slot: number): void {
    this.#waiting.push(slot)
    this.#poller.setAccepting(this.#listener, false)
  }

  resume(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const slot of waiting) this.handleAccept(slot)
    if (this.#waiting.length === 0) this.#poller.setAccepting(this.#listener, true)
  }

  handleFileLeft(err: NodeJS.ErrnoException): void {
    this.#logger.warn({ err }, `the file of the unix socket is left behind: ${err.message}`)
  }

  handleAcceptError(listener: number, reason: number): void {
    const err = systemError(reason, 'accept')
    this.#logger.warn({ err }, `accepting pauses for ${ACCEPT_RETRY_MS} ms: ${err.message}`)
    this.#retry = setTimeout(() => this.#poller.setAccepting(listener, true), ACCEPT_RETRY_MS)
  }

  stop(): void {
    clearTimeout(this.#retry)
    this.#poller.destroy()
  }
}

/** Node's own sockets, transferred to the loops' threads: Node 24.20, 26.6 and later. At most `backlog` wait for a loop. */
export class TransferAcceptor implements Acceptor {
  readonly #picker: LoopPicker
  readonly #logger: Logger
  #waiting: net.Socket[] = []
  #maxWaiting = 0
  #server: net.Server | undefined
  #stopped = false

  constructor(picker: LoopPicker, logger: Logger) {
    this.#picker = picker
    this.#logger = logger
  }

  async listen(endpoint: Endpoint, options: ListenOptions): Promise<Endpoint> {
    const { noDelay, keepAlive, backlog } = options
    this.#maxWaiting = backlog
    const server = net.createServer({
      pauseOnConnect: true,
      allowHalfOpen: true,
      noDelay,
      keepAlive: keepAlive > 0,
      keepAliveInitialDelay: keepAlive,
    })
    server.on('connection', (socket) => this.#give(socket))
    this.#server = server
    const listen = async (each: Endpoint): Promise<Endpoint> => {
      if (this.#stopped) throw new RingloopError(ErrorCode.CLOSED, 'the acceptor is stopped')
      server.listen({ ...each, backlog })
      await once(server, 'listening')
      return each
    }
    const bound = await listenFirst({ listen }, endpoint, options)
    server.on('error', (err) => this.#logger.warn({ err }, `accepting failed: ${err.message}`))
    const address = server.address()
    return address === null || typeof address === 'string'
      ? bound
      : { host: address.address, port: address.port }
  }

  #give(socket: net.Socket): void {
    const given = this.#picker.give(
      () => hostPort(socket.remoteAddress ?? '', socket.remotePort ?? 0),
      (loop) => transfer(loop, socket),
    )
    if (given === 'rejected') socket.destroy()
    if (given !== 'nobody') return
    if (this.#waiting.length < this.#maxWaiting) this.#waiting.push(socket)
    else socket.destroy()
  }

  resume(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const socket of waiting) this.#give(socket)
  }

  stop(): void {
    this.#stopped = true
    this.#server?.close()
    for (const socket of this.#waiting) socket.destroy()
  }
}

/** A socket that cannot be transferred is one whose peer is gone already. */
function transfer(loop: LoopThread, socket: net.Socket): HandOff {
  try {
    loop.sendSocket(socket)
    return 'given'
  } catch {
    return 'failed'
  }
}
