/**
 * One folder whose files may be read and written from outside, and nothing beyond it: not by `..`, not by a link that
 * leads out, not by a device. A path is taken from the folder's root, with or without a slash in front.
 */
import { createHash } from 'node:crypto'
import { constants, createReadStream } from 'node:fs'
import { type FileHandle, mkdir, open, realpath, stat } from 'node:fs/promises'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { IipFailure } from 'ringloop/iip'

export class Folder {
  readonly #root: string

  private constructor(root: string) {
    this.#root = root
  }

  static async at(root: string): Promise<Folder> {
    await mkdir(root, { recursive: true })
    return new Folder(await realpath(root))
  }

  /** Where an existing file really is. Rejects where it is not a plain file inside the folder. */
  async file(name: unknown): Promise<string> {
    const real = await realpath(this.#inside(name)).catch(() => undefined)
    if (real === undefined || !this.#holds(real) || !(await stat(real)).isFile()) throw noFile(name)
    return real
  }

  /** Where a file may be made: its directory is inside the folder and there already. */
  async place(name: unknown): Promise<string> {
    const wanted = this.#inside(name)
    const parent = await realpath(path.dirname(wanted)).catch(() => undefined)
    if (parent === undefined || !(parent === this.#root || this.#holds(parent))) throw noFile(name)
    return path.join(parent, path.basename(wanted))
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

function noFile(name: unknown): IipFailure {
  return new IipFailure(`there is no file ${JSON.stringify(name)}`)
}

/** Opens what `file` or `place` gave, unless a link has taken its place meanwhile. */
export async function openFile<T>(
  file: string,
  flags: number,
  use: (handle: FileHandle) => Promise<T>,
): Promise<T> {
  const handle = await open(file, flags | constants.O_NOFOLLOW, 0o644)
  try {
    return await use(handle)
  } finally {
    await handle.close()
  }
}

/** SHA-256 as hexadecimal digits. */
export async function checksum(file: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file), hash)
  return hash.digest('hex')
}

/** 0 where there is none. */
export async function sizeOf(file: string): Promise<number> {
  return stat(file).then(
    ({ size }) => size,
    () => 0,
  )
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
