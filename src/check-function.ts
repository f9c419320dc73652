/** The one check of options that are called, for the core and for plugins. Pure. */
import { ErrorCode, RingloopError } from './errors.js'

/** `value`, a function or `undefined`. Throws `ERR_RINGLOOP_OPTION` with a sentence that begins with `name`. */
export function checkFunction<T>(name: string, value: T): T {
  if (value === undefined || typeof value === 'function') return value
  throw new RingloopError(ErrorCode.OPTION, `${name} must be a function, not ${String(value)}`)
}
