/**
 * The server's side of one connection: its channels, the requests that are being put together, and those that wait for
 * their turn on a channel. Everything that a peer can make it hold is counted in `#held` and bounded. The loop's thread
 * only.
 *
 *     ring ─▶ FrameReader ─▶ channel ─▶ Assembly or ByteStream ─▶ idle? handed over : channel.queue ─▶ handed over later
 */
import Denque from 'denque'
import {
  allocateBuffer,
  type ByteSource,
  ByteStream,
  type CloseReason,
  ErrorCode,
  ProtocolError,
  type RingBuffer,
  RingloopError,
  type Timer,
} from '../../index.js'
import { Assembly } from './assembly.js'
import { DRAINING, goJson, NO_HANDLER, TOO_MANY_CHANNELS } from './errors.js'
import { checkOrder, FIRST, FrameReader, LAST, ONLY, packets, Status } from './frame.js'
import type { HeldBytes, Holder } from './held-bytes.js'
import { type ParsedPath, type PathCache, SysPath } from './path.js'
import { type IipProtocolConnection, ServerRequest } from './request.js'
import { Count } from './statistics.js'

/** Up to this size a request in one packet waits in the ring until it is whole. */
const WHOLE_UP_TO = 16 * 1024
/** What a waiting request takes besides its data, roughly. */
const REQUEST_COST = 256
/** On memory that no handler can transfer away from the others. */
const NO_DATA: Buffer = allocateBuffer(0)

/** What a session is held to; see `IipProtocolOptions`. */
export interface SessionLimits {
  readonly maxChannelsPerConn: number
  readonly maxRequestBytes: number
  readonly maxHeldBytes: number
  readonly requestTimeout: number
  /** What all connections of the loop hold. */
  readonly held: HeldBytes
}

/** Says whether requests for a path are streamed, and of how many bytes at most; `undefined`: they are not. */
export type StreamLimit = (path: string) => number | undefined

/** A request that has begun and not ended. */
class Unfinished {
  readonly parsed: ParsedPath
  /** One of the two takes the bytes. */
  readonly assembly: Assembly | undefined
  readonly body: ByteStream | undefined
  readonly limit: number
  request: ServerRequest | undefined = undefined
  length = 0
  packets = 0
  bytes = 0
  /** It has grown since the timer last looked. */
  grown = true

  constructor(parsed: ParsedPath, body: ByteStream | undefined, limit: number) {
    this.parsed = parsed
    this.body = body
    this.assembly = body === undefined ? new Assembly() : undefined
    this.limit = limit
  }
}

export class ServerChannel {
  readonly id: number
  readonly count: Count = new Count()
  /** The request that was handed over and is not answered. */
  current: ServerRequest | undefined = undefined
  closed = false
  /** Requests that wait for their turn; made when the first one does. */
  queue: Denque<ServerRequest> | undefined = undefined
  unfinished: Unfinished | undefined = undefined

  constructor(id: number) {
    this.id = id
  }

  /** Requests that wait for their turn. */
  get waiting(): number {
    return this.queue === undefined ? 0 : this.queue.length
  }
}

