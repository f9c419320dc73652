/** Negative errno numbers, as pollers report them, turned into Errors in this one place. Pure. */
import { getSystemErrorMap } from 'node:util'

/** Those that are made or compared here and in tests. */
type ErrnoName =
  | 'EACCES'
  | 'EADDRINUSE'
  | 'EBADF'
  | 'ECONNREFUSED'
  | 'ECONNRESET'
  | 'EINVAL'
  | 'EIO'
  | 'EPERM'
  | 'EPIPE'
  | 'ESHUTDOWN'
  | 'ESRCH'

/** The numbers of this system by name, negative as pollers and Node's own errors have them: `errno.EPIPE`. */
export const errno: Readonly<Record<ErrnoName, number>> = Object.fromEntries(
  Array.from(getSystemErrorMap(), ([number, [name]]) => [name, number]),
) as Record<ErrnoName, number>

/** An Error with the `code`, `errno` and message that Node gives its own; `syscall` and `where` go into the message. */
export function systemError(number: number, syscall?: string, where?: string): NodeJS.ErrnoException {
  const [code, text] = getSystemErrorMap().get(number) ?? [`E${-number}`, 'unknown system error']
  const what = syscall === undefined ? '' : `${syscall} `
  const error: NodeJS.ErrnoException = new Error(
    `${what}${code}: ${text}${where === undefined ? '' : ` ${where}`}`,
  )
  error.code = code
  error.errno = number
  if (syscall !== undefined) error.syscall = syscall
  return error
}

/** The errno of an Error that Node made, or that of `EIO` when it has none. */
export function errnoOf(error: Error): number {
  const { errno: number } = error as NodeJS.ErrnoException
  return typeof number === 'number' && number < 0 ? number : errno.EIO
}
