/** A message whose bytes are taken as they come, instead of all at once. */
import type { ByteReader } from '../../index.js'

/**
 * The bytes of a request or response, chunk by chunk, once. The iteration rejects when the connection ends before the
 * body does. Bytes that wait to be read count against the connection's limit.
 */
export type IipBody = ByteReader
