/**
 * The file of a listening unix socket: where it is, whatever the working directory becomes, and which one it is, so that
 * at the end it is removed only while it is still ours. The socket is the poller's. The poller's thread only.
 */
import { randomBytes } from 'node:crypto'
import { accessSync, type BigIntStats, constants, lstatSync, renameSync, unlinkSync } from 'node:fs'
import path from 'node:path'
import { errno, systemError } from '../../system-error.js'
import { unixPathProblem } from './endpoint.js'

/** Windows has named pipes, which are no files and go by themselves. */
const ARE_FILES = process.platform !== 'win32'

/** The path to listen on, absolute from now on. Throws an Error with the code `EINVAL` where no socket can have it. */
export function resolveSocketPath(given: string): string {
  const problem = unixPathProblem(given)
  const resolved = ARE_FILES && problem === undefined ? path.resolve(given) : given
  const message = problem ?? unixPathProblem(resolved)
  if (message === undefined) return resolved
  throw Object.assign(new Error(message), { code: 'EINVAL', errno: errno.EINVAL, syscall: 'listen' })
}

type Found = 'ours' | 'another' | 'none'

export class SocketFile {
  readonly #path: string
  /** While the socket is open the system gives its inode's number to no other file. */
  readonly #identity: BigIntStats | undefined

  /** Just after the socket was bound to `path`, which is absolute. */
  constructor(path: string) {
    this.#path = path
    this.#identity = ARE_FILES ? statsOf(path) : undefined
  }

  /**
   * Removes it, if it is still there and ours. To be called before the socket is closed: afterwards a successor could
   * have taken the path. Returns why it could not be removed.
   */
  remove(): NodeJS.ErrnoException | undefined {
    try {
      if (this.#look() === 'ours') unlinkSync(this.#path)
      return undefined
    } catch (error) {
      const failure = error as NodeJS.ErrnoException
      // Somebody else has removed it since we looked.
      return failure.code === 'ENOENT' ? undefined : failure
    }
  }

  /**
   * Closes a listener of Node's, which removes by itself, in `close` and before its socket is closed, whatever has the
   * path then. A file that is not ours is put aside for that moment. Returns why ours could not be removed.
   */
  closeListener(close: () => void): NodeJS.ErrnoException | undefined {
    let found: Found
    try {
      found = this.#look()
    } catch (error) {
      close()
      return error as NodeJS.ErrnoException
    }
    if (found === 'another') {
      this.#closeBeside(close)
      return undefined
    }
    close()
    return found === 'ours' ? this.#whyLeft() : undefined
  }

  /** Where a file cannot be renamed it cannot be removed either. */
  #closeBeside(close: () => void): void {
    const aside = `${this.#path}.${randomBytes(6).toString('hex')}`
    const moved = rename(this.#path, aside)
    close()
    if (moved) rename(aside, this.#path)
  }

  /** What has the path now. Throws where we may not look. */
  #look(): Found {
    const found = ARE_FILES ? statsOf(this.#path) : undefined
    if (found === undefined) return 'none'
    return found.dev === this.#identity?.dev && found.ino === this.#identity.ino ? 'ours' : 'another'
  }

  /** After Node's close, which does not say whether it has removed it. To try once more could hit a successor's file. */
  #whyLeft(): NodeJS.ErrnoException | undefined {
    try {
      if (this.#look() !== 'ours') return undefined
      accessSync(path.dirname(this.#path), constants.W_OK)
    } catch (error) {
      return systemError((error as NodeJS.ErrnoException).errno ?? errno.EACCES, 'unlink', this.#path)
    }
    return systemError(errno.EPERM, 'unlink', this.#path)
  }
}

/** `undefined` where it, or the folder that it was in, is gone. */
function statsOf(file: string): BigIntStats | undefined {
  try {
    return lstatSync(file, { bigint: true })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw error
  }
}

function rename(from: string, to: string): boolean {
  try {
    renameSync(from, to)
    return true
  } catch {
    return false
  }
}
