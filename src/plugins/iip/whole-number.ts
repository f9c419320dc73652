/** The check of numeric options. */
import { ErrorCode, RingloopError } from '../../index.js'

/** A whole number of at least `min` (or `Infinity`), or the default. Throws `ERR_RINGLOOP_OPTION`. */
export function wholeNumber(name: string, value: number | undefined, fallback: number, min: number): number {
  const number = value ?? fallback
  if (number === Number.POSITIVE_INFINITY || (Number.isSafeInteger(number) && number >= min)) return number
  throw new RingloopError(ErrorCode.OPTION, `${name} must be a whole number, ${min} or more, not ${number}`)
}
