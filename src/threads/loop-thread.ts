/**
 * One loop's thread as the server sees it: starts it, passes messages, starts it again when it dies, and ends it within a
 * bound. The server's thread only; what runs inside is loop-thread-main.ts.
 */
import type { Socket } from 'node:net'
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'
import { ErrorCode, RingloopError, toError } from '../errors.js'
import type { Gap } from '../handler.js'
import type { Logger } from '../log.js'
import { NOTHING_SENT } from '../loop/broadcast-result.js'
import type { Endpoint } from '../loop/poller/poller.js'
import type { Publication } from '../loop/publication.js'
import type { CaughtUp } from '../loop/remote-topics.js'
import type { SharedStats } from '../loop/stats.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import type { ServerTlsOptions } from '../tls-options.js'
import type { DeadLoop } from './dead-loop.js'
import { resolvesWithin, STOP_GRACE_MS } from './deadline.js'
import type { LoopLoad } from './load-balance.js'
import { Outbox } from './outbox.js'
import { Publisher } from './publication.js'
import { answerTo, Questions } from './questions.js'
import type {
  CatchUpMessage,
  FromThread,
  LoopMessage,
  PublishMessage,
  ServerMessage,
  ThreadData,
  ThreadSetup,
  ToThread,
} from './thread-messages.js'
import { hasInputType, type WorkerOptions } from './worker-options.js'

/** A thread that dies again and again is started less and less often. */
const MIN_RESTART_MS = 50
const MAX_RESTART_MS = 5_000
/** One that ran so long was well. */
const WELL_MS = 10_000

const MAIN = new URL('./loop-thread-main.js', import.meta.url)

export interface LoopThreadEvents {
  /** It can take connections (again). */
  onReady(): void
  /** Its loop has published something, which is for the other loops: resolves with what they did. */
  onPublish(publication: Publication): Promise<BroadcastResult>
  /** Its first subscriber of `topic` has come, or its last one has gone. */
  onWant(topic: string, isWanted: boolean): void
  /** A subscriber of its wants what is kept of `topic`; see `RemoteTopics.catchUp`. */
  onCatchUp(topic: string, since: string | undefined): Promise<CaughtUp>
  /** Its thread has ended, asked or not, and its subscribers are gone. */
  onEnded(): void
  /** Its thread has ended unasked, or could not be started again; it will be tried in a while. Must not throw. */
  onDied(loop: DeadLoop): void
}

/** One life of the thread. */
interface Life {
  readonly worker: Worker
  readonly port: MessagePort
  readonly startedAt: number
  /** Settled by its first word: it serves, or not. */
  resolve(endpoint: Endpoint | undefined): void
  reject(error: Error): void
  served: boolean
  /** Why it ends, as far as is known. */
  failure: Error | undefined
  /** Its loop has ended, or the thread has. */
  readonly stopped: Promise<void>
  readonly setStopped: () => void
  readonly exited: Promise<void>
}

export class LoopThread implements LoopLoad {
  readonly id: number
  #setup: ThreadSetup
  readonly #options: WorkerOptions
  readonly #stats: SharedStats
  readonly #logger: Logger
  readonly #events: LoopThreadEvents
  readonly #questions: Questions = new Questions()
  readonly #publisher: Publisher
  readonly #outbox = new Outbox<ServerMessage>((messages) => this.#send({ type: 'batch', messages }))
  /** By topic: what has come over the broker and was not given to it. */
  readonly #leftOut = new Map<string, number>()
  #life: Life | undefined
  #mailbox = -1
  #alive = false
  /** It has served once: from now on it is replaced when it dies. */
  #served = false
  #stopping = false
  #restartMs = MIN_RESTART_MS
  #restartTimer: NodeJS.Timeout | undefined

  constructor(
    setup: ThreadSetup,
    options: WorkerOptions,
    stats: SharedStats,
    logger: Logger,
    events: LoopThreadEvents,
  ) {
    this.id = setup.id
    this.#setup = setup
    this.#options = options
    this.#stats = stats
    this.#logger = logger
    this.#events = events
    this.#publisher = new Publisher(this.#questions, stats, this.id, 1)
  }

  /** Can take connections. */
  get alive(): boolean {
    return this.#alive
  }

  get connections(): number {
    return this.#stats.connectionsOf(this.id)
  }

  get mailbox(): number {
    return this.#mailbox
  }

  /** Resolves, when it listens by itself to where, once it serves; rejects with why it cannot. */
  async start(): Promise<Endpoint | undefined> {
    try {
      return await this.#begin()
    } catch (error) {
      throw startError(this.id, toError(error))
    }
  }

