/**
 * HTTP/1.1 as a protocol: requests are packets whose `ctx` is the request and whose data is its body. One object serves
 * all connections of a loop, and the server's side only. Requests of a connection are answered one after another.
 */
import { errorResponse, HeadMemo, HeadParser, HttpError, type RequestHead } from '../../http1/index.js'
import {
  allocateBuffer,
  type CloseReason,
  type Connection,
  ErrorCode,
  type Handler,
  type Loop,
  MAX_UTF8_BYTES,
  type Packed,
  type Packet,
  type Protocol,
  type ProtocolConnection,
  type RingBuffer,
  RingloopError,
} from '../../index.js'
import { BodyReader } from './body-reader.js'
import { BodyWriter } from './body-writer.js'
import { HttpClock } from './clock.js'
import { type HttpOptions, type HttpSettings, httpSettings } from './options.js'
import { type Framing, framingOf, type HttpRequest, IncomingRequest } from './request.js'
import { type HttpOutput, planResponse } from './response.js'
import { HttpSession } from './session.js'

/** The stream of a request without a body. */
const NO_STREAM: AsyncIterable<Buffer> = { async *[Symbol.asyncIterator]() {} }
/** Requests that wait for their turn may take so many bytes until the client is held back. */
const READ_AHEAD = 64 * 1024
/** Strings up to here are written by a loop: that is faster than the native call. */
const SHORT_TEXT = 48
const FIRST_NON_ASCII = 0x80
const PEER_LEFT: CloseReason = { code: 'peer-closed', message: 'the client left without its answer' }
const PEER_ENDED: CloseReason = { code: 'peer-closed', message: 'the client ended, and has its answers' }
/** More than the fields take that ringloop adds to a head. */
const OWN_FIELDS = 256

type Client = ProtocolConnection<HttpOutput>

/**
 * Serves HTTP/1.1 and 1.0, kept alive and pipelined.
 *
 *     const protocol = new HttpProtocol({ maxBodyBytes: 65_536 })
 *     const server = new Server(httpHandler((request) => `you asked for ${request.path}`), { protocol })
 *     await server.start()
 *
 * A handler's answer is a string, bytes, an `HttpResponse`, a stream, or a promise of one; nothing is a 204. A handler that
 * throws an `HttpError` answers with its status, for any other error with 500; both end the connection.
 */
export class HttpProtocol implements Protocol<HttpRequest, HttpOutput> {
  /** With `streamBody` a body goes on coming in while its request is being answered. */
  readonly multiplexed: boolean
  /** A client that ends its side in the middle of an answer has left, as far as HTTP goes. */
  readonly endsWithPeer = true
  readonly #settings: HttpSettings
  readonly #clocks: WeakMap<Loop, HttpClock> = new WeakMap()
  readonly #memo: HeadMemo = new HeadMemo()
  readonly #packet: { ctx: HttpRequest; data: Buffer } = { ctx: undefined as never, data: allocateBuffer(0) }
  #lastHead: RequestHead | undefined
  #lastFraming: Framing | undefined

  /** Throws `ERR_RINGLOOP_OPTION`. */
  constructor(options: HttpOptions = {}) {
    this.#settings = httpSettings(options)
    this.multiplexed = this.#settings.streamBody
  }

