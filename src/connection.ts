/**
 * What a handler may do with a connection, and what a protocol may do beside: interfaces only. One class implements
 * both, `connection/tcp-connection.ts`. Every member is to be used on the thread of the loop that owns the connection.
 */
import type { CloseCode, CloseReason } from './errors.js'
import type { BroadcastOptions, BroadcastResult, Loop } from './loop.js'
import type { BroadcastPacker, Packed } from './protocol/protocol.js'
import type { TlsInfo } from './tls-info.js'

/** Called once: without an error when the bytes are in the kernel, with one when they never will be. */
export type OnSent = (error?: Error) => void

/**
 * One connection, as its handler sees it. `Out` is what the protocol can pack, `State` what {@link Connection.context}
 * holds, `Data` what the option `data` holds, which is `c.loop.data`.
 */
export interface Connection<Out = Uint8Array | string, State = unknown, Data = unknown> {
  /** Unique within its loop. */
  readonly id: number

  /** Yours to use; ringloop never touches it. `undefined` until you set it. */
  context: State

  /** The loop that owns this connection. */
  readonly loop: Loop<Data>

  /** `true` from `onConnect` (or the handshake's begin) until it is closed by either side. */
  readonly connected: boolean

  /** The peer as `host:port` (`[host]:port` for IPv6); `''` for a unix socket. Can still be read after the close. */
  readonly peerAddr: string

  /** This side's address, written as {@link peerAddr}; `''` after the close if it was not read before. */
  readonly localAddr: string

  /**
   * What TLS has agreed on, and who the peer has shown to be; `undefined` where the connection speaks no TLS, and after the
   * close if it was not read before. Made when it is first read, and kept.
   */
  readonly tls: TlsInfo | undefined

  /** A value kept under `key` by {@link set}. */
  get(key: unknown): unknown
  set(key: unknown, value: unknown): void
  delete(key: unknown): boolean

  /** Bytes that have come in and wait for the rest of their packet, or for the handler. */
  readonly readBufferLength: number

  /** Bytes that are to be sent and that the kernel has not taken yet. */
  readonly writeBufferLength: number

  /** Milliseconds without a byte in or out after which it is closed; 0 is never. Starts with the server's `idleTime`. */
  idleTime: number

  /** Milliseconds since a byte last went in or out, by the loop's clock. */
  readonly idleFor: number

  /**
   * Packs `out` with the protocol and sends it. The bytes are copied or written before this returns: they are the
   * caller's again. `false` when the write buffer is above the high-water mark (it is sent all the same; stop until
   * `onDrain`), or when the connection is closed (it is not sent). `onSent` is called exactly once, later. What the
   * protocol throws for an `out` that it cannot pack is thrown to the caller.
   */
  send(out: Out, onSent?: OnSent): boolean

  /**
   * Sends `out`, where there is one, and then ends this side: {@link shutdownWrite}. The peer may go on sending; with
   * both sides ended the connection closes. Returns what {@link send} returns.
   */
  end(out?: Out, onSent?: OnSent): boolean

  /**
   * Sends what is unsent, then closes. No packet is handed over any more; `onClose` follows, never from within this
   * call. The reason is what `onClose` gets, by default `closed`; of an Error it is made: `protocol-error` of a
   * `ProtocolError`, `handler-error` of any other. Throws `ERR_RINGLOOP_OPTION` for a code that there is not.
   */
  close(reason?: CloseReason | CloseCode | Error): void

  /** Sends what is unsent and then ends this side; the peer may go on sending. `send` returns `false` from now on. */
  shutdownWrite(): void

  /** Stops reading and handing over packets until {@link resume}; the peer is held back once the kernel's buffer is full. */
  pause(): void

  /** Undoes {@link pause}. Packets that wait are handed over soon, not from within this call. */
  resume(): void

  /** `true` from {@link pause} to {@link resume}. */
  readonly paused: boolean

  /**
   * Resolves to `true` once the write buffer is not above its mark, to `false` when nothing can be sent any more. Where
   * the loop has been kept busy for a while that is in its next round, so that `while (await c.drained()) c.send(…)`
   * lets the others have their turn.
   */
  drained(): Promise<boolean>

