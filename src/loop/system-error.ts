/** Negative errno numbers, as pollers report them, turned into Errors in this one place. Pure. */
import { getSystemErrorMap } from 'node:util'

/** An Error with the `code`, `errno` and message that Node gives its own; `syscall` and `where` go into the message. */
export function systemError(errno: number, syscall?: string, where?: string): NodeJS.ErrnoException {
  const [code, text] = getSystemErrorMap().get(errno) ?? [`E${-errno}`, 'unknown system error']
  const what = syscall === undefined ? '' : `${syscall} `
  const error: NodeJS.ErrnoException = new Error(
    `${what}${code}: ${text}${where === undefined ? '' : ` ${where}`}`,
  )
  error.code = code
  error.errno = errno
  if (syscall !== undefined) error.syscall = syscall
  return error
}

/** The errno of an Error that Node made, or that of `EIO` when it has none. */
export function errnoOf(error: Error): number {
  const { errno } = error as NodeJS.ErrnoException
  return typeof errno === 'number' && errno < 0 ? errno : -5
}