  /** Throws where there is no thread to be had; rejects when the thread ends before it serves. */
  #begin(): Promise<Endpoint | undefined> {
    const { port1: port, port2 } = new MessageChannel()
    const worker = this.#createWorker({ setup: this.#setup, port: port2 })
    return new Promise((resolve, reject) => {
      let setStopped!: () => void
      const stopped = new Promise<void>((resolveStopped) => {
        setStopped = resolveStopped
      })
      const exited = new Promise<void>((resolveExited) => worker.once('exit', () => resolveExited()))
      const startedAt = performance.now()
      const life: Life = {
        worker,
        port,
        startedAt,
        resolve,
        reject,
        served: false,
        failure: undefined,
        stopped,
        setStopped,
        exited,
      }
      this.#life = life
      port.on('message', (message: FromThread) => this.#receive(life, message))
      worker.on('error', (error: unknown) => {
        life.failure = toError(error)
      })
      worker.on('exit', (code) => this.#ended(life, code))
    })
  }

  #createWorker(workerData: ThreadData): Worker {
    const { execArgv, resourceLimits } = this.#options
    const options = {
      workerData,
      transferList: [workerData.port],
      ...(execArgv !== undefined && { execArgv }),
      ...(resourceLimits !== undefined && { resourceLimits }),
    }
    return hasInputType(this.#options)
      ? new Worker(`import(${JSON.stringify(MAIN)})`, { ...options, eval: true })
      : new Worker(MAIN, options)
  }

  #receive(life: Life, message: FromThread): void {
    switch (message.type) {
      case 'ready':
        life.served = true
        this.#ready(message.mailbox, message.endpoint)
        life.resolve(message.endpoint)
        break
      case 'failed':
        life.failure = new RingloopError(message.code, message.message, message.cause)
        // What the module has opened may keep its thread running.
        void life.worker.terminate()
        break
      case 'stopping':
        this.markDead()
        break
      case 'stopped':
        life.setStopped()
        if (this.#stopping) break
        life.failure ??= new Error('its loop was stopped from within, by loop.stop()')
        void life.worker.terminate()
        break
      case 'log':
        this.#logger[message.method](message.fields, message.message)
        break
      case 'answer':
        this.#questions.settle(message)
        break
      case 'batch':
        for (const each of message.messages) this.#receiveEach(life, each)
    }
  }

  #receiveEach(life: Life, message: LoopMessage): void {
    switch (message.type) {
      case 'answer':
        this.#questions.settle(message)
        this.#tellLeftOut()
        break
      case 'want':
        this.#events.onWant(message.topic, message.isWanted)
        break
      default:
        void this.#answer(life, message)
    }
  }

  async #answer(life: Life, message: PublishMessage | CatchUpMessage): Promise<void> {
    const answer = await answerTo(message.id, () =>
      message.type === 'publish'
        ? this.#events.onPublish(message.publication)
        : this.#events.onCatchUp(message.topic, message.since),
    )
    if (this.#life === life) this.#outbox.add(answer)
  }

  #ready(mailbox: number, endpoint: Endpoint | undefined): void {
    // One that takes its place listens on the port that the system chose for this one.
    if (endpoint !== undefined) this.#setup = { ...this.#setup, endpoint }
    this.#served = true
    if (this.#stopping) return
    this.#mailbox = mailbox
    this.#alive = true
    this.#events.onReady()
  }

  /** The thread is gone, and its connections with it. */
  #ended(life: Life, code: number): void {
    // What it has said last.
    for (
      let last = receiveMessageOnPort(life.port);
      last !== undefined;
      last = receiveMessageOnPort(life.port)
    ) {
      this.#receive(life, last.message as FromThread)
    }
    life.port.close()
    this.markDead()
    this.#life = undefined
    life.setStopped()
    this.#stats.resetLoop(this.id)
    this.#questions.giveUp()
    this.#leftOut.clear()
    this.#events.onEnded()
    const error = life.failure ?? new Error(`its thread ended with exit code ${code}`)
    life.reject(error)
    if (this.#stopping || !this.#served) return
    if (performance.now() - life.startedAt > WELL_MS) this.#restartMs = MIN_RESTART_MS
    this.#stats.countRestart(this.id)
    this.#replaceLater(error, life.served ? 'died' : 'did not start again')
  }