  /**
   * From now on it gets what is published to `topic`, an exact name: 1 to 255 bytes in UTF-8, without control characters;
   * for another `ERR_RINGLOOP_TOPIC` is thrown. `true` the first time; `false` when it is subscribed already, or when
   * nothing can be sent to it (any more). It leaves all its topics when its close begins.
   */
  subscribe(topic: string): boolean
  /**
   * The same, and resolves once everything is there that was published, on whichever machine: with `since`, where the topic has
   * history, everything kept after that is sent first. Rejects only where it cannot be packed. Throws `ERR_RINGLOOP_OPTION` too.
   */
  subscribe(topic: string, options: SubscribeOptions): Promise<Subscription>

  /** Ends a {@link subscribe}; `false` when it was not subscribed. Throws `ERR_RINGLOOP_TOPIC`. */
  unsubscribe(topic: string): boolean

  /** What it is subscribed to, as it changes; in `onClose` what it was subscribed to, afterwards nothing. */
  readonly topics: ReadonlySet<string>

  /** As {@link Loop.publish}, to every subscriber but this connection. Also in `onClose`. */
  publish(topic: string, out: Out, options?: BroadcastOptions): Promise<BroadcastResult>
}

export interface SubscribeOptions {
  /** Where it was before: a {@link Subscription.position | position}, or one that `Handler.withPosition` was given. */
  readonly since?: string | undefined
}

/** What came of a `subscribe` with options. */
export interface Subscription {
  /** `false`: it was subscribed already, or nothing can be sent to it; then nothing was done. */
  readonly isNew: boolean
  /**
   * Nothing is missing: what was published after `since` was sent, or there was no `since`, and what is published from now on
   * comes. `false` where the topic has no history, it does not reach back so far, or the broker is away.
   */
  readonly recovered: boolean
  /** Of a topic with history: where it stood. */
  readonly position: string | undefined
}

/** A connection as its protocol sees it. `Session` is what the protocol remembers of it. */
export interface ProtocolConnection<Out = Uint8Array | string, Session = unknown> extends Connection<Out> {
  /** The protocol's own state of this connection; `undefined` until it sets it. Handlers do not see it. */
  session: Session

  /** The protocol object that serves it. */
  readonly protocol: object

  /** Like {@link send}, for bytes that are as the wire wants them. */
  sendRaw(bytes: Packed, onSent?: OnSent): boolean

  /**
   * Like {@link sendRaw}, for bytes that depend on what went out before: `pack` is called at most once, within this call,
   * when nothing is left that goes out before them, such as a publication of this turn. It must not send; `undefined` sends
   * nothing. What it makes may be reused when this returns. `false` where nothing was sent, also since nothing can be.
   */
  sendPacked(pack: BroadcastPacker<Out, Session>): boolean

  /** As {@link close}, without sending what is unsent: for a peer that does not take it. */
  abort(reason?: CloseReason | CloseCode | Error): void

  /**
   * `true`: however the connection ends, what is unsent is dropped and its peer sees a reset. For bytes that are whole only
   * where the connection ends, for as long as some of them are missing. Over a unix socket, which has no reset, it ends as
   * ever, and so does what `connect` made with TLS. Default `false`.
   */
  endsWithReset: boolean

  /** For a protocol with `handshake`: the handshake is over, the handler gets its `onConnect`. Once only. */
  established(): void

  /**
   * `unPacket` is not called again until {@link releasePackets}, as while a promise of `onMessage` is pending; nor does
   * the connection end because the peer has ended its side. Calls count.
   */
  holdPackets(): void

  /**
   * Ends a {@link holdPackets}, once for each. `unPacket` is called again even where no byte waits, soon when this is
   * called while packets are being handed over.
   */
  releasePackets(): void

  /** The connection does not end because the peer has ended its side, until {@link releaseEnd}. Calls count. */
  holdEnd(): void

  /** Ends a {@link holdEnd}, once for each. */
  releaseEnd(): void

  /**
   * What comes in from now on begins with a WebSocket frame (RFC 6455, section 5): where it can, the poller takes the masks
   * off while it reads, so that payloads are plain and keys zero. To be called when every byte that has come was taken. It
   * only saves time, and ends at a frame whose header comes in pieces.
   */
  unmaskFrames(): void

  /**
   * `unPacket` is not called again in this turn of the loop: for a protocol that has done something costly and has
   * more to do. The other connections have their turn, then it is called again even where no byte waits.
   */
  yield(): void
}
