/** The error for what was to be sent and is no bytes: it says what came. Pure. */
import { ErrorCode, RingloopError } from '../errors.js'

/** `advice` says what there should have been. */
export function notSendable(value: unknown, advice: string): RingloopError {
  return new RingloopError(ErrorCode.PACKET, `${kindOf(value)} cannot be sent: ${advice}`)
}

/** What a value is, in two words. */
export function kindOf(value: unknown): string {
  if (value === null || value === undefined) return String(value)
  if (typeof value !== 'object') return `a ${typeof value}`
  try {
    const name: unknown = Object.getPrototypeOf(value)?.constructor?.name
    return typeof name === 'string' && name !== '' && name !== 'Object' ? `an object (${name})` : 'an object'
  } catch {
    return 'an object'
  }
}
