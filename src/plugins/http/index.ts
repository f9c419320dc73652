/** HTTP/1.1 for small, fast services on the reactor; docs/http.md. */
export {
  type HeaderFields,
  type HeaderMap,
  type HeaderValue,
  HttpError,
  type RequestHead,
} from '../../http1/index.js'
export { HttpProtocol, httpHandler } from './http-protocol.js'
export type { HttpOptions } from './options.js'
export type { HttpRequest } from './request.js'
export type { BodyPart, HttpOutput, HttpResponse } from './response.js'