  onConnect(c: Client): void {
    const clock = this.#clockOf(c.loop)
    clock.enter()
    c.session = new HttpSession(clock, new HeadParser(this.#settings, this.#memo))
  }

  unPacket(c: Client, buffer: RingBuffer): Packet<HttpRequest> | undefined {
    const s = c.session as HttpSession
    if (s.reader !== undefined) {
      if (!readBody(c, s.reader, buffer)) {
        if (s.isEnded && !s.reader.isTired) breakOff(c)
        return undefined
      }
      const whole = this.#endBody(s)
      if (whole !== undefined) return whole
    }
    if (s.request !== undefined || s.writer !== undefined) {
      if (buffer.length >= READ_AHEAD) this.#holdBack(c, s)
      return undefined
    }
    const head = s.parser.parse(buffer)
    if (head === undefined) {
      if (s.parser.begun) this.#beginHead(s)
      return undefined
    }
    s.inHead = false
    s.isFresh = false
    return this.#accept(c, s, head, buffer)
  }

  packet(c: Client, out: HttpOutput): Packed {
    const s = c.session as HttpSession
    const request = pending(s)
    const plan = planResponse(out, request, isLast(c, s), s.clock)
    if (plan.stream === undefined) {
      this.#answered(c, s, plan.close)
      const { body } = plan
      const head = Buffer.from(plan.head, 'latin1')
      return body.length === 0 ? head : [head, typeof body === 'string' ? Buffer.from(body) : body]
    }
    s.writer = new BodyWriter(plan.stream, plan.length)
    c.holdEnd()
    this.#sendBody(c, s, s.writer, plan.close).then(
      () => c.releaseEnd(),
      (error) => {
        bodyFailed(c, s, error)
        c.releaseEnd()
      },
    )
    return Buffer.from(plan.head, 'latin1')
  }

  packetInto(
    c: Client,
    out: HttpOutput,
    _ctx: HttpRequest | undefined,
    target: Buffer,
    offset: number,
  ): number {
    const s = c.session as HttpSession
    const request = pending(s)
    if (typeof out === 'string' && out.length <= SHORT_TEXT && request.framing.plain && !isLast(c, s)) {
      const length = writeText(s.clock.textHead(out.length), out, target, offset)
      if (length >= 0) {
        this.#answered(c, s, false)
        return length
      }
    }
    return this.#writeWhole(c, s, request, out, target, offset)
  }

  unanswered(c: Client): void {
    const s = c.session as HttpSession
    if (s.request !== undefined && s.writer === undefined) c.send({ status: 204 })
  }

  /** Nobody: an answer needs a question. */
  broadcast(): () => undefined {
    return () => undefined
  }

  /** An error that ends the connection is the answer to the request under way, unless that has begun. */
  onClosing(c: Client, reason: CloseReason): void {
    const s = c.session as HttpSession
    const { request } = s
    const isAnswered = s.writer !== undefined || (s.reader !== undefined && request === undefined)
    if (!isAnswered) sayWhy(c, request, reason)
    giveUp(s, reason)
  }

  /** Half a body never becomes whole. What waits because the handler does not read is still given to it. */
  onEnd(c: Client): void {
    const s = c.session as HttpSession
    s.isEnded = true
    if (s.reader !== undefined && c.readBufferLength === 0) breakOff(c)
  }

  onLeft(c: Client): void {
    if ((c.session as HttpSession).isPaused) c.close(PEER_LEFT)
  }

  onClose(c: Client, reason: CloseReason): void {
    const s = c.session as HttpSession
    s.clock.leave()
    giveUp(s, reason)
    s.reader?.stream?.end(new RingloopError(ErrorCode.CLOSED, reason.message, reason.error))
    s.reader = undefined
    s.writer?.end()
  }

  #clockOf(loop: Loop): HttpClock {
    let clock = this.#clocks.get(loop)
    if (clock === undefined) {
      const { headersTimeout, bodyTimeout, keepAliveTimeout, responseTimeout } = this.#settings
      const timeouts = [headersTimeout, bodyTimeout, keepAliveTimeout, responseTimeout]
      clock = new HttpClock(loop, timeouts, (c, now) => {
        if (c.session instanceof HttpSession && c.session.clock === clock) this.#checkTime(c, c.session, now)
      })
      this.#clocks.set(loop, clock)
    }
    return clock
  }

  // ---- in ----------------------------------------------------------------------------------------------------------