  #replaceLater(error: Error, what: string): void {
    const restartIn = this.#restartMs
    this.#restartMs = Math.min(restartIn * 2, MAX_RESTART_MS)
    this.#logger.error(
      { err: error, loop: this.id },
      `loop ${this.id} ${what}; it is replaced in ${restartIn} ms: ${error.message}`,
    )
    this.#restartTimer = setTimeout(() => this.#replace(), restartIn)
    this.#events.onDied({ id: this.id, error, restartIn })
  }

  #replace(): void {
    try {
      // Where it does not come to serve its thread ends, and that is where the next try begins.
      this.#begin().catch(() => {})
    } catch (error) {
      this.#replaceLater(toError(error), 'did not start again')
    }
  }

  /** A hand-off failed, or its loop is being stopped: nothing goes there until it is ready again. */
  markDead(): void {
    this.#alive = false
    this.#mailbox = -1
  }

  sendSocket(socket: Socket): void {
    this.#send({ type: 'socket', socket }, [socket as never])
  }

  broadcast(out: unknown, options: BroadcastOptions): Promise<BroadcastResult> {
    if (!this.#alive) return Promise.resolve(NOTHING_SENT)
    return this.#questions.ask(NOTHING_SENT, 0, (id) => this.#send({ type: 'broadcast', id, out, options }))
  }

  /** One that is too far behind is left out, and told when it is not any more where it was not from this process. */
  publish(publication: Publication): Promise<BroadcastResult> {
    if (!this.#alive) return Promise.resolve(NOTHING_SENT)
    if (publication.isRemote === true) this.#watchLeftOut(publication.topic)
    return this.#publisher.publish(publication, (id, copy) =>
      this.#outbox.add({ type: 'publish', id, publication: copy }),
    )
  }

  #watchLeftOut(topic: string): void {
    if (this.#publisher.isTooFarBehind) this.#leftOut.set(topic, (this.#leftOut.get(topic) ?? 0) + 1)
    else this.#tellLeftOut()
  }

  #tellLeftOut(): void {
    if (this.#leftOut.size === 0 || this.#publisher.isTooFarBehind) return
    for (const [topic, missed] of this.#leftOut) this.tellGap(topic, { missed, reason: 'loop-behind' })
    this.#leftOut.clear()
  }

  /** Its subscribers of `topic`, if it has any, may have missed something. */
  tellGap(topic: string, gap: Gap): void {
    if (this.#alive) this.#outbox.add({ type: 'gap', topic, gap })
  }

  subscribers(topic: string): Promise<number> {
    if (!this.#alive) return Promise.resolve(0)
    return this.#questions.ask(0, 0, (id) => this.#send({ type: 'subscribers', id, topic }))
  }

  /** A thread that takes its place begins with them; one that is still starting has them before it serves. */
  async setTls(tls: ServerTlsOptions): Promise<void> {
    this.#setup = { ...this.#setup, pollerOptions: { ...this.#setup.pollerOptions, tls } }
    if (this.#life === undefined) return
    await this.#questions.ask(undefined, 0, (id) => this.#send({ type: 'tls', id, tls }))
  }

  /**
   * Ends the thread, its connections getting `drain` ms for their last bytes. One that does not answer, because it
   * computes or its `onStart` or `onStop` is pending, is terminated {@link STOP_GRACE_MS} after that. Never rejects.
   */
  async stop(drain: number): Promise<void> {
    this.#stopping = true
    this.#alive = false
    clearTimeout(this.#restartTimer)
    const life = this.#life
    if (life === undefined) return
    this.#send({ type: 'stop', drain })
    const bound = drain + STOP_GRACE_MS
    if (!(await resolvesWithin(life.stopped, bound))) {
      this.#logger.warn(
        { loop: this.id },
        `loop ${this.id} has not stopped within ${bound} ms: it is terminated`,
      )
    }
    void life.worker.terminate()
    if (await resolvesWithin(life.exited, STOP_GRACE_MS)) return
    this.#logger.error({ loop: this.id }, `the thread of loop ${this.id} does not end: it is left behind`)
    life.worker.unref()
    this.#questions.giveUp()
  }

  #send(message: ToThread, transfer: readonly never[] = []): void {
    this.#life?.port.postMessage(message, transfer)
  }
}

function startError(id: number, error: Error): Error {
  if (error instanceof RingloopError) return error
  if ((error as NodeJS.ErrnoException).code === 'ERR_WORKER_INVALID_EXEC_ARGV') {
    return new RingloopError(
      ErrorCode.OPTION,
      `execArgv has flags that a thread cannot have: ${error.message}`,
      error,
    )
  }
  return new RingloopError(ErrorCode.LOOP_START, `loop ${id} did not start: ${error.message}`, error)
}
