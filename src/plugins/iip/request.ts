/** A request as handlers see it: the `ctx` of an IIP packet. It belongs to the loop's thread and is never reused. */
import type { ByteStream, Connection, ProtocolConnection, RingloopError } from '../../index.js'
import type { IipBody } from './body.js'
import type { ParsedPath } from './path.js'
import type { PathStatistics } from './router-statistics.js'
import type { ServerChannel, ServerSession } from './server-session.js'

/** What handlers may answer with. No bytes at all cannot be sent: the peer gets an error answer instead. */
export type IipOut = Uint8Array | string

export type IipConnection = Connection<IipOut>
/** The same, as the protocol sees it. */
export type IipProtocolConnection = ProtocolConnection<IipOut>

export interface IipRequest {
  /** The whole body, the handler's own; empty for a streaming handler. */
  readonly data: Buffer
  /** The body of a request for a streaming handler, otherwise `undefined`. */
  readonly body: IipBody | undefined
  /** The decoded path, without query and fragment. */
  readonly path: string
  /** The path as it came, with its query. */
  readonly rawPath: string
  /** The query, parsed anew each time. Pairs with a semicolon or a bad escape are left out, as in Go. */
  readonly query: URLSearchParams
  /** The channel's id, unique within the connection. */
  readonly channel: number
  readonly connection: IipConnection
  /**
   * Aborted when nobody waits for the answer any more: the channel was deleted, the connection ended, or the peer has ended
   * its side (an answer that comes all the same is then still sent). Not where a client gives up a plain request, by
   * its timeout or its own signal: channel and connection stay. The reason is an error with `ERR_RINGLOOP_CLOSED`.
   * Made when it is first asked for.
   */
  readonly signal: AbortSignal
  get(key: unknown): unknown
  set(key: unknown, value: unknown): void
}

/** The request as the protocol and the router see it. */
export class ServerRequest implements IipRequest {
  readonly data: Buffer
  readonly body: ByteStream | undefined
  readonly session: ServerSession
  readonly serverChannel: ServerChannel
  readonly parsed: ParsedPath
  /** Packets and bytes that it came in. */
  packets: number
  bytes: number
  /** A part of the answer has been sent. */
  answering = false
  /** Nothing is sent for it any more: its channel or its connection is gone. */
  cancelled = false
  /** What its answer is streamed from. */
  source: AsyncIterator<IipOut> | undefined = undefined
  /** Counts it, and since when it runs; ms of `performance.now()`. */
  statistics: PathStatistics | undefined = undefined
  startedAt = 0
  #values: Map<unknown, unknown> | undefined = undefined
  #abort: AbortController | undefined = undefined

  constructor(
    session: ServerSession,
    serverChannel: ServerChannel,
    parsed: ParsedPath,
    data: Buffer,
    body: ByteStream | undefined,
    packets: number,
    bytes: number,
  ) {
    this.session = session
    this.serverChannel = serverChannel
    this.parsed = parsed
    this.data = data
    this.body = body
    this.packets = packets
    this.bytes = bytes
  }

  get path(): string {
    return this.parsed.path
  }

  get rawPath(): string {
    return this.parsed.raw.toString()
  }

  get query(): URLSearchParams {
    return this.parsed.query
  }

  get channel(): number {
    return this.serverChannel.id
  }

  get connection(): IipConnection {
    return this.session.connection
  }

  get signal(): AbortSignal {
    this.#abort ??= new AbortController()
    return this.#abort.signal
  }

  /** `error` is what came of the abort, as far as can be seen. */
  gaveUp(error: unknown): boolean {
    const signal = this.#abort?.signal
    if (signal?.aborted !== true) return false
    return error === signal.reason || (error instanceof Error && error.name === 'AbortError')
  }

  abandon(reason: RingloopError): void {
    this.#abort ??= new AbortController()
    this.#abort.abort(reason)
  }

  /** {@link abandon}, and whatever the answer is streamed from ends. */
  cancel(reason: RingloopError): void {
    if (this.cancelled) return
    this.cancelled = true
    this.abandon(reason)
    if (this.source !== undefined) void this.#end(this.source)
  }

  async #end(source: AsyncIterator<IipOut>): Promise<void> {
    try {
      await source.return?.()
    } catch (err) {
      this.connection.loop.logger.debug({ err, path: this.path }, 'the end of an IIP stream failed')
    }
  }

  get(key: unknown): unknown {
    return this.#values?.get(key)
  }

  set(key: unknown, value: unknown): void {
    this.#values ??= new Map()
    this.#values.set(key, value)
  }
}
