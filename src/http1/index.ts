/**
 * Heads of HTTP/1.x requests, for protocols that begin with one: a strict parser that works on the bytes of a connection.
 * The HTTP and the WebSocket plugin are made with it.
 *
 *     import { HeadParser } from 'ringloop/http1'
 *
 *     const head = parser.parse(buffer)   in unPacket; one parser for each connection
 */
export { isFieldName, isFieldValue, isStatus } from './fields.js'
export {
  errorResponse,
  type HeaderMap,
  type HeadLimits,
  HeadMemo,
  HeadParser,
  HttpError,
  type RequestHead,
} from './head.js'
