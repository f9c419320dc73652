/** Answers: what a handler may return, and how it is sent (RFC 9112, sections 4–6). Pure. */
import {
  CHUNKED,
  checkAnswer,
  type HeaderFields,
  ResponseHead,
  UNKNOWN,
  unsendable,
} from '../../http1/index.js'
import type { HttpClock } from './clock.js'
import type { IncomingRequest } from './request.js'

/** A part of a streamed body; a string is sent as UTF-8. */
export type BodyPart = Uint8Array | string

export interface HttpResponse {
  /** 200 to 599. Default 200. */
  readonly status?: number
  /**
   * An object, or pairs as of a `Map` or `Headers`. A list makes one line for each, `undefined` none. `Content-Length`,
   * `Content-Type`, `Date` and `Connection` are filled in; `connection: 'close'` ends the connection, other options of it are
   * sent beside ringloop's own, `content-length` is for a stream whose length is known and for answers to HEAD.
   */
  readonly headers?: HeaderFields
  /** A stream is sent in chunks, as fast as the client takes them. */
  readonly body?: Uint8Array | string | AsyncIterable<BodyPart>
}

/** A string and bytes are the body of a `200` with a fitting `Content-Type`, a stream one of unknown type. */
export type HttpOutput = string | Uint8Array | HttpResponse | AsyncIterable<BodyPart>

type Whole = Uint8Array | string

/** How an answer is sent. */
export interface Plan {
  readonly head: string
  readonly body: Whole
  readonly stream: AsyncIterable<BodyPart> | undefined
  /** Bytes that the body has to have, `CHUNKED` or `UNKNOWN`. */
  readonly length: number
  readonly close: boolean
}

/** Throws `ERR_RINGLOOP_PACKET` for what cannot be an answer. */
export function planResponse(
  out: HttpOutput,
  request: IncomingRequest,
  mustClose: boolean,
  clock: HttpClock,
): Plan {
  const response = asResponse(out)
  const { status = 200, body = '' } = response
  const fields = new ResponseHead(status, response.headers)
  const isLatest = request.version === '1.1'
  const withoutBody = fields.bodyless || request.method === 'HEAD'
  const stream = isStream(body) ? body : undefined
  let length = lengthOf(body, fields, withoutBody)
  if (length === UNKNOWN && isLatest) length = CHUNKED
  const untilClose = length === UNKNOWN && !withoutBody
  const close = mustClose || fields.close || !request.framing.keepAlive || untilClose
  const kept = isLatest ? '' : 'keep-alive'
  const head = fields.text(response.body, length, close ? 'close' : kept, clock.date)
  if (!withoutBody) return { head, body: stream === undefined ? (body as Whole) : '', stream, length, close }
  if (stream !== undefined) endIterator(stream[Symbol.asyncIterator]())
  return { head, body: '', stream: undefined, length, close }
}

/** Whatever that ends in is nobody's any more. */
export function endIterator(iterator: AsyncIterator<unknown> | undefined): void {
  iterator?.return?.().catch(() => {})
}

function asResponse(out: HttpOutput): HttpResponse {
  if (typeof out === 'string' || out instanceof Uint8Array) return { body: out }
  if (isStream(out)) return { body: out }
  checkAnswer(out)
  return out
}

function isStream(value: unknown): value is AsyncIterable<BodyPart> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value
}

function lengthOf(body: HttpResponse['body'] & {}, fields: ResponseHead, withoutBody: boolean): number {
  if (typeof body !== 'string' && !(body instanceof Uint8Array)) {
    if (isStream(body)) return fields.length
    throw unsendable('a body that is no string, no bytes and no stream')
  }
  const length = typeof body === 'string' ? Buffer.byteLength(body) : body.length
  if (fields.length === UNKNOWN || fields.length === length) return length
  if (withoutBody && length === 0) return fields.length
  throw unsendable(`a content-length of ${fields.length} for a body of ${length} bytes`)
}
