/**
 * WebSocket (RFC 6455, RFC 7692) as a `Protocol`: the opening handshake, then messages, then the closing handshake. One
 * object serves all connections of a loop in one role, server or client; what it knows of each is in its session.
 */
import type { BroadcastPacker, CloseReason, Packed, Packet, Protocol, RingBuffer } from '../../index.js'
import { Lifecycle } from './lifecycle.js'
import type { WebSocketContext, WebSocketOut } from './message.js'
import { type WebSocketOptions, webSocketSettings } from './options.js'
import { Receiver } from './receiver.js'
import { Sender } from './sender.js'
import { Liveness, type Session, State, type WebSocketConnection, type WebSocketSession } from './session.js'

const PEER_LEFT: CloseReason = { code: 'peer-closed', message: 'the client left before it was answered' }

export class WebSocketProtocol implements Protocol<WebSocketContext, WebSocketOut, WebSocketSession> {
  readonly handshake = true
  readonly takesAll = true
  /** There is no half of a WebSocket. */
  readonly endsWithPeer = true
  readonly #lifecycle: Lifecycle
  readonly #sender: Sender
  readonly #receiver: Receiver

  /** Throws `ERR_RINGLOOP_OPTION`. */
  constructor(options: WebSocketOptions = {}) {
    const settings = webSocketSettings(options)
    this.#sender = new Sender(settings)
    this.#receiver = new Receiver(settings, this.#sender)
    this.#lifecycle = new Lifecycle(settings, this.#sender)
  }

  onConnect(c: WebSocketConnection): void {
    this.#lifecycle.begin(c)
  }

  unPacket(c: WebSocketConnection, buffer: RingBuffer): Packet<WebSocketContext> | undefined {
    const session = c.session as Session
    session.liveness = Liveness.HEARD
    if (session.state < State.OPEN) this.#lifecycle.continueHandshake(c, session, buffer)
    if (session.state === State.OPEN || session.state === State.CLOSING) {
      return this.#receiver.next(c, session, buffer)
    }
    if (session.state === State.CLOSED) buffer.retrieveAll()
    return undefined
  }

  lookAhead(c: WebSocketConnection, buffer: RingBuffer): void {
    const session = c.session as Session
    session.liveness = Liveness.HEARD
    this.#receiver.lookAhead(session, buffer)
  }

  packet(c: WebSocketConnection, out: WebSocketOut, ctx?: WebSocketContext): Packed {
    return this.#sender.pack(c, c.session as Session, out, ctx)
  }

  packetInto(
    c: WebSocketConnection,
    out: WebSocketOut,
    ctx: WebSocketContext | undefined,
    target: Buffer,
    offset: number,
  ): number {
    return this.#sender.packInto(c.session as Session, out, ctx, target, offset)
  }

  broadcast(out: WebSocketOut): BroadcastPacker<WebSocketOut, WebSocketSession> {
    return this.#sender.broadcast(out)
  }

  onLeft(c: WebSocketConnection): void {
    if ((c.session as Session).state === State.DECIDING) c.close(PEER_LEFT)
  }

  onClosing(c: WebSocketConnection, reason: CloseReason): void {
    const session = c.session as Session | undefined
    if (session !== undefined) this.#lifecycle.handleClosing(c, session, reason)
  }

  onClose(c: WebSocketConnection): void {
    const session = c.session as Session | undefined
    if (session !== undefined) this.#lifecycle.handleClose(session)
  }
}