  #beginHead(s: HttpSession): void {
    if (s.inHead) return
    s.inHead = true
    if (!s.isFresh) s.since = s.clock.now
  }

  #accept(c: Client, s: HttpSession, head: RequestHead, buffer: RingBuffer): Packet<HttpRequest> | undefined {
    const request = new IncomingRequest(head)
    // An error in what the head says is an answer to this request.
    s.request = request
    s.since = s.clock.now
    const framing = this.#framingOf(head)
    const { length } = framing
    const { maxBodyBytes, streamBody } = this.#settings
    request.framing = framing
    if (length === 0 || (!streamBody && length > 0 && length <= buffer.length)) {
      if (streamBody) request.stream = NO_STREAM
      if (length > 0) request.body = buffer.take(length)
      return this.#handOver(request)
    }
    const stream = streamBody ? s.openStream(c) : undefined
    request.stream = stream
    s.reader = new BodyReader(length, maxBodyBytes, s.parser, stream)
    s.owesContinue = framing.expectsContinue && buffer.isEmpty
    if (streamBody) return this.#handOver(request)
    s.sendContinue(c)
    return readBody(c, s.reader, buffer) ? this.#endBody(s) : undefined
  }

  /** A head that is the last one's object says the same. */
  #framingOf(head: RequestHead): Framing {
    if (head !== this.#lastHead || this.#lastFraming === undefined) {
      this.#lastFraming = framingOf(head, this.#settings)
      this.#lastHead = head
    }
    return this.#lastFraming
  }

  #handOver(request: IncomingRequest): Packet<HttpRequest> {
    this.#packet.ctx = request
    this.#packet.data = request.body
    return this.#packet
  }

  /** The request, where it waited for its body. */
  #endBody(s: HttpSession): Packet<HttpRequest> | undefined {
    const { stream } = s.reader!
    const { request } = s
    const body = s.reader!.take()
    s.reader = undefined
    s.owesContinue = false
    s.since = s.clock.now
    if (stream !== undefined || request === undefined) return undefined
    request.body = body
    return this.#handOver(request)
  }

  #holdBack(c: Client, s: HttpSession): void {
    s.isPaused = true
    c.pause()
  }

  // ---- out ---------------------------------------------------------------------------------------------------------

  #writeWhole(
    c: Client,
    s: HttpSession,
    request: IncomingRequest,
    out: HttpOutput,
    target: Buffer,
    offset: number,
  ): number {
    const room = target.length - offset - OWN_FIELDS
    if (bodyBytes(out) > room) return -1
    const plan = planResponse(out, request, isLast(c, s), s.clock)
    if (plan.stream !== undefined || bodyBytes(plan.body) + plan.head.length > room) return -1
    const start = offset + target.write(plan.head, offset, 'latin1')
    const { body } = plan
    let length = body.length
    if (typeof body === 'string') length = target.write(body, start)
    else target.set(body, start)
    this.#answered(c, s, plan.close)
    return start + length - offset
  }

  #answered(c: Client, s: HttpSession, close: boolean): void {
    s.request = undefined
    s.since = s.clock.now
    s.reader?.stream?.discard()
    if (close) c.close()
    else if (s.isPaused) {
      s.isPaused = false
      c.resume()
    }
  }

  async #sendBody(c: Client, s: HttpSession, writer: BodyWriter, close: boolean): Promise<void> {
    if (!(await writer.sendTo(c))) return
    s.writer = undefined
    this.#answered(c, s, close)
  }

  // ---- time --------------------------------------------------------------------------------------------------------

  #checkTime(c: Client, s: HttpSession, now: number): void {
    const { headersTimeout, bodyTimeout, keepAliveTimeout } = this.#settings
    const waited = now - s.since - s.clock.period
    if (s.reader !== undefined && s.reader.stream?.isFull !== true) {
      if (isOver(waited, bodyTimeout)) timeOut(c, 'bodyTimeout', bodyTimeout)
    } else if (s.writer !== undefined || s.request !== undefined) {
      this.#checkAnswer(c, s, now, waited)
    } else if (s.isEnded && c.readBufferLength === 0) {
      c.close(PEER_ENDED)
    } else if (s.inHead) {
      if (isOver(waited, headersTimeout)) timeOut(c, 'headersTimeout', headersTimeout)
    } else if (s.isFresh) {
      if (isOver(waited, headersTimeout)) c.close({ code: 'idle', message: 'no request came' })
    } else if (c.writeBufferLength > 0 && hasTaken(c, s)) {
      s.since = now
    } else if (isOver(waited, keepAliveTimeout)) {
      end(c, { code: 'idle', message: `no further request within ${keepAliveTimeout} ms` })
    }
  }

  /** It is the handler that keeps the client waiting, or the client that does not take the body. */
  #checkAnswer(c: Client, s: HttpSession, now: number, waited: number): void {
    const { bodyTimeout, responseTimeout } = this.#settings
    if (s.writer === undefined) {
      if (isOver(waited, responseTimeout)) endLate(c, s, responseTimeout)
    } else if (hasTaken(c, s)) {
      s.since = now
    } else if (c.writeBufferLength > 0) {
      if (isOver(waited, bodyTimeout)) end(c, notTaken(bodyTimeout))
    } else if (isOver(waited, responseTimeout)) {
      endLate(c, s, responseTimeout)
    }
  }
}

/**
 * A handler of one function, which gets the request and its connection; the body is in `request.body`. `more` adds the
 * other callbacks.
 */
export function httpHandler(
  answer: (request: HttpRequest, c: Connection<HttpOutput>) => HttpOutput | void | Promise<HttpOutput | void>,
  more: Omit<Handler<HttpRequest, HttpOutput>, 'onMessage'> = {},
): Handler<HttpRequest, HttpOutput> {
  return { ...more, onMessage: (c, request) => answer(request, c) }
}

