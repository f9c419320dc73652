/**
 * The protocol seam: how bytes become packets and answers become bytes. One protocol object serves all connections of
 * a loop; what it must remember of one connection it keeps in `c.session`, of the type `Session`. Runs on the loop's thread only.
 */
import type { ProtocolConnection } from '../connection.js'
import type { CloseReason } from '../errors.js'
import type { RingBuffer } from '../ringbuffer/ring-buffer.js'

/** A cut packet. `unPacket` may return the same object each time: the loop has read it before it calls again. */
export interface Packet<Ctx = undefined> {
  /** Handed to `onMessage` and, with the answer, to `packet`. Never reused by the loop: make a new one if it is an object. */
  ctx: Ctx
  /** The handler's own bytes, unless the protocol says `borrow`. */
  data: Buffer
}

/** Bytes ready for the wire, in one piece or several. */
export type Packed = Uint8Array | readonly Uint8Array[]

/** Packs one message for each of many connections; `undefined` leaves one out. Parameters compare as those of methods do. */
export type BroadcastPacker<Out, Session> = {
  pack(c: ProtocolConnection<Out, Session>): Packed | undefined
}['pack']

/** Cuts packets out of a connection's bytes, and packs answers. */
export interface Protocol<Ctx = undefined, Out = Uint8Array | string, Session = unknown> {
  /**
   * Called while it returns packets; `undefined` says "not yet": it is called again when more bytes have come.
   * An empty packet is legal. It takes what it returns out of `buffer` (`retrieve`, `read`, …) and leaves the rest;
   * `buffer` is the loop's and must not be kept. The bytes in it are at most `maxReadBuffer` and one read (64 KiB).
   * It may answer by itself with `c.sendRaw`, and may `c.close()`. A {@link ProtocolError} thrown here closes the
   * connection with its message as the reason.
   */
  unPacket(c: ProtocolConnection<Out, Session>, buffer: RingBuffer): Packet<Ctx> | undefined

  /**
   * Makes the bytes of an answer (`ctx` is that of the packet being answered) or of a `send` (`ctx` absent).
   * The loop has copied or written the bytes when the call that needed them returns, so they may be reused.
   */
  packet(c: ProtocolConnection<Out, Session>, out: Out, ctx?: Ctx): Packed

  /**
   * Optional, the fast way for answers and sends: writes `out` straight behind what the loop has gathered, at
   * `target[offset…]`, and returns how many bytes it wrote, or -1 to be asked through {@link packet} instead (also when
   * fewer than the needed bytes are left in `target`).
   */
  packetInto?(
    c: ProtocolConnection<Out, Session>,
    out: Out,
    ctx: Ctx | undefined,
    target: Buffer,
    offset: number,
  ): number

  /**
   * Optional: the handler answered the packet of `ctx` with nothing, at once or by its promise. For a protocol in which
   * every packet needs an answer. Not called where `ctx` is `undefined`.
   */
  unanswered?(c: ProtocolConnection<Out, Session>, ctx: Ctx): void

  /**
   * Optional: called once per loop for a broadcast or a publication, returns what packs `out` for each connection (so that framing and
   * compression are done once), or `undefined` for a connection that is to be left out.
   */
  broadcast?(out: Out): BroadcastPacker<Out, Session>

  /**
   * Optional: bytes wait in `buffer` because a promise of `onMessage` is pending, or {@link ProtocolConnection.holdPackets}
   * was called, and more of them have come. They may be looked at, not taken: {@link unPacket} gets them in their turn. For
   * what cannot wait so long, as a ping. Not called while bytes are not read: after `pause`, and above 64 KiB.
   */
  lookAhead?(c: ProtocolConnection<Out, Session>, buffer: RingBuffer): void

  /** A connection was accepted or connected: make its `c.session` here. */
  onConnect?(c: ProtocolConnection<Out, Session>): void

  /** The write buffer fell below the low-water mark after it was above the high one; called before the handler's. */
  onDrain?(c: ProtocolConnection<Out, Session>): void

  /** The peer ended its side, or is gone: no more bytes will come. It is closed once what has come is answered. */
  onEnd?(c: ProtocolConnection<Out, Session>): void

  /**
   * Optional: the loop stops and gives its connections time to end (`stop({ drain })`); called once, for a connection whose
   * handshake is over. The peer can be told with `c.sendRaw`. `true`: the connection goes on, read and answered, until the
   * peer ends its side, somebody closes it, or the time is over. Otherwise it is read no more, and closes when what has
   * come is answered.
   */
  onDraining?(c: ProtocolConnection<Out, Session>): boolean

  /**
   * For one that pauses connections by itself, or waits long: the peer has ended its side, or is gone, behind bytes that are
   * not read now. They come when reading goes on, and {@link onEnd} behind them. It may be called again for the same end. Not
   * called with `allowHalfOpen`, and not by the net poller, which cannot tell.
   */
  onLeft?(c: ProtocolConnection<Out, Session>): void

  /**
   * This side is about to end the connection, by `close`, after an error, or because the server stops: a last word can
   * go out with `c.sendRaw`. Not a place to call `c.close`.
   */
  onClosing?(c: ProtocolConnection<Out, Session>, reason: CloseReason): void

  /** The connection ended; called before the handler's `onClose`, also where the handshake never ended. */
  onClose?(c: ProtocolConnection<Out, Session>, reason: CloseReason): void

  /** `true`: the handler's `onConnect` waits until the protocol calls `c.established()`. Default `false`. */
  readonly handshake?: boolean

  /** `true`: packets go on being handed over while earlier answers are pending. Default `false`. */
  readonly multiplexed?: boolean

  /**
   * `true`: a peer that has ended its side has left. What came before is handed over, and what is answered at once is
   * sent, but promises of `onMessage` and {@link ProtocolConnection.holdEnd} are not waited for: the connection ends with
   * `peer-closed`. Not where the option `allowHalfOpen` is set. Default `false`.
   */
  readonly endsWithPeer?: boolean

  /** `true`: `data` is a view of the loop's memory, valid until `onMessage` returns. Default `false`: a copy to keep. */
  readonly borrow?: boolean
  /**
   * It hands over nearly all bytes by `buffer.take`, in packets that may be small: what comes in is copied once for all of
   * them, and `take` gives views of that copy instead of a copy each. See `RingBuffer.attachCopy`.
   */
  readonly takesAll?: boolean
}
