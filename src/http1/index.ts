/**
 * Heads of HTTP/1.x, for protocols that begin with one: a strict parser that works on the bytes of a connection, and a
 * writer of answers. The HTTP and the WebSocket plugin are made with them.
 *
 *     import { HeadParser } from 'ringloop/http1'
 *
 *     const head = parser.parse(buffer)   in unPacket; one parser for each connection
 */
export { elementsOf, listOf } from './fields.js'
export {
  type HeaderMap,
  type HeadLimits,
  HeadMemo,
  HeadParser,
  HttpError,
  type RequestHead,
} from './head.js'
export { checkHost } from './host.js'
export {
  CHUNKED,
  checkAnswer,
  errorResponse,
  type HeaderFields,
  type HeaderValue,
  ResponseHead,
  UNKNOWN,
  unsendable,
  type WholeResponse,
  wholeResponse,
} from './response-head.js'
