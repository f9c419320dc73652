/**
 * What the protocol remembers of one connection, and what a handler can do with it beyond `send`. Kept small: an idle
 * WebSocket has this object and its opening request as a string, nothing else. The loop's thread only.
 */
import type { HeaderMap, HeadParser } from '../../http1/index.js'
import { type Connection, ErrorCode, type ProtocolConnection, RingloopError } from '../../index.js'
import type { ClientHandshake } from './client-handshake.js'
import type { Deflater, Inflater } from './deflate.js'
import { CloseStatus, isValidCloseCode, MAX_CONTROL_PAYLOAD, Opcode } from './frame.js'
import type { Incoming } from './incoming.js'
import type { Lifecycle } from './lifecycle.js'
import type { SendOptions, WebSocketOut } from './message.js'
import type { SessionTimer } from './session-timer.js'
import { ParsedRequest, type UpgradeRequest } from './upgrade-request.js'

/** The WebSocket of a connection, as a handler gets it from {@link webSocketOf}. */
export interface WebSocketSession {
  /** `true` from `onConnect` until one side closes: messages can be sent. */
  readonly open: boolean

  /**
   * The opening request, parsed anew each time it is asked for, without the headers that only the handshake needed.
   * Throws `ERR_RINGLOOP_STATE` on a connection in the client role, which has none, as do the next four.
   */
  readonly request: UpgradeRequest

  /** The path that the client asked for, percent-encoded as sent. */
  readonly path: string

  /** What came after the `?`, percent-encoded as sent; `''` without one. */
  readonly query: string

  readonly headers: HeaderMap

  /** The page that a browser speaks for; other clients may send what they like. */
  readonly origin: string | undefined

  /** The subprotocol that both sides speak. */
  readonly protocol: string | undefined

  /** Whether `permessage-deflate` was agreed on. */
  readonly compressed: boolean

  /** The code of the close frame that came or went first; 1005 if it had none, 1006 if there was no close frame. */
  readonly closeCode: number

  /** The reason beside {@link closeCode}. */
  readonly closeReason: string

  /** Sends a message with its kind and compression chosen; what is returned is as of `c.send`. */
  send(data: string | Uint8Array, options?: SendOptions): boolean

  /** Sends a ping with at most 125 bytes of `data`. `false` when the WebSocket is not open. */
  ping(data?: string | Uint8Array): boolean

  /**
   * Begins the close handshake: sends what is unsent and a close frame, and waits at most `closeHandshakeTimeout` for the
   * peer's. No message is handed over any more. `code` is 1000 (default) or one from 3000 to 4999 (others of the RFC are
   * allowed too); `reason` takes at most 123 bytes of UTF-8. `c.close()` does the same with 1000 and does not wait.
   */
  close(code?: number, reason?: string): void
}

/** A connection as the protocol sees it. */
export type WebSocketConnection = ProtocolConnection<WebSocketOut, WebSocketSession>

export const State = {
  /** The opening request, or the answer to it, is not yet whole. */
  HANDSHAKE: 0,
  /** A hook of the user decides. */
  DECIDING: 1,
  OPEN: 2,
  /** This side has sent its close frame and waits for the other. */
  CLOSING: 3,
  /** Both sides have said all; what still comes is thrown away. */
  CLOSED: 4,
} as const

/** Heard from since the last look, not heard from, and not heard from after a ping. */
export const Liveness = { HEARD: 0, QUIET: 1, PINGED: 2 } as const

/** A message that waits for its turn to be compressed. */
export interface Outgoing {
  readonly first: number
  readonly bytes: Buffer
  readonly compress: boolean
}

/** What a connection has with `permessage-deflate`. */
export interface DeflateState {
  readonly inflater: Inflater
  readonly deflater: Deflater
  /** Messages behind one that is being compressed in a thread, that one first. */
  readonly outbox: Outgoing[]
  outboxBytes: number
}

/** What a session has in common with others: the same object for all clients whose requests say the same. */
export interface Shared {
  readonly lifecycle: Lifecycle
  /** The opening request as a string, in which headers are looked up when they are asked for; `''` where there is none. */
  readonly head: string
  /** The subprotocol that was agreed on. */
  readonly protocol: string | undefined
}

interface Ending {
  readonly code: number
  readonly reason: string
}

const NOT_CLOSED: Ending = { code: CloseStatus.ABNORMAL, reason: '' }
const MAX_REASON = MAX_CONTROL_PAYLOAD - 2

/** The session as the rest of the plugin sees it. */
export class Session implements WebSocketSession {
  readonly connection: WebSocketConnection
  shared: Shared
  /** One of {@link State}. */
  state: number = State.HANDSHAKE
  /** One of {@link Liveness}. */
  liveness: number = Liveness.HEARD
  /** Until the handshake is over. */
  opening: HeadParser | ClientHandshake | undefined = undefined
  /** The message that is not yet whole. */
  incoming: Incoming | undefined = undefined
  deflate: DeflateState | undefined = undefined
  /** So many of the bytes that wait have been looked at: pings among them are answered. */
  lookedAt = 0
  timer: SessionTimer | undefined = undefined
  ending: Ending = NOT_CLOSED

  constructor(connection: WebSocketConnection, shared: Shared) {
    this.connection = connection
    this.shared = shared
  }

  get open(): boolean {
    return this.state === State.OPEN && this.connection.connected
  }

  get request(): UpgradeRequest {
    const { head } = this.shared
    if (head === '') throw new RingloopError(ErrorCode.STATE, 'there is no request on this connection')
    return ParsedRequest.from(head)
  }

  get path(): string {
    return this.request.path
  }

  get query(): string {
    return this.request.query
  }

  get headers(): HeaderMap {
    return this.request.headers
  }

  get origin(): string | undefined {
    return this.request.origin
  }

  get protocol(): string | undefined {
    return this.shared.protocol
  }

  get compressed(): boolean {
    return this.deflate !== undefined
  }

  get closeCode(): number {
    return this.ending.code
  }

  get closeReason(): string {
    return this.ending.reason
  }

  send(data: string | Uint8Array, options?: SendOptions): boolean {
    if (!this.open) return false
    return this.connection.send(options === undefined ? data : { ...options, data })
  }

  ping(data: string | Uint8Array = ''): boolean {
    const payload = typeof data === 'string' ? Buffer.from(data) : data
    if (payload.length > MAX_CONTROL_PAYLOAD) {
      throw new RingloopError(ErrorCode.OPTION, `a ping takes at most ${MAX_CONTROL_PAYLOAD} bytes`)
    }
    return this.open && this.shared.lifecycle.sender.control(this.connection, Opcode.PING, payload)
  }

  close(code: number = CloseStatus.NORMAL, reason = ''): void {
    if (!isValidCloseCode(code))
      throw new RingloopError(ErrorCode.OPTION, `${code} is not a valid close code`)
    if (Buffer.byteLength(reason) > MAX_REASON) {
      throw new RingloopError(ErrorCode.OPTION, `the reason of a close takes at most ${MAX_REASON} bytes`)
    }
    this.shared.lifecycle.startClose(this, code, reason)
  }
}

/** The WebSocket side of a connection under a `WebSocketProtocol`. Throws `ERR_RINGLOOP_STATE` for any other. */
export function webSocketOf(c: Connection<never> | Connection<WebSocketOut> | Connection): WebSocketSession {
  const { session } = c as ProtocolConnection<never>
  if (session instanceof Session) return session
  throw new RingloopError(ErrorCode.STATE, 'this connection does not speak WebSocket')
}
