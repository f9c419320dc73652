/**
 * One loop's thread as the server sees it: starts it, passes messages, and starts it again when it dies. The server's
 * thread only; what runs inside is loop-thread-main.ts.
 */

import type { Socket } from 'node:net'
import { Worker } from 'node:worker_threads'
import { ErrorCode, RingloopError, toError } from '../errors.js'
import type { Logger } from '../log.js'
import { NOTHING_SENT } from '../loop/event-loop.js'
import type { Endpoint } from '../loop/poller/poller.js'
import type { SharedStats } from '../loop/stats.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import type { LoopLoad } from './load-balance.js'
import type { FromThread, ThreadSetup, ToThread } from './thread-messages.js'

/** A thread that dies again and again is started less and less often. */
const MIN_RESTART_MS = 50
const MAX_RESTART_MS = 5_000
/** One that ran so long was well. */
const WELL_MS = 10_000

interface WaitingBroadcast {
  resolve(result: BroadcastResult): void
  reject(error: Error): void
}

export class LoopThread implements LoopLoad {
  readonly id: number
  #setup: ThreadSetup
  readonly #stats: SharedStats
  readonly #logger: Logger
  readonly #onReady: () => void
  readonly #broadcasts = new Map<number, WaitingBroadcast>()
  #worker: Worker | undefined
  #mailbox = -1
  #alive = false
  #started = false
  #stopping = false
  #startedAt = 0
  #restartMs = MIN_RESTART_MS
  #restartTimer: NodeJS.Timeout | undefined
  #lastBroadcast = 0

  /** `onReady` is called whenever it can take connections (again). */
  constructor(setup: ThreadSetup, stats: SharedStats, logger: Logger, onReady: () => void) {
    this.id = setup.id
    this.#setup = setup
    this.#stats = stats
    this.#logger = logger
    this.#onReady = onReady
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
  start(): Promise<Endpoint | undefined> {
    return new Promise((resolve, reject) => {
      const worker = new Worker(new URL('./loop-thread-main.js', import.meta.url), {
        workerData: this.#setup,
        execArgv: threadArguments(),
      })
      let failure: Error | undefined
      this.#worker = worker
      this.#startedAt = performance.now()
      worker.on('message', (message: FromThread) => {
        if (message.type === 'ready') {
          this.#ready(message.mailbox, message.endpoint)
          resolve(message.endpoint)
        } else if (message.type === 'failed') {
          failure = new RingloopError(message.code, message.message, message.cause)
          // What the module has opened may keep its thread running.
          void worker.terminate()
        } else {
          this.#receive(message)
        }
      })
      worker.on('error', (error) => {
        failure = error
      })
      worker.on('exit', () => {
        reject(startError(this.id, failure))
        this.#ended(failure)
      })
    })
  }

  #ready(mailbox: number, endpoint: Endpoint | undefined): void {
    this.#mailbox = mailbox
    // One that takes its place listens on the port that the system chose for this one.
    if (endpoint !== undefined) this.#setup = { ...this.#setup, endpoint }
    this.#alive = true
    this.#started = true
    this.#onReady()
  }

  #receive(message: FromThread): void {
    if (message.type === 'log') {
      this.#logger[message.method](message.fields, message.message)
    } else if (message.type === 'broadcast') {
      const waiting = this.#broadcasts.get(message.id)
      this.#broadcasts.delete(message.id)
      if (message.error === undefined) waiting?.resolve(message.result)
      else waiting?.reject(new RingloopError(ErrorCode.PACKET, message.error))
    }
  }

  /** The thread is gone, and its connections with it. */
  #ended(error: Error | undefined): void {
    this.markDead()
    this.#worker = undefined
    this.#stats.resetLoop(this.id)
    for (const { resolve } of this.#broadcasts.values()) resolve(NOTHING_SENT)
    this.#broadcasts.clear()
    if (this.#stopping || !this.#started) return
    if (performance.now() - this.#startedAt > WELL_MS) this.#restartMs = MIN_RESTART_MS
    this.#stats.countRestart(this.id)
    this.#logger.error(
      { err: error, loop: this.id },
      `loop ${this.id} died; it is replaced in ${this.#restartMs} ms`,
    )
    this.#restartTimer = setTimeout(() => {
      this.start().catch((reason: Error) =>
        this.#logger.error({ err: reason, loop: this.id }, reason.message),
      )
    }, this.#restartMs)
    this.#restartMs = Math.min(this.#restartMs * 2, MAX_RESTART_MS)
  }

  /** A hand-off failed: nothing goes there until it is ready again. */
  markDead(): void {
    this.#alive = false
    this.#mailbox = -1
  }

  sendSocket(socket: Socket): void {
    this.#send({ type: 'socket', socket }, [socket as never])
  }

  broadcast(out: unknown, options: BroadcastOptions): Promise<BroadcastResult> {
    if (!this.#alive) return Promise.resolve(NOTHING_SENT)
    const id = ++this.#lastBroadcast
    return new Promise((resolve, reject) => {
      try {
        this.#send({ type: 'broadcast', id, out, options })
        this.#broadcasts.set(id, { resolve, reject })
      } catch (error) {
        const reason = toError(error).message
        reject(
          new RingloopError(ErrorCode.PACKET, `a broadcast over threads must be cloneable: ${reason}`, error),
        )
      }
    })
  }

  /** Ends the thread, its connections getting `drain` ms for their last bytes. */
  async stop(drain: number): Promise<void> {
    const serves = this.#alive
    this.#stopping = true
    this.#alive = false
    clearTimeout(this.#restartTimer)
    const worker = this.#worker
    if (worker === undefined) return
    const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()))
    const stopped = new Promise<void>((resolve) => {
      worker.on('message', (message: FromThread) => {
        if (message.type === 'stopped') resolve()
      })
    })
    if (serves) {
      this.#send({ type: 'stop', drain })
      await Promise.race([stopped, ended])
    }
    await worker.terminate()
    await ended
  }

  #send(message: ToThread, transfer: readonly never[] = []): void {
    this.#worker?.postMessage(message, transfer)
  }
}

/** Node's own flags, but for those that say what the main thread is to run. */
function threadArguments(): string[] {
  const [...flags] = process.execArgv
  const evaluated = flags.findIndex((flag) => /^(-e|--eval|-p|-pe|--print)$/.test(flag))
  if (evaluated >= 0) flags.splice(evaluated, 2)
  return flags.filter((flag) => !/^--(input-type|eval|print)\b/.test(flag))
}

function startError(id: number, failure: Error | undefined): Error {
  if (failure instanceof RingloopError) return failure
  const reason = failure?.message ?? 'its thread ended'
  return new RingloopError(ErrorCode.LOOP_START, `loop ${id} did not start: ${reason}`, failure)
}
