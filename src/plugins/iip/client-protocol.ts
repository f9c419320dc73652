/**
 * The client's side of the protocol for the loop: each connection's session is a `ClientConnection`, and what it sends are
 * calls. One object serves all connections of a client. The loop's thread only.
 */
import type {
  CloseReason,
  Connection,
  Packed,
  Protocol,
  ProtocolConnection,
  RingBuffer,
} from '../../index.js'
import type { Call } from './client-call.js'
import { ClientConnection, type ClientLimits, COPY_BELOW, type Pool } from './client-connection.js'
import { MIN_HEADER, packets, putHeader, Status } from './frame.js'

export class ClientProtocol implements Protocol<undefined, Call> {
  readonly #limits: ClientLimits
  readonly #pool: Pool

  constructor(limits: ClientLimits, pool: Pool) {
    this.#limits = limits
    this.#pool = pool
  }

  onConnect(c: ProtocolConnection<Call>): void {
    c.session = new ClientConnection(c, this.#limits, this.#pool)
  }

  unPacket(c: ProtocolConnection<Call>, buffer: RingBuffer): undefined {
    connectionOf(c).read(buffer)
  }

  packetInto(
    _c: ProtocolConnection<Call>,
    call: Call,
    _ctx: undefined,
    target: Buffer,
    offset: number,
  ): number {
    const { path } = call
    const data = call.data as Uint8Array
    const size = path.length + MIN_HEADER - 1
    if (data.length > COPY_BELOW || size + data.length > target.length - offset) return -1
    const at = putHeader(target, offset, Status.REQUEST, path, call.channel!.id, data.length)
    target.set(data, at)
    return size + data.length
  }

  packet(_c: ProtocolConnection<Call>, call: Call): Packed {
    return packets(Status.REQUEST_FIRST, call.path, call.channel!.id, call.data as Uint8Array)
  }

  onClose(c: ProtocolConnection<Call>, reason: CloseReason): void {
    connectionOf(c).ended(reason)
  }
}

export function connectionOf(c: Connection<Call>): ClientConnection {
  return (c as ProtocolConnection<Call>).session as ClientConnection
}
