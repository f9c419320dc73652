/** The one check of integer options, for the core and for plugins. Pure. */
import { inspect } from 'node:util'
import { ErrorCode, RingloopError } from './errors.js'

/**
 * `value` where it is an integer from `min` to `max`, or `fallback` where it is `undefined`. `Infinity` is allowed, as
 * "no limit", where `max` is `Infinity`. Throws `ERR_RINGLOOP_OPTION` with a sentence that begins with `name`.
 */
export function checkInteger(
  name: string,
  value: unknown,
  fallback: number,
  min = 0,
  max: number = Number.MAX_SAFE_INTEGER,
): number {
  if (value === undefined) return fallback
  const isInteger = Number.isSafeInteger(value) || value === Number.POSITIVE_INFINITY
  if (isInteger && (value as number) >= min && (value as number) <= max) return value as number
  const range = max < Number.MAX_SAFE_INTEGER ? ` from ${min} to ${max}` : `, ${min} or more`
  throw new RingloopError(
    ErrorCode.OPTION,
    `${name} must be an integer${range}, not ${inspect(value, { depth: 0 })}`,
  )
}

/** As {@link checkInteger}, and `Infinity` is no limit. */
export function checkLimit(name: string, value: unknown, fallback: number, min = 0): number {
  return checkInteger(name, value, fallback, min, Number.POSITIVE_INFINITY)
}