/** No request can follow, whatever the handler and the client say. */
function isLast(c: Client, s: HttpSession): boolean {
  return s.owesContinue || c.loop.stopping
}

function isOver(waited: number, limit: number): boolean {
  return limit > 0 && waited >= limit
}

function timeOut(c: Client, name: string, ms: number): void {
  const error = new HttpError(408, `the request did not arrive within ${name} (${ms} ms)`)
  end(c, { code: 'idle', message: error.message, error })
}

/** A client that has not even taken what was sent before has had its time. */
function end(c: Client, reason: CloseReason): void {
  if (c.writeBufferLength > 0) c.abort(reason)
  else c.close(reason)
}

/** Whether the client has taken something since the last look, or was given something at once. */
function hasTaken(c: Client, s: HttpSession): boolean {
  const before = s.untaken
  s.untaken = c.writeBufferLength - (s.writer?.given ?? 0)
  return s.untaken !== before
}

function notTaken(ms: number): CloseReason {
  return {
    code: 'slow-consumer',
    message: `the client took nothing of an answer within bodyTimeout (${ms} ms)`,
  }
}

function bodyFailed(c: Client, s: HttpSession, error: Error): void {
  const message = 'the body of an answer failed'
  const { logger } = c.loop
  // Of a client that has left the body may well fail.
  if (!c.connected) {
    logger.debug({ err: error, peer: c.peerAddr }, `${message} after its client had left`)
    return
  }
  const leftOut = s.clock.answerLog.admitError(message, error)
  if (leftOut !== undefined) {
    logger.error({ err: error, peer: c.peerAddr, leftOut }, `${message}; its connection is closed`)
  }
  c.close({ code: 'handler-error', message, error })
}

/** The handler gave no answer, or no more of one. */
function endLate(c: Client, s: HttpSession, ms: number): void {
  const message = `no answer within responseTimeout (${ms} ms)`
  const leftOut = s.clock.answerLog.admit(message)
  if (leftOut !== undefined) {
    c.loop.logger.error(
      { peer: c.peerAddr, path: s.request?.path, leftOut },
      `${message}; its connection is closed`,
    )
  }
  end(c, { code: 'handler-error', message, error: new HttpError(503, message) })
}

/** The answer to a request that an error has ended. */
function sayWhy(c: Client, request: HttpRequest | undefined, { code, error }: CloseReason): void {
  if (error instanceof HttpError) {
    c.sendRaw(errorResponse(error.status, error.message, request?.method))
  } else if (code === 'handler-error' && request !== undefined) {
    c.sendRaw(errorResponse(500, 'the request could not be answered', request.method))
  }
}

/** Nobody wants the answer any more. Whoever hears of it now can no longer give one. */
function giveUp(s: HttpSession, reason: CloseReason): void {
  const { request } = s
  s.request = undefined
  request?.leave(new RingloopError(ErrorCode.CLOSED, reason.message, reason.error))
}

/** `true` once the body is over. One of very many chunks takes several turns. */
function readBody(c: Client, reader: BodyReader, buffer: RingBuffer): boolean {
  const isOver = reader.read(buffer)
  if (!isOver && reader.isTired) c.yield()
  return isOver
}

function breakOff(c: Client): void {
  c.close({ code: 'peer-closed', message: 'the client ended in the middle of a body' })
}

function pending(s: HttpSession): IncomingRequest {
  if (s.request !== undefined && s.writer === undefined) return s.request
  throw new RingloopError(ErrorCode.PACKET, 'there is no request that this could answer')
}

/** The most bytes that the body of `out` takes; more than any room for a stream. */
function bodyBytes(out: HttpOutput): number {
  if (typeof out === 'string') return out.length * MAX_UTF8_BYTES
  if (out instanceof Uint8Array) return out.length
  const body = (out as { body?: HttpOutput }).body
  if (body === undefined) return Symbol.asyncIterator in out ? Number.POSITIVE_INFINITY : 0
  return typeof body === 'string' || body instanceof Uint8Array ? bodyBytes(body) : Number.POSITIVE_INFINITY
}

/** The head and an ASCII string; -1 for another string, or where there is no room. */
function writeText(head: Buffer, text: string, target: Buffer, offset: number): number {
  const { length } = text
  const start = offset + head.length
  if (start + length > target.length) return -1
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i)
    if (code >= FIRST_NON_ASCII) return -1
    target[start + i] = code
  }
  target.set(head, offset)
  return start + length - offset
}
