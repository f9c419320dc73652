/**
 * What the protocol remembers of one connection, and what a handler can do with it beyond `send`. Kept small: an idle
 * WebSocket has this object and the text of its opening request, nothing else. The loop's thread only.
 */

import type { HeaderMap, HeadParser } from '../../http1/head.js'
import { type Connection, ErrorCode, type ProtocolConnection, RingloopError } from '../../index.js'
import type { ClientHandshake } from './client-handshake.js'
import type { Deflater, Inflater } from './deflate.js'
import { CloseStatus, isValidCloseCode, MAX_CONTROL_PAYLOAD, Opcode } from './frame.js'
import type { Incoming } from './incoming.js'
import type { SendOptions, WebSocketOut } from './message.js'
import type { SessionTimer } from './session-timer.js'
import { UpgradeRequest } from './upgrade-request.js'
import type { WebSocketProtocol } from './websocket-protocol.js'

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

/** The outcome of the opening handshake; the same object for all clients whose requests say the same. */
export interface Agreed {
  /** The opening request as a text, in which headers are looked up when they are asked for. */
  readonly head: string
  readonly protocol: string | undefined
}

interface Ending {
  readonly code: number
  readonly reason: string
}

const NOTHING_AGREED: Agreed = { head: '', protocol: undefined }
const NOT_CLOSED: Ending = { code: CloseStatus.ABNORMAL, reason: '' }
const MAX_REASON = MAX_CONTROL_PAYLOAD - 2

export class WebSocketSession {
  /** @internal */
  readonly connection: ProtocolConnection<WebSocketOut, WebSocketSession>
  /** One of {@link State}. @internal */
  state: number = State.HANDSHAKE
  /** One of {@link Liveness}. @internal */
  liveness: number = Liveness.HEARD
  /** Until the handshake is over. @internal */
  opening: HeadParser | ClientHandshake | undefined = undefined
  /** The message that is not yet whole. @internal */
  incoming: Incoming | undefined = undefined
  /** @internal */
  deflate: DeflateState | undefined = undefined
  /** @internal */
  timer: SessionTimer | undefined = undefined
  /** @internal */
  agreed: Agreed = NOTHING_AGREED
  /** @internal */
  ending: Ending = NOT_CLOSED

  /** @internal */
  constructor(connection: ProtocolConnection<WebSocketOut, WebSocketSession>) {
    this.connection = connection
  }

  /** @internal */
  get owner(): WebSocketProtocol {
    return this.connection.protocol as WebSocketProtocol
  }

  /** `true` from `onConnect` until one side closes: messages can be sent. */
  get open(): boolean {
    return this.state === State.OPEN && this.connection.connected
  }

  /**
   * The opening request, parsed anew each time it is asked for, without the headers that only the handshake needed.
   * Throws `ERR_RINGLOOP_STATE` on a connection in the client role, which has none.
   */
  get request(): UpgradeRequest {
    const { head } = this.agreed
    if (head === '') throw new RingloopError(ErrorCode.STATE, 'there is no request on this connection')
    return UpgradeRequest.from(head)
  }

  /** The path that the client asked for, percent-encoded as sent. */
  get path(): string {
    return this.request.path
  }

  /** What came after the `?`, percent-encoded as sent; `''` without one. */
  get query(): string {
    return this.request.query
  }

  get headers(): HeaderMap {
    return this.request.headers
  }

  /** The page that a browser speaks for; other clients may send what they like. */
  get origin(): string | undefined {
    return this.request.origin
  }

  /** The subprotocol that both sides speak. */
  get protocol(): string | undefined {
    return this.agreed.protocol
  }

  /** Whether `permessage-deflate` was agreed on. */
  get compressed(): boolean {
    return this.deflate !== undefined
  }

  /** The code of the close frame that came or went first; 1005 if it had none, 1006 if there was no close frame. */
  get closeCode(): number {
    return this.ending.code
  }

  /** The text beside {@link closeCode}. */
  get closeReason(): string {
    return this.ending.reason
  }

  /** Sends a message with its kind and compression chosen; what is returned is as of `c.send`. */
  send(data: string | Uint8Array, options?: SendOptions): boolean {
    if (!this.open) return false
    return this.connection.send(options === undefined ? data : { ...options, data })
  }

  /** Sends a ping with at most 125 bytes of `data`. `false` when the WebSocket is not open. */
  ping(data: string | Uint8Array = ''): boolean {
    const payload = typeof data === 'string' ? Buffer.from(data) : data
    if (payload.length > MAX_CONTROL_PAYLOAD) {
      throw new RingloopError(ErrorCode.OPTION, `a ping takes at most ${MAX_CONTROL_PAYLOAD} bytes`)
    }
    return this.open && this.owner.sender.control(this.connection, Opcode.PING, payload)
  }

  /**
   * Begins the close handshake: sends what is unsent and a close frame, and waits at most `closeTimeout` for the peer's.
   * No message is handed over any more. `code` is 1000 or one from 3000 to 4999 (others of the RFC are allowed too);
   * `reason` takes at most 123 bytes of UTF-8. `c.close()` does the same with 1000 and does not wait.
   */
  close(code: number = CloseStatus.NORMAL, reason = ''): void {
    if (!isValidCloseCode(code))
      throw new RingloopError(ErrorCode.OPTION, `${code} is not a valid close code`)
    if (Buffer.byteLength(reason) > MAX_REASON) {
      throw new RingloopError(ErrorCode.OPTION, `the reason of a close takes at most ${MAX_REASON} bytes`)
    }
    this.owner.startClose(this, code, reason)
  }
}

/** The WebSocket side of a connection under a `WebSocketProtocol`. Throws `ERR_RINGLOOP_STATE` for any other. */
export function webSocketOf(c: Connection<never> | Connection<WebSocketOut> | Connection): WebSocketSession {
  const { session } = c as ProtocolConnection<never>
  if (session instanceof WebSocketSession) return session
  throw new RingloopError(ErrorCode.STATE, 'this connection does not speak WebSocket')
}
