/**
 * Accepts in the server's thread and gives each connection to the thread of the loop that the balancer picks. From
 * accept to hand-off a socket is the acceptor's, then the loop's. The server's thread only.
 */
import { once } from 'node:events'
import net from 'node:net'
import type { Logger } from '../log.js'
import { listenFirst } from '../loop/listen.js'
import { AcceptOnlySink } from '../loop/poller/accept-only-sink.js'
import { hostPort } from '../loop/poller/endpoint.js'
import { NativePoller } from '../loop/poller/native-poller.js'
import { ACCEPT_RETRY_MS, type Endpoint, type ListenOptions } from '../loop/poller/poller.js'
import type { SharedStats } from '../loop/stats.js'
import { errno, systemError } from '../loop/system-error.js'
import type { Balancer } from './load-balance.js'
import type { LoopThread } from './loop-thread.js'

export interface Acceptor {
  /** Rejects as `server.start` does. */
  listen(endpoint: Endpoint, options: ListenOptions): Promise<Endpoint>
  /** A loop has become ready: connections that wait for one can go. */
  resume(): void
  stop(): void
}

type Placed = 'given' | 'rejected' | 'nobody'

/** Picks a loop, counts the connection there, and gives it away; to another loop where that one's thread has ended. */
export class Placement {
  readonly #threads: readonly LoopThread[]
  readonly #balancer: Balancer
  readonly #stats: SharedStats
  readonly #maxConnections: number

  constructor(
    threads: readonly LoopThread[],
    balancer: Balancer,
    stats: SharedStats,
    maxConnections: number,
  ) {
    this.#threads = threads
    this.#balancer = balancer
    this.#stats = stats
    this.#maxConnections = maxConnections
  }

  /** `give` answers `gone` when the loop's thread has ended, and `failed` when it cannot take this one. */
  place(peerAddr: () => string, give: (thread: LoopThread) => 'given' | 'gone' | 'failed'): Placed {
    for (;;) {
      const index = this.#balancer.pick(this.#threads, peerAddr)
      const thread = this.#threads[index]
      if (thread === undefined) return 'nobody'
      if (!this.#stats.admit(index, this.#maxConnections)) return 'rejected'
      const given = give(thread)
      if (given === 'given') return given
      this.#stats.release(index)
      if (given === 'failed') return 'rejected'
      thread.markDead()
    }
  }
}

/** Descriptors through the addon's mailboxes. */
export class NativeAcceptor extends AcceptOnlySink implements Acceptor {
  readonly #placement: Placement
  readonly #logger: Logger
  readonly #poller: NativePoller
  /** Accepted while no loop was alive. */
  #waiting: number[] = []
  #listener = -1
  #retry: NodeJS.Timeout | undefined

  constructor(placement: Placement, logger: Logger) {
    super()
    this.#placement = placement
    this.#logger = logger
    this.#poller = new NativePoller(this)
  }

  async listen(endpoint: Endpoint, options: ListenOptions): Promise<Endpoint> {
    const listening = await listenFirst(this.#poller, endpoint, options)
    this.#listener = listening.listener
    return listening.endpoint
  }

  handleAccept(slot: number): void {
    const placed = this.#placement.place(
      () => this.#poller.peerAddr(slot),
      (thread) => this.#handOff(slot, thread),
    )
    if (placed === 'rejected') this.#poller.close(slot, false)
    if (placed === 'nobody') this.#wait(slot)
  }

  #handOff(slot: number, thread: LoopThread): 'given' | 'gone' | 'failed' {
    const result = this.#poller.handOff(slot, thread.mailbox)
    if (result === 0) return 'given'
    // No such mailbox: the loop's thread has ended.
    if (result === errno.ESRCH) return 'gone'
    const err = systemError(result)
    this.#logger.error({ err, loop: thread.id }, `loop ${thread.id} takes no connection: ${err.message}`)
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

/** Node's own sockets, transferred to the loops' threads: Node 24.20, 26.6 and later. */
export class TransferAcceptor implements Acceptor {
  readonly #placement: Placement
  readonly #logger: Logger
  #waiting: net.Socket[] = []
  #maxWaiting = 0
  #server: net.Server | undefined

  constructor(placement: Placement, logger: Logger) {
    this.#placement = placement
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
    server.on('connection', (socket) => this.#place(socket))
    const listen = async (each: Endpoint): Promise<Endpoint> => {
      server.listen({ ...each, backlog })
      await once(server, 'listening')
      return each
    }
    const bound = await listenFirst({ listen }, endpoint, options)
    this.#server = server
    server.on('error', (err) => this.#logger.warn({ err }, `accepting failed: ${err.message}`))
    const address = server.address()
    return address === null || typeof address === 'string'
      ? bound
      : { host: address.address, port: address.port }
  }

  #place(socket: net.Socket): void {
    const placed = this.#placement.place(
      () => hostPort(socket.remoteAddress ?? '', socket.remotePort ?? 0),
      (thread) => transfer(thread, socket),
    )
    if (placed === 'rejected') socket.destroy()
    if (placed !== 'nobody') return
    if (this.#waiting.length < this.#maxWaiting) this.#waiting.push(socket)
    else socket.destroy()
  }

  resume(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const socket of waiting) this.#place(socket)
  }

  stop(): void {
    this.#server?.close()
    for (const socket of this.#waiting) socket.destroy()
  }
}

/** A socket that cannot be transferred is one whose peer is gone already. */
function transfer(thread: LoopThread, socket: net.Socket): 'given' | 'failed' {
  try {
    thread.sendSocket(socket)
    return 'given'
  } catch {
    return 'failed'
  }
}
