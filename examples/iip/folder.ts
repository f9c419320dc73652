/**
 * One folder whose files may be read and written from outside, and nothing beyond it: not by `..`, not by a link that
 * leads out, also not by one that is put there meanwhile, not by a device. A path is taken from the folder's root, with or
 * without a slash in front.
 */
import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, lstat, mkdir, open, realpath, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { IipFailure } from 'ringloop/iip'

/** A FIFO is not waited for, and a link not followed. */
const SAFELY = constants.O_NONBLOCK | constants.O_NOFOLLOW
/** Nothing, a link, a FIFO that nobody reads, a directory. */
const MISSING = ['ENOENT', 'ELOOP', 'ENXIO', 'EISDIR']

export class Folder {
  readonly #root: string

  private constructor(root: string) {
    this.#root = root
  }

  static async at(root: string): Promise<Folder> {
    await mkdir(root, { recursive: true })
    return new Folder(await realpath(root))
  }

  /** Holds the directory of a file open meanwhile. Rejects where that is not there, or not inside the folder. */
  async place<T>(name: unknown, use: (place: Place) => Promise<T>): Promise<T> {
    const wanted = this.#inside(name)
    const directory = await open(path.dirname(wanted), constants.O_DIRECTORY).catch(() => undefined)
    if (directory === undefined) throw noFile(name)
    try {
      const held = await heldPath(directory, path.dirname(wanted))
      const real = await realpath(held)
      if (real !== this.#root && !this.#holds(real)) throw noFile(name)
      return await use(new Place(held, path.basename(wanted)))
    } finally {
      await directory.close()
    }
  }

  #inside(name: unknown): string {
    if (typeof name !== 'string' || name.includes('\0')) throw noFile(name)
    const wanted = path.join(this.#root, path.normalize(path.join('/', name)))
    if (!this.#holds(wanted)) throw noFile(name)
    return wanted
  }

  #holds(real: string): boolean {
    return real.startsWith(this.#root.endsWith(path.sep) ? this.#root : this.#root + path.sep)
  }
}

/** Linux has a path for what is open, whatever stands at its name by now. */
async function heldPath(directory: FileHandle, name: string): Promise<string> {
  return process.platform === 'linux' ? `/proc/self/fd/${directory.fd}` : realpath(name)
}

/** A name in a directory, which need not be there; `ending` is put behind it. */
export class Place {
  readonly #directory: string
  readonly #name: string

  constructor(directory: string, name: string) {
    this.#directory = directory
    this.#name = name
  }

  /** As {@link openFile}. */
  async open<T>(ending: string, flags: number, use: (file: FileHandle) => Promise<T>): Promise<T> {
    return this.#unlessMissing(openFile(this.#path(ending), flags, use))
  }

  /** As {@link checksum}. */
  async checksum(ending: string): Promise<string> {
    return this.#unlessMissing(checksum(this.#path(ending)))
  }

  /** As {@link sizeOf}. */
  size(ending: string): Promise<number> {
    return sizeOf(this.#path(ending))
  }

  /** What cannot be opened is not there: the peer is not told where that would be. */
  async #unlessMissing<T>(work: Promise<T>): Promise<T> {
    try {
      return await work
    } catch (error) {
      throw MISSING.includes((error as NodeJS.ErrnoException).code ?? '') ? noFile(this.#name) : error
    }
  }

  async rename(from: string, to: string): Promise<void> {
    await rename(this.#path(from), this.#path(to))
  }

  async remove(ending: string): Promise<void> {
    await rm(this.#path(ending))
  }

  #path(ending: string): string {
    return path.join(this.#directory, this.#name + ending)
  }
}

/** Opens a plain file, and closes it again; a link is not followed. */
export async function openFile<T>(
  file: string,
  flags: number,
  use: (handle: FileHandle) => Promise<T>,
): Promise<T> {
  const handle = await open(file, flags | SAFELY, 0o644)
  try {
    if (!(await handle.stat()).isFile()) throw noFile(path.basename(file))
    return await use(handle)
  } finally {
    await handle.close()
  }
}

/** SHA-256 as hexadecimal digits. */
export async function checksum(file: string): Promise<string> {
  const hash = createHash('sha256')
  await openFile(file, constants.O_RDONLY, (handle) =>
    pipeline(handle.createReadStream({ autoClose: false }), hash),
  )
  return hash.digest('hex')
}

/** 0 where there is none. */
export async function sizeOf(file: string): Promise<number> {
  return lstat(file).then(
    ({ size }) => size,
    () => 0,
  )
}

function noFile(name: unknown): IipFailure {
  return new IipFailure(`there is no file ${JSON.stringify(name)}`)
}

/** The fields of a request's JSON; what is not an object fails. */
export function fields(data: Buffer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(data.toString())
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch {}
  throw new IipFailure('the request must be a JSON object')
}

/** A position or size in a file. */
export function position(value: unknown, name: string): number {
  if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number
  throw new IipFailure(`${name} must be an integer, 0 or more`)
}
