/**
 * IIP on the server's side, for any handler: the `ctx` of a packet is its `IipRequest`, its data is the request's, and
 * what the handler returns answers it on its channel. One object serves all connections of a loop.
 */
import {
  type CloseReason,
  checkInteger,
  checkLimit,
  checkOptions,
  ErrorCode,
  MAX_UTF8_BYTES,
  type OptionNames,
  type Packed,
  type Packet,
  type Protocol,
  type RingBuffer,
  RingloopError,
} from '../../index.js'
import { NO_RESPONSE } from './errors.js'
import { LAST, MIN_HEADER, ONLY, packetCount, packets, putHeader, Status } from './frame.js'
import { HeldBytes } from './held-bytes.js'
import { PathCache } from './path.js'
import type { IipConnection, IipOut, IipProtocolConnection, IipRequest, ServerRequest } from './request.js'
import { ServerSession, type SessionLimits } from './server-session.js'

const MIB = 1024 * 1024
/** From here on it pays to hand the data to the loop as it is. */
const COPY_BELOW = 16 * 1024

export interface IipProtocolOptions {
  /** Channels of a connection, not counting channel 0. More are refused with error 106. Default 1024. */
  readonly maxChannelsPerConn?: number
  /** Bytes of a request that is handed over whole. A longer one closes the connection. Default 64 MiB. */
  readonly maxRequestBytes?: number
  /**
   * Bytes that one connection may make the server hold: unfinished requests, requests that handlers have not answered,
   * requests that wait for earlier ones of their channel, and unread bodies. Beyond it the connection is not read, or closed where
   * that cannot help. Default twice `maxRequestBytes`.
   */
  readonly maxHeldBytes?: number
  /**
   * The same for all connections of this object, and so of one loop. Beyond it those that hold more than 64 KiB are not read
   * until handlers have made room; while unfinished requests take more than half of it, the connection with most of them,
   * however few, is closed. Default 256 MiB.
   */
  readonly maxHeldBytesPerLoop?: number
  /**
   * Milliseconds that an unfinished request may stand still until the connection is closed, and that connections may be held
   * back by the limits above until the one that holds the most is closed; 0 is for ever. Default 60 s.
   */
  readonly requestTimeout?: number
}

const OPTIONS = {
  maxChannelsPerConn: true,
  maxRequestBytes: true,
  maxHeldBytes: true,
  maxHeldBytesPerLoop: true,
  requestTimeout: true,
} as const satisfies OptionNames<IipProtocolOptions>

/**
 * Requests of a channel are handled one after another, those of different channels independently. `send` is a mistake
 * here: an IIP server only answers. How many connections there may be is the server's option `maxConnections`.
 */
export class IipProtocol implements Protocol<IipRequest, IipOut> {
  readonly multiplexed = true
  readonly #limits: SessionLimits
  readonly #paths = new PathCache()

  /** Throws `ERR_RINGLOOP_OPTION`. */
  constructor(options: IipProtocolOptions = {}) {
    checkOptions('IipProtocol', options, OPTIONS)
    const maxPerLoop = checkLimit('maxHeldBytesPerLoop', options.maxHeldBytesPerLoop, 256 * MIB, 1)
    const maxRequestBytes = checkLimit('maxRequestBytes', options.maxRequestBytes, 64 * MIB, 1)
    this.#limits = {
      maxChannelsPerConn: checkLimit('maxChannelsPerConn', options.maxChannelsPerConn, 1024, 0),
      maxRequestBytes,
      maxHeldBytes: checkLimit('maxHeldBytes', options.maxHeldBytes, 2 * maxRequestBytes, 1),
      held: new HeldBytes(maxPerLoop),
      requestTimeout: checkInteger('requestTimeout', options.requestTimeout, 60_000, 0),
    }
  }

  onConnect(c: IipProtocolConnection): void {
    c.session = new ServerSession(c, this.#limits, this.#paths)
  }

  onEnd(c: IipProtocolConnection): void {
    sessionOf(c).end()
  }

  onLeft(c: IipProtocolConnection): void {
    sessionOf(c).left()
  }

  onDraining(c: IipProtocolConnection): boolean {
    return sessionOf(c).drain()
  }

  onClose(c: IipProtocolConnection, reason: CloseReason): void {
    sessionOf(c).close(new RingloopError(ErrorCode.CLOSED, reason.message, reason.error))
  }

  unPacket(c: IipProtocolConnection, buffer: RingBuffer): Packet<IipRequest> | undefined {
    return sessionOf(c).next(buffer)
  }

  packetInto(
    _c: IipProtocolConnection,
    out: IipOut,
    ctx: IipRequest | undefined,
    target: Buffer,
    offset: number,
  ): number {
    if (ctx === undefined) throw onlyAnswers()
    const request = ctx as ServerRequest
    if (request.cancelled) {
      request.session.forgotten(request)
      return 0
    }
    const path = request.parsed.answer
    const room = target.length - offset - path.length - MIN_HEADER
    const most = typeof out === 'string' ? out.length * MAX_UTF8_BYTES : out.length
    if (most === 0 || most > room || most > COPY_BELOW) return -1
    const dataAt = offset + path.length + MIN_HEADER - 1
    const length = typeof out === 'string' ? target.write(out, dataAt) : copy(out, target, dataAt)
    const kind = request.answering ? LAST : ONLY
    putHeader(target, offset, Status.RESPONSE_FIRST + kind, path, request.serverChannel.id, length)
    request.session.answered(request, 1, dataAt + length - offset)
    return dataAt + length - offset
  }

  packet(_c: IipProtocolConnection, out: IipOut, ctx?: IipRequest): Packed {
    if (ctx === undefined) throw onlyAnswers()
    const request = ctx as ServerRequest
    if (request.cancelled) {
      request.session.forgotten(request)
      return []
    }
    const given = typeof out === 'string' ? Buffer.from(out) : out
    const data = given.length === 0 ? NO_RESPONSE : given
    const path = request.parsed.answer
    const parts = packets(Status.RESPONSE_FIRST, path, request.serverChannel.id, data, !request.answering)
    const count = packetCount(data.length)
    request.session.answered(request, count, count * (path.length + MIN_HEADER - 1) + data.length)
    return parts
  }

  /** Every request needs an answer: the peer pairs them by their order alone. */
  unanswered(c: IipProtocolConnection, ctx: IipRequest): void {
    c.sendRaw(this.packet(c, NO_RESPONSE, ctx))
  }
}

export function sessionOf(c: IipConnection): ServerSession {
  return (c as IipProtocolConnection).session as ServerSession
}

function copy(data: Uint8Array, target: Buffer, at: number): number {
  target.set(data, at)
  return data.length
}

function onlyAnswers(): RingloopError {
  return new RingloopError(
    ErrorCode.STATE,
    'an IIP server sends answers only: return them from onMessage, now or through a promise',
  )
}
