/** Refuses values of the caller's that are of another type than they must be. Keeps nothing; any thread. */
import { badValue } from './errors.js'

/** `value`. Throws `ERR_RINGLOOP_OPTION` with a sentence that begins with `name`. */
export function checkString(name: string, value: unknown): string {
  if (typeof value === 'string') return value
  throw badValue(`${name} must be a string, not ${typeof value}`)
}