export class ServerSession implements ByteSource, Holder {
  readonly connection: IipProtocolConnection
  /** Set by a router before the first packet. */
  streams: StreamLimit | undefined = undefined
  /** Of channels that were deleted. */
  readonly #past = new Count()
  readonly #limits: SessionLimits
  readonly #paths: PathCache
  readonly #reader = new FrameReader(Status.REQUEST_FIRST, this)
  readonly #channels: (ServerChannel | undefined)[] = [new ServerChannel(0)]
  #open = 1
  /** Requests whose channel was deleted, and whose handlers go on. */
  #cancelled = 0
  readonly #freeIds: number[] = []
  /** Channels whose next request can be handed over. */
  readonly #ready: ServerChannel[] = []
  /** Whoever waits to hear that the server drains; no handler has it. */
  #notice: ServerRequest | undefined = undefined
  #draining = false
  /** Set once the peer is known to have ended its side. */
  #ended: RingloopError | undefined = undefined
  /** Requests that have begun and not ended. */
  #unfinished = 0
  /** The packet whose data is coming in, and how much is missing. */
  #filling: ServerChannel | undefined = undefined
  #missing = 0
  #fillingLast = false
  #fillingOnly = false
  /** Bytes of unfinished requests; of waiting and unanswered requests and unread bodies. */
  #held = 0
  #waiting = 0
  #paused = false
  #woken = false
  #timer: Timer | undefined = undefined
  /** Calls of `next` and parts of answers; how many there were when the timer last looked. */
  #steps = 0
  #stepsSeen = 0
  #incomplete = false
  readonly #packet: { ctx: ServerRequest; data: Buffer } = { ctx: undefined as never, data: NO_DATA }
  readonly #awake = (): void => {
    this.#woken = false
    this.connection.releasePackets()
  }

  constructor(connection: IipProtocolConnection, limits: SessionLimits, paths: PathCache) {
    this.connection = connection
    this.#limits = limits
    this.#paths = paths
  }

  isOpen(channel: number): boolean {
    return this.#channels[channel] !== undefined
  }

  get channels(): ServerChannel[] {
    return this.#channels.filter((channel) => channel !== undefined)
  }

  /** Of the whole connection. */
  get count(): Count {
    const sum = new Count()
    sum.add(this.#past)
    for (const channel of this.channels) sum.add(channel.count)
    return sum
  }

  /** The next request that can be handled now, or `undefined`. */
  next(ring: RingBuffer): { ctx: ServerRequest; data: Buffer } | undefined {
    this.#steps++
    for (let channel = this.#ready.shift(); channel !== undefined; channel = this.#ready.shift()) {
      const request = this.#startNext(channel)
      if (request !== undefined) return this.#handOver(request)
    }
    for (;;) {
      if (this.heldBytes > this.#limits.maxHeldBytes && this.#isFull()) return undefined
      if (this.#limits.held.refuses(this)) return undefined
      const request = this.#filling === undefined ? this.#readPacket(ring) : this.#fill(this.#filling, ring)
      if (request !== undefined) return this.#handOver(request)
      if (this.#incomplete) {
        if (ring.length > 0 || this.#filling !== undefined || this.#unfinished > 0) this.#watch()
        return undefined
      }
    }
  }

  #handOver(request: ServerRequest): { ctx: ServerRequest; data: Buffer } {
    this.#packet.ctx = request
    this.#packet.data = request.data
    return this.#packet
  }

  /** Reading stops while something that waits can be handled; where nothing can be, the peer asks too much. */
  #isFull(): boolean {
    if (this.#waiting === 0) {
      throw new ProtocolError(`unfinished requests take more than ${this.#limits.maxHeldBytes} bytes`)
    }
    this.pauseReading()
    return true
  }

  get unfinishedBytes(): number {
    return this.#held
  }

  get heldBytes(): number {
    return this.#held + this.#waiting
  }

  #addUnfinished(bytes: number): void {
    this.#held += bytes
    this.#limits.held.addUnfinished(this, bytes)
  }

  #addWaiting(bytes: number): void {
    this.#waiting += bytes
    this.#limits.held.addWaiting(bytes)
  }

  pauseReading(): void {
    this.#paused = true
    this.connection.pause()
    this.#watch()
  }

  resumeReading(): void {
    if (!this.#paused) return
    this.#paused = false
    this.connection.resume()
  }

  giveUp(reason: CloseReason): void {
    this.connection.close(reason)
    this.close(new RingloopError(ErrorCode.CLOSED, reason.message))
  }

  /** One packet, or its header and what is there of its data. Sets `#incomplete` where bytes are missing. */
  #readPacket(ring: RingBuffer): ServerRequest | undefined {
    const reader = this.#reader
    this.#incomplete = !reader.read(ring)
    if (this.#incomplete) return undefined
    const channel = this.#channels[reader.channel]!
    const { kind, length } = reader
    const parsed = this.#paths.find(ring.storage, reader.pathStart, reader.pathEnd)
    const isDelete = parsed.sys === SysPath.DELETE_CHANNEL && length <= WHOLE_UP_TO
    checkOrder(kind, channel.unfinished !== undefined && !(isDelete && kind === ONLY), channel.id)
    const whole = ring.length >= reader.size + length
    if (kind === ONLY && !whole && length <= WHOLE_UP_TO && length <= this.#limits.maxRequestBytes) {
      this.#incomplete = true
      return undefined
    }
    if (parsed.path === '') throw new ProtocolError('nothing is left of a path that was parsed')
    const streamLimit = this.streams?.(parsed.path)
    if (kind === ONLY && whole && streamLimit === undefined && length <= this.#limits.maxRequestBytes) {
      const { size } = reader
      ring.retrieve(size)
      return this.#accept(
        channel,
        new ServerRequest(this, channel, parsed, ring.take(length), undefined, 1, size + length),
      )
    }
    return this.#beginPacket(channel, parsed, streamLimit, ring)
  }

  #beginPacket(
    channel: ServerChannel,
    parsed: ParsedPath,
    streamLimit: number | undefined,
    ring: RingBuffer,
  ): ServerRequest | undefined {
    const { kind, length, size } = this.#reader
    const begins = kind === ONLY || kind === FIRST
    const unfinished = begins ? this.#begin(channel, parsed, streamLimit) : channel.unfinished!
    unfinished.length += length
    unfinished.packets++
    unfinished.bytes += size + length
    if (unfinished.length > unfinished.limit) {
      throw new ProtocolError(`a request is longer than ${unfinished.limit} bytes`)
    }
    ring.retrieve(size)
    this.#filling = channel
    this.#missing = length
    this.#fillingOnly = kind === ONLY
    this.#fillingLast = kind === ONLY || kind === LAST
    return begins && unfinished.request !== undefined ? this.#accept(channel, unfinished.request) : undefined
  }

  #begin(channel: ServerChannel, parsed: ParsedPath, streamLimit: number | undefined): Unfinished {
    const body = streamLimit === undefined ? undefined : new ByteStream(this, Number.POSITIVE_INFINITY)
    const unfinished = new Unfinished(parsed, body, streamLimit ?? this.#limits.maxRequestBytes)
    channel.unfinished = unfinished
    this.#unfinished++
    if (body !== undefined) {
      unfinished.request = new ServerRequest(this, channel, parsed, NO_DATA, body, 0, 0)
    }
    return unfinished
  }

  /** Moves what is there of the packet's data; the request, if that was the last of it. */
  #fill(channel: ServerChannel, ring: RingBuffer): ServerRequest | undefined {
    const unfinished = channel.unfinished!
    const count = Math.min(ring.length, this.#missing)
    this.#missing -= count
    this.#incomplete = this.#missing > 0
    if (count > 0) this.#move(unfinished, ring, count)
    if (this.#incomplete) return undefined
    this.#filling = undefined
    return this.#fillingLast ? this.#finish(channel, unfinished) : undefined
  }

  #move(unfinished: Unfinished, ring: RingBuffer, count: number): void {
    const { assembly, body } = unfinished
    unfinished.grown = true
    if (assembly !== undefined) {
      const before = assembly.capacity
      assembly.append(ring, count, this.#missing, this.#fillingOnly)
      this.#addUnfinished(assembly.capacity - before)
    } else {
      this.#addWaiting(body!.write(ring, count))
    }
  }

  #finish(channel: ServerChannel, unfinished: Unfinished): ServerRequest | undefined {
    channel.unfinished = undefined
    this.#unfinished--
    const { assembly, body, parsed, request } = unfinished
    if (request !== undefined) {
      request.packets = unfinished.packets
      request.bytes = unfinished.bytes
      this.#countReceived(request)
      body!.end()
      return undefined
    }
    this.#addUnfinished(-assembly!.capacity)
    const data = assembly!.take()
    const { packets: count, bytes } = unfinished
    return this.#accept(channel, new ServerRequest(this, channel, parsed, data, undefined, count, bytes))
  }

  /** A request is there: it starts if its channel is idle, otherwise it waits for its turn. */
  #accept(channel: ServerChannel, request: ServerRequest): ServerRequest | undefined {
    if (request.body === undefined) this.#countReceived(request)
    if (request.parsed.sys === SysPath.DELETE_CHANNEL) {
      this.#deleteChannel(channel)
      return undefined
    }
    if (channel.current === undefined && channel.waiting === 0) return this.#start(channel, request)
    channel.queue ??= new Denque()
    channel.queue.push(request)
    this.#addWaiting(request.data.length + REQUEST_COST)
    return undefined
  }

  #countReceived(request: ServerRequest): void {
    request.serverChannel.count.received(request.packets, request.bytes)
    request.statistics?.count.received(request.packets, request.bytes)
  }

  #startNext(channel: ServerChannel): ServerRequest | undefined {
    while (channel.current === undefined && !channel.closed) {
      const request = channel.queue?.shift()
      if (request === undefined) return undefined
      this.#addWaiting(-(request.data.length + REQUEST_COST))
      const started = this.#start(channel, request)
      if (started !== undefined) return started
    }
    return undefined
  }

  /** Hands it to the loop, or does what it asks of the protocol itself. */
  #start(channel: ServerChannel, request: ServerRequest): ServerRequest | undefined {
    const { sys } = request.parsed
    if (sys === SysPath.NEW_CHANNEL) {
      this.#answerSystem(channel, request, this.#newChannel())
      return undefined
    }
    if (sys === SysPath.DRAIN && (this.#draining || this.#notice !== undefined)) {
      this.#answerSystem(channel, request, this.#draining ? DRAINING : NO_HANDLER)
      return undefined
    }
    channel.current = request
    this.#addWaiting(request.data.length)
    if (sys === SysPath.DRAIN) {
      this.#notice = request
      return undefined
    }
    if (this.#ended !== undefined) request.abandon(this.#ended)
    return request
  }

  /** The server begins to drain. `true`: the peer has been told, and ends the connection when it has its answers. */
  drain(): boolean {
    const notice = this.#notice
    this.#draining = true
    this.#notice = undefined
    if (notice === undefined) return false
    this.#answerSystem(notice.serverChannel, notice, DRAINING)
    this.#free(notice)
    return true
  }

  #answerSystem(channel: ServerChannel, request: ServerRequest, data: Buffer): void {
    const parts = packets(Status.RESPONSE_FIRST, request.parsed.answer, channel.id, data)
    channel.count.sent(1, parts[0]!.length + data.length, 1)
    this.connection.sendRaw(parts)
  }

  /** Go's clients count by themselves: ids must be 1, 2, 3 … and free ones first. */
  #newChannel(): Buffer {
    const noticeChannels = this.#notice === undefined ? 0 : 1
    const used = this.#open + this.#cancelled - noticeChannels
    if (used > this.#limits.maxChannelsPerConn) return TOO_MANY_CHANNELS
    const id = this.#freeIds.pop() ?? this.#channels.length
    this.#channels[id] = new ServerChannel(id)
    this.#open++
    return Buffer.from(goJson(id === 0 ? { code: 0 } : { code: 0, channel_id: id }))
  }

  /** At once, whatever is pending on it, and never answered, as in Go: what it would be answered on is gone. */
  #deleteChannel(channel: ServerChannel): void {
    const reason = new RingloopError(ErrorCode.CLOSED, 'the channel was deleted')
    channel.closed = true
    for (const request of channel.queue?.toArray() ?? []) {
      this.#addWaiting(-(request.data.length + REQUEST_COST))
      request.body?.fail(reason)
    }
    channel.queue = undefined
    const { current, unfinished } = channel
    if (unfinished !== undefined) this.#abandon(unfinished, reason)
    if (current !== undefined) this.#cancel(current, reason)
    this.#channels[channel.id] = undefined
    this.#freeIds.push(channel.id)
    this.#open--
    this.#past.add(channel.count)
  }

  #cancel(request: ServerRequest, reason: RingloopError): void {
    if (request === this.#notice) {
      this.#notice = undefined
      this.#release(request)
      return
    }
    this.#cancelled++
    request.cancel(reason)
  }

  #abandon(unfinished: Unfinished, reason: RingloopError): void {
    this.#unfinished--
    if (unfinished.assembly !== undefined) this.#addUnfinished(-unfinished.assembly.capacity)
    else unfinished.body!.fail(reason)
  }

  /** Its handler is done: the channel's next request has its turn, soon and not from within this call. */
  answered(request: ServerRequest, sentPackets: number, sentBytes: number): void {
    request.serverChannel.count.sent(sentPackets, sentBytes, 1)
    request.statistics?.answered(request, sentPackets, sentBytes)
    this.#free(request)
  }

  #free(request: ServerRequest): void {
    const channel = request.serverChannel
    channel.current = undefined
    this.#release(request)
    if (channel.waiting > 0) {
      this.#ready.push(channel)
      this.#wake()
    }
  }

  /** The handler of a request that was cancelled is done. */
  forgotten(request: ServerRequest): void {
    this.#cancelled--
    this.#release(request)
  }

  #release(request: ServerRequest): void {
    this.#addWaiting(-request.data.length)
    request.body?.discard()
    this.resumeReading()
  }

  #wake(): void {
    if (this.#woken) return
    this.#woken = true
    this.connection.holdPackets()
    this.connection.loop.queueInLoop(this.#awake)
  }

  /** Bytes of a body were read or dropped. What was left at the end is counted no more. */
  taken(bytes: number): void {
    if (!this.connection.connected) return
    this.#addWaiting(-bytes)
    this.resumeReading()
  }

  /** Sends a part of an answer that is not its last. `false`: wait for `connection.drained()`. */
  sendPart(request: ServerRequest, data: Uint8Array): boolean {
    const { serverChannel, parsed } = request
    const parts = packets(
      Status.RESPONSE_FIRST,
      parsed.answer,
      serverChannel.id,
      data,
      !request.answering,
      false,
    )
    request.answering = true
    this.#steps++
    let bytes = 0
    for (const part of parts) bytes += part.length
    serverChannel.count.sent(parts.length / 2, bytes, 0)
    request.statistics?.count.sent(parts.length / 2, bytes, 0)
    return this.connection.sendRaw(parts)
  }

  /** Something is unfinished, or held back: it must go on within `requestTimeout`. */
  #watch(): void {
    if (this.#timer?.active === true || this.#limits.requestTimeout === 0) return
    this.#stepsSeen = this.#steps
    if (this.#timer !== undefined) this.#timer.restart()
    else this.#timer = this.connection.loop.runAfter(this.#limits.requestTimeout, () => this.#checkProgress())
  }

  #checkProgress(): void {
    const { connection } = this
    if (!connection.connected) return
    const isStill = this.#steps === this.#stepsSeen
    // Then it is not the peer who keeps the rest.
    const isHeld = this.#paused || connection.writeBufferLength > 0
    const isStalled = this.#hasStalled(isHeld) || (isStill && this.#isWithinPacket)
    if (isStalled && !isHeld) {
      connection.close({
        code: 'protocol-error',
        message: `a request did not go on within ${this.#limits.requestTimeout} ms`,
      })
      return
    }
    if (isStill && this.#paused) this.#makeRoom()
    if (this.#paused || this.#unfinished > 0 || this.#isWithinPacket) this.#watch()
  }

  get #isWithinPacket(): boolean {
    return this.#filling !== undefined || this.connection.readBufferLength > 0
  }

  /** An unfinished request has not grown since the last look. */
  #hasStalled(isHeld: boolean): boolean {
    let hasStalled = false
    for (const { unfinished } of this.channels) {
      if (unfinished === undefined) continue
      if (!unfinished.grown) hasStalled = true
      unfinished.grown = isHeld
    }
    return hasStalled
  }

  /** Handlers made no room in all this time: who holds the most goes, so that the others go on. */
  #makeRoom(): void {
    const { held, maxHeldBytes, requestTimeout } = this.#limits
    const message = `requests were held back for ${requestTimeout} ms, and handlers made no room`
    if (this.heldBytes > maxHeldBytes) this.#makeWay(message)
    while (held.holdsBack(this)) this.#largest().#makeWay(message)
  }

  #makeWay(message: string): void {
    const { connection, heldBytes } = this
    connection.loop.logger.warn({ peer: connection.peerAddr, heldBytes }, `closed: ${message}`)
    this.giveUp({ code: 'closed', message })
  }

  /** Of those that share the limit with it. */
  #largest(): ServerSession {
    let largest: ServerSession = this
    for (const each of this.connection.loop.connections) {
      const { session } = each as unknown as IipProtocolConnection
      if (!(session instanceof ServerSession) || session.#limits !== this.#limits) continue
      if (session.heldBytes > largest.heldBytes) largest = session
    }
    return largest
  }

  /** The peer sends no more: what is unfinished stays so. */
  end(): void {
    this.#failBodies(new ProtocolError('the peer ended before its request did'))
    this.left()
  }

  /** Nobody may be there for the answers; what the peer has sent before is still read. */
  left(): void {
    this.#ended ??= new RingloopError(ErrorCode.CLOSED, 'the peer has ended its side')
    for (const { current } of this.channels) current?.abandon(this.#ended)
  }

  /** The connection ended: handlers and who reads a body are told. */
  close(reason: RingloopError): void {
    this.#timer?.stop()
    this.#abandonAll(reason)
    for (const channel of this.channels) {
      channel.current?.cancel(reason)
      channel.queue = undefined
    }
    this.#ready.length = 0
    this.#limits.held.remove(this)
    this.#addWaiting(-this.#waiting)
  }

  /** Nothing of what is unfinished will be finished. */
  #abandonAll(reason: RingloopError): void {
    this.#filling = undefined
    for (const channel of this.channels) {
      if (channel.unfinished !== undefined) this.#abandon(channel.unfinished, reason)
      channel.unfinished = undefined
    }
  }

  #failBodies(error: Error): void {
    for (const { unfinished } of this.channels) unfinished?.body?.fail(error)
  }
}
