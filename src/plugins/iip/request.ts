/** A request as handlers see it: the `ctx` of an IIP packet. It belongs to the loop's thread and is never reused. */
import type { Connection, ProtocolConnection } from '../../index.js'
import type { IipBody } from './body.js'
import type { ParsedPath } from './path.js'
import type { PathStatistics } from './router-statistics.js'
import type { ServerChannel, ServerSession } from './server-session.js'

/** What handlers may answer with. No bytes at all cannot be sent: the peer gets an error answer instead. */
export type IipOut = Uint8Array | string

export type IipConnection = Connection<IipOut>
/** The same, as the protocol sees it. */
export type IipProtocolConnection = ProtocolConnection<IipOut>

export class IipRequest {
  /** The whole body, the handler's own; empty for a streaming handler. */
  readonly data: Buffer
  /** The body of a request for a streaming handler, otherwise `undefined`. */
  readonly body: IipBody | undefined
  /** @internal */
  readonly session: ServerSession
  /** @internal */
  readonly route: ServerChannel
  /** @internal */
  readonly parsed: ParsedPath
  /** Packets and bytes that it came in. @internal */
  packets: number
  /** @internal */
  bytes: number
  /** A part of the answer has been sent. @internal */
  answering = false
  /** Counts it, and since when it runs; ms of `performance.now()`. @internal */
  statistics: PathStatistics | undefined = undefined
  /** @internal */
  startedAt = 0
  #values: Map<unknown, unknown> | undefined = undefined

  /** @internal */
  constructor(
    session: ServerSession,
    route: ServerChannel,
    parsed: ParsedPath,
    data: Buffer,
    body: IipBody | undefined,
    packets: number,
    bytes: number,
  ) {
    this.session = session
    this.route = route
    this.parsed = parsed
    this.data = data
    this.body = body
    this.packets = packets
    this.bytes = bytes
  }

  /** The decoded path, without query and fragment. */
  get path(): string {
    return this.parsed.path
  }

  /** The path as it came, with its query. */
  get rawPath(): string {
    return this.parsed.raw.toString()
  }

  /** The query, parsed anew each time. Pairs with a semicolon or a bad escape are left out, as in Go. */
  get query(): URLSearchParams {
    return this.parsed.query
  }

  /** The channel's id, unique within the connection. */
  get channel(): number {
    return this.route.id
  }

  get connection(): IipConnection {
    return this.session.connection
  }

  /** A value that middleware or handler kept with this request by {@link set}. */
  get(key: unknown): unknown {
    return this.#values?.get(key)
  }

  set(key: unknown, value: unknown): void {
    this.#values ??= new Map()
    this.#values.set(key, value)
  }
}
