/** What a topic may be called. Pure; any thread. */
import { inspect } from 'node:util'
import { ErrorCode, RingloopError } from './errors.js'

const MAX_BYTES = 255
/** Control characters, and halves of characters, which would be the same name once they are UTF-8. */
const UNFIT = /[\p{Cc}\p{Cs}]/u

/**
 * Throws `ERR_RINGLOOP_TOPIC` unless `name` is a string of 1 to 255 bytes in UTF-8 that has no control characters and
 * no lone surrogates.
 */
export function checkTopicName(name: string): void {
  if (typeof name !== 'string') refuse(`must be a string, not ${inspect(name, { depth: 0 })}`)
  if (name.length === 0) refuse('must not be empty')
  if (name.length > MAX_BYTES || Buffer.byteLength(name) > MAX_BYTES) {
    refuse(`must be at most ${MAX_BYTES} bytes long in UTF-8`)
  }
  if (UNFIT.test(name)) refuse('must not have control characters or lone surrogates')
}

function refuse(why: string): never {
  throw new RingloopError(ErrorCode.TOPIC, `the name of a topic ${why}`)
}
