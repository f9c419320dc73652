/**
 * What serves beside the loops of a server, such as an endpoint for metrics: given to `server.use`, started and stopped
 * with the server. Everything here runs on the thread of the server.
 */
import type { BoundAddress } from './bound-address.js'
import { ErrorCode, RingloopError } from './errors.js'
import type { Logger } from './log.js'
import type { ServerStats } from './loop/stats.js'
import type { Timer } from './timers/timer.js'

/** A server as its extensions see it: members of `Server`. Its loops serve already. */
export interface ExtendedServer {
  readonly address: BoundAddress
  readonly logger: Logger
  stats(): ServerStats
  runAfter(ms: number, fn: () => void): Timer
  runEvery(ms: number, fn: () => void): Timer
}

/** Something that is started and stopped with a server. */
export interface Extension {
  /** For messages. */
  readonly name: string

  /**
   * `true`: the threads of the loops are watched, so that `stats()` has their `loopDelay`, `activeMs` and `idleMs`, for
   * which each is woken 20 times a second. Default `false`.
   */
  readonly watchLoops?: boolean

  /**
   * Called when every loop serves, in the order of `server.use`; a promise is awaited before `server.start()` resolves.
   * What it throws or rejects with, `server.start()` rejects with, once the loops and the extensions before it are
   * stopped. This one's `stop` is not called then.
   */
  start(server: ExtendedServer): unknown

  /**
   * Called once after a `start`, when the loops have ended; a promise is awaited before `server.stop()` resolves. What it
   * throws is logged.
   */
  stop(): unknown
}

/** The extensions of one server. */
export class Extensions {
  readonly #all: Extension[] = []
  readonly #started: Extension[] = []

  /** Throws `ERR_RINGLOOP_OPTION` for what is no extension, `ERR_RINGLOOP_STATE` for one that is there. */
  add(extension: Extension): void {
    const { name } = checkExtension(extension)
    if (this.#all.includes(extension)) {
      throw new RingloopError(ErrorCode.STATE, `the extension ${name} is in use already`)
    }
    this.#all.push(extension)
  }

  /** Whether anybody will look at how the threads of the loops do. */
  get watchLoops(): boolean {
    return this.#all.some((extension) => extension.watchLoops === true)
  }

  /**
   * Rejects with what the first one rejects with that does not start; those before it are still to be stopped. None is
   * started once the server is not `wanted`.
   */
  async start(server: ExtendedServer, wanted: () => boolean): Promise<void> {
    for (const extension of this.#all) {
      if (!wanted()) return
      await extension.start(server)
      this.#started.push(extension)
    }
  }

  /** Stops those that were started, each whatever becomes of the others. */
  async stop(logger: Logger): Promise<void> {
    await Promise.all(this.#started.splice(0).map((extension) => stopped(extension, logger)))
  }
}

async function stopped(extension: Extension, logger: Logger): Promise<void> {
  try {
    await extension.stop()
  } catch (error) {
    logger.error({ err: error, extension: extension.name }, 'an extension did not stop')
  }
}

function checkExtension(extension: Extension): Extension {
  const { name, start, stop } = (extension ?? {}) as Partial<Extension>
  if (typeof name === 'string' && typeof start === 'function' && typeof stop === 'function') return extension
  throw new RingloopError(
    ErrorCode.OPTION,
    'an extension must be an object with a string name and functions start and stop',
  )
}
