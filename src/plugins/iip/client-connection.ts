/**
 * The client's side of one connection: its channels, and for each the calls that were sent and wait for their answers,
 * which come in the same order. Its connection is closed by a server that breaks the protocol. The loop's thread only.
 */
import {
  type ByteSource,
  type CloseReason,
  ErrorCode,
  type ProtocolConnection,
  type RingBuffer,
  RingloopError,
  type Timer,
} from '../../index.js'
import { Call } from './client-call.js'
import { ClientChannel } from './client-channel.js'
import { type Drainable, DrainWatch } from './drain-watch.js'
import { beginsAsError, IipError, IipErrorCode, MAX_ERROR_BYTES, remoteError } from './errors.js'
import { checkOrder, FIRST, FrameReader, framePath, LAST, MAX_DATA, ONLY, packets, Status } from './frame.js'

const NEW_CHANNEL: Buffer = framePath('/sys/new_channel')
const DELETE_CHANNEL: Buffer = framePath('/sys/delete_channel')
const EMPTY_OBJECT: Buffer = Buffer.from('{}')
const NO_DATA: Buffer = Buffer.alloc(0)
/** Above so many unsent bytes nothing more is sent until all of them are out. */
const MAX_UNSENT = 1024 * 1024
/** From here on it pays to hand the data to the loop as it is. */
export const COPY_BELOW: number = 16 * 1024
/** Milliseconds between signs of life from a connection that cannot be read. */
const HEARTBEAT = 500

export interface ClientLimits {
  readonly maxChannelsPerConn: number
  readonly maxResponseBytes: number
  readonly maxUnreadBytes: number
  readonly channelTimeout: number
}

/** The pool that a connection belongs to. */
export interface Pool {
  /** A channel is idle, a connection takes data again, or something ended. */
  changed(): void
  connectionClosed(connection: ClientConnection, reason: CloseReason): void
  /** The server takes no more calls on a connection, because it is going to stop. */
  draining(): void
}

export class ClientConnection implements ByteSource, Drainable {
  readonly #c: ProtocolConnection<Call>
  readonly #limits: ClientLimits
  readonly #pool: Pool
  readonly #reader = new FrameReader(Status.RESPONSE_FIRST, this)
  readonly #channels = new Map<number, ClientChannel>()
  /** The system channel: asks for others, and serves where there can be none. */
  readonly #system: ClientChannel
  /** Those that calls may be sent on. */
  readonly channels: ClientChannel[] = []
  /** Channels that were asked for. */
  opening = 0
  /** Those of them that are there, and wait for the question of `#watch` to be out. */
  #granted = 0
  /** The server gave an answer: it is alive. */
  useful = false
  /** No calls are sent on it any more; it closes when the last answer is here. */
  retiring = false
  closed = false
  writable = true
  /** Nothing can be sent any more; its end is about to be told. */
  #broken = false
  readonly #watch: DrainWatch
  /** While it is not read: it is written to, by which a peer that is gone shows. */
  #heartbeat: Timer | undefined = undefined
  readonly #awaitRoom: (() => void)[] = []
  #maxChannels: number
  #filling: ClientChannel | undefined = undefined
  #missing = 0
  #fillingKind = 0
  #deletes = false
  #unread = 0
  #paused = false

  constructor(c: ProtocolConnection<Call>, limits: ClientLimits, pool: Pool) {
    this.#c = c
    this.#limits = limits
    this.#pool = pool
    this.#maxChannels = limits.maxChannelsPerConn
    this.#system = new ClientChannel(this, 0)
    this.#channels.set(0, this.#system)
    this.#watch = new DrainWatch(this)
  }

  isOpen(channel: number): boolean {
    return this.#channels.has(channel)
  }

  /** Calls can be sent on it, now or soon. */
  get serves(): boolean {
    return !(this.closed || this.retiring || this.#broken) && this.#c.connected
  }

  /** It is not read until somebody reads what has come: answers on it may take long. */
  get isHeldBack(): boolean {
    return this.#paused
  }

  /** It has been given one for calls. */
  get hasChannel(): boolean {
    return this.channels.length + this.#granted > 0
  }

  /** It can have one more channel. */
  get hasRoom(): boolean {
    return (
      this.serves &&
      this.writable &&
      !this.#system.closed &&
      this.channels.length + this.opening < this.#maxChannels
    )
  }

  /** Calls whose answers somebody waits for. */
  get live(): number {
    let count = this.#system.live
    for (const channel of this.channels) if (channel !== this.#system) count += channel.live
    return count
  }

  /** Nothing can be sent on it, and nobody waits for anything from it. */
  get isStuck(): boolean {
    const usable = this.writable && this.channels.some((channel) => !channel.retired && !channel.closed)
    return !this.hasRoom && this.opening === 0 && !usable && this.live === 0
  }

  /** Asks the server for a channel. Rejects when it refuses or does not answer. */
  async openChannel(): Promise<void> {
    this.opening++
    try {
      const asked = this.#askForChannel()
      const watched = this.#watch.begin()
      const channel = new ClientChannel(this, this.#given(await asked))
      this.#channels.set(channel.id, channel)
      this.#granted++
      await watched
      this.#granted--
      if (!channel.closed) this.channels.push(channel)
    } finally {
      this.opening--
    }
  }

  async openSpare(): Promise<ClientChannel | undefined> {
    try {
      const id = this.#newId(await this.#ask((call) => this.#prepareSpare(call)))
      if (id === undefined) return undefined
      const channel = new ClientChannel(this, id)
      this.#channels.set(id, channel)
      return channel
    } catch {
      return undefined
    }
  }

  /** While it is not read its answer may take any time. */
  #prepareSpare(call: Call): void {
    call.quiet = true
    if (!this.#paused) call.watch(this.#c.loop, this.#limits.channelTimeout)
  }

  #askForChannel(): Promise<Buffer> {
    return this.#ask((call) => call.watch(this.#c.loop, this.#limits.channelTimeout))
  }

  /** The id that the server's answer gives; throws where it refuses. */
  #given(answer: Buffer): number {
    const id = this.#newId(answer)
    if (id !== undefined) return id
    this.#refused()
    const message = `the server gave no channel: ${answer.toString('utf8', 0, 200)}`
    throw new IipError(IipErrorCode.CHANNEL, message, false)
  }

  #ask(prepare: (call: Call) => void): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const call = new Call(NEW_CHANNEL, EMPTY_OBJECT, undefined, resolve, reject)
      prepare(call)
      if (!this.send(this.#system, call)) call.fail(atItsEnd(false))
    })
  }

  /** `undefined`: it is none, or one that is in use. */
  #newId(answer: Buffer): number | undefined {
    const id = channelId(answer)
    const known = id === undefined ? undefined : this.#channels.get(id)
    return known === undefined || known.deletedAt > 0 ? id : undefined
  }

  /** It has as many channels as it gets; without any the system channel must do. */
  #refused(): void {
    if (!this.hasChannel) this.channels.push(this.#system)
    this.#maxChannels = this.channels.length + this.#granted
  }

  // ---- out ---------------------------------------------------------------------------------------------------------

  /** `false`: the connection is at its end, and not a byte of the call was sent. */
  send(channel: ClientChannel, call: Call): boolean {
    const { data } = call
    if (!this.#c.connected) return this.#isBroken()
    channel.pending.push(call)
    call.sent = true
    call.channel = channel
    if (!(data instanceof Uint8Array)) {
      channel.sending = true
      channel.exclusive = true
      void this.#sendChunks(channel, call, data)
      return true
    }
    call.inParts = data.length > MAX_DATA
    const isTaken = this.#c.send(call)
    // Of a large one a part may be out.
    if (!isTaken && data.length <= COPY_BELOW) return this.#unsent(channel, call)
    if (call.body !== undefined || call.inParts) channel.exclusive = true
    this.#checkRoom()
    return true
  }

  #unsent(channel: ClientChannel, call: Call): false {
    channel.pending.pop()
    call.sent = false
    call.channel = undefined
    return this.#isBroken()
  }

  #isBroken(): false {
    this.#broken = true
    this.writable = false
    this.#c.close()
    return false
  }

  /** The last chunk is held back until the next one is known: its packet says that it is the last. */
  async #sendChunks(
    channel: ClientChannel,
    call: Call,
    chunks: AsyncIterable<Uint8Array | string>,
  ): Promise<void> {
    let begun = false
    let last: Uint8Array | undefined
    let whole = false
    try {
      for await (const given of iterationOf(chunks)) {
        if (call.settled) break
        if (!(await this.#canGoOn())) throw atItsEnd(begun)
        const chunk = bytesOfChunk(given)
        if (chunk.length === 0) continue
        if (last !== undefined) {
          call.inParts = true
          await this.#sendPart(channel, call, last, !begun, false)
          begun = true
        }
        last = chunk
      }
      if (last === undefined && !call.settled) throw optionError('a request cannot be empty')
      whole = !call.settled && last !== undefined && this.#c.connected
      if (whole) await this.#sendPart(channel, call, last!, !begun, true)
    } catch (error) {
      call.fail(error)
    }
    channel.sending = false
    if (whole) this.#chunksAreOut(channel, call)
    else this.#takeBack(channel, call, begun)
    channel.flush()
    this.#pool.changed()
  }

  /** Gives the others their turn. `false`: the connection is of no more use, which it may not have noticed unread. */
  async #canGoOn(): Promise<boolean> {
    const canSend = await this.#c.drained()
    if (!canSend) this.#c.close()
    return canSend
  }

  #chunksAreOut(channel: ClientChannel, call: Call): void {
    if (channel.stale) this.#renew(channel)
    else if (!call.inParts && call.body === undefined) channel.exclusive = false
  }

  /** Its source failed, or it was given up. What has begun cannot be ended but with the connection. */
  #takeBack(channel: ClientChannel, call: Call, begun: boolean): void {
    if (begun) this.#retire()
    else if (channel.pending.peekBack() === call) channel.pending.pop()
    if (!begun) channel.exclusive = false
    if (channel.pending.length === 0) channel.retired = false
  }

  async #sendPart(
    channel: ClientChannel,
    call: Call,
    data: Uint8Array,
    begins: boolean,
    ends: boolean,
  ): Promise<void> {
    const parts = packets(Status.REQUEST_FIRST, call.path, channel.id, data, begins, ends)
    this.#c.sendRaw(parts)
    this.#checkRoom()
    if (!this.writable) await new Promise<void>((resolve) => this.#awaitRoom.push(resolve))
  }

  /**
   * The loop's own back-pressure would stop reading as well: two sides that wait for each other to read would do so for
   * ever. A client reads always.
   */
  #checkRoom(): void {
    if (!this.writable || this.#c.writeBufferLength <= MAX_UNSENT) return
    this.writable = false
    this.#c.sendRaw(NO_DATA, () => this.#hasRoom())
  }

  #hasRoom(): void {
    this.writable = true
    for (const resolve of this.#awaitRoom.splice(0)) resolve()
    if (this.closed) return
    for (const channel of this.channels) channel.flush()
    this.#pool.changed()
  }

  /** The server waits for the rest of a request that never comes: only the end of the connection tells it. */
  #retire(): void {
    this.retiring = true
    this.#closeIfDone()
  }

  #closeIfDone(): void {
    if (this.retiring && this.live === 0) this.#c.close()
  }

  drain(): void {
    this.#retire()
    this.#pool.draining()
  }

  /** A call that was sent on the channel was given up. */
  abandoned(channel: ClientChannel): void {
    channel.retired = true
    // While it is not read no answer could come. Without a channel there is nothing to go on with.
    const isRefusal = channel === this.#system && !this.#paused && this.hasChannel
    if (isRefusal) this.#refused()
    // Its source may never say another word.
    if (channel.sending) this.retiring = true
    else this.#cancel(channel)
    this.#closeIfDone()
    this.#pool.changed()
  }

  /** A stream that nobody reads any more may never end by itself. Once it is the only call on its channel both can go. */
  #cancel(channel: ClientChannel): void {
    const { pending } = channel
    const call = pending.length === 1 ? pending.peekFront()! : undefined
    if (call?.settled === true && call.body !== undefined && !channel.sending) this.#renew(channel)
  }

  /**
   * What still comes on it is for nobody: the server is asked to forget it, which it never answers, and for another one.
   * Channel 0 goes with its connection.
   */
  #renew(channel: ClientChannel): void {
    if (channel === this.#system) {
      this.#retire()
      return
    }
    this.forget(channel)
    channel.pending.clear()
    channel.answering = false
    channel.retired = false
    channel.exclusive = false
    channel.stale = false
    channel.renewing = true
    if (this.retiring) this.#remove(channel, atItsEnd)
    else void this.#reopen(channel)
  }

  /** Until the server hands the id out again, what comes for it is dropped. */
  forget(channel: ClientChannel): void {
    const late = new ClientChannel(this, channel.id)
    late.answering = channel.answering
    late.deletedAt = performance.now()
    if (this.#filling === channel) this.#filling = late
    this.#channels.set(late.id, late)
    this.#c.sendRaw(packets(Status.REQUEST_FIRST, DELETE_CHANNEL, late.id, EMPTY_OBJECT))
  }

  async #reopen(channel: ClientChannel): Promise<void> {
    try {
      channel.id = this.#given(await this.#askForChannel())
      this.#channels.set(channel.id, channel)
      channel.renewing = false
      channel.flush()
    } catch (error) {
      this.#remove(channel, () => error as Error)
    }
    this.#pool.changed()
  }

  // ---- in ----------------------------------------------------------------------------------------------------------

  read(ring: RingBuffer): void {
    while (this.#filling === undefined ? this.#readPacket(ring) : this.#fill(this.#filling, ring)) {
      if (this.closed) return
    }
  }

  /** One packet, or its header. `false`: bytes are missing. */
  #readPacket(ring: RingBuffer): boolean {
    const reader = this.#reader
    if (!reader.read(ring)) return false
    const channel = this.#channels.get(reader.channel)!
    if (channel.deletedAt > 0) this.#checkDeleted(channel)
    const { kind, length, size } = reader
    checkOrder(kind, channel.answering, channel.id)
    this.useful = true
    const call = channel.pending.peekFront()
    if (kind === ONLY && call?.body !== undefined && !call.raw) {
      const isTaken = this.#readError(channel, call, ring)
      if (isTaken !== undefined) return isTaken
    }
    this.#deletes = isDelete(ring, reader.pathStart, reader.pathEnd)
    if (kind === ONLY && call !== undefined && call.body === undefined && ring.length >= size + length) {
      ring.retrieve(size)
      if (length <= this.#limits.maxResponseBytes) call.finish(ring.take(length))
      else this.#drop(call, ring, length)
      this.#answered(channel)
      return true
    }
    ring.retrieve(size)
    channel.answering = true
    this.#filling = channel
    this.#missing = length
    this.#fillingKind = kind
    if (kind === FIRST || kind === ONLY) this.#beginAnswer(channel, call)
    return true
  }

  /** The server goes on with what it was asked to end: only the end of the connection tells it. */
  #checkDeleted({ deletedAt }: ClientChannel): void {
    if (performance.now() - deletedAt > this.#limits.channelTimeout) this.#retire()
  }

  /** An error in place of a streamed answer is no part of the stream. `undefined`: it is none. `false`: bytes are missing. */
  #readError(channel: ClientChannel, call: Call, ring: RingBuffer): boolean | undefined {
    const { length, size } = this.#reader
    const start = ring.start + size
    const here = Math.min(ring.length - size, length)
    if (length > MAX_ERROR_BYTES || beginsAsError(ring.storage, start, start + here) === false)
      return undefined
    if (here < length) return false
    const error = remoteError(ring.storage.subarray(start, start + length))
    if (error === undefined) return undefined
    ring.retrieve(size + length)
    call.fail(error)
    this.#answered(channel)
    return true
  }

  #drop(call: Call, ring: RingBuffer, length: number): void {
    ring.retrieve(length)
    call.fail(tooLarge(this.#limits.maxResponseBytes))
  }

  /** One that nobody has asked for ends its channel, as in Go; the connection goes on. */
  #beginAnswer(channel: ClientChannel, call: Call | undefined): void {
    if (call?.settled === false) call.onBegun?.()
    if (call !== undefined || channel.deletedAt > 0) return
    this.#remove(channel, () => new IipError(IipErrorCode.CLOSED, 'the server sent an answer too many', true))
  }

  #fill(channel: ClientChannel, ring: RingBuffer): boolean {
    const call = channel.pending.peekFront()
    const count = Math.min(ring.length, this.#missing)
    this.#missing -= count
    if (call === undefined || call.settled) ring.retrieve(count)
    else if (call.body !== undefined) this.#fillBody(call, ring, count)
    else this.#fillAssembly(call, ring, count)
    if (this.#missing > 0) return false
    this.#filling = undefined
    if (this.#fillingKind === ONLY || this.#fillingKind === LAST) this.#endAnswer(channel, call)
    return true
  }

  #fillBody(call: Call, ring: RingBuffer, count: number): void {
    this.#unread += call.body!.write(ring, count)
    if (this.#unread > this.#limits.maxUnreadBytes && !this.#paused) this.#pause()
  }

  #fillAssembly(call: Call, ring: RingBuffer, count: number): void {
    const { assembly } = call
    if (assembly.length + count + this.#missing > this.#limits.maxResponseBytes) {
      this.#drop(call, ring, count)
    } else if (count > 0) {
      assembly.append(ring, count, this.#missing, this.#fillingKind === ONLY)
    }
  }

  #endAnswer(channel: ClientChannel, call: Call | undefined): void {
    channel.answering = false
    if (call === undefined) return
    if (!call.settled) call.finish(call.body === undefined ? call.assembly.take() : NO_DATA)
    this.#answered(channel)
  }

  #answered(channel: ClientChannel): void {
    const call = channel.pending.shift()!
    if (channel.pending.length === 0) {
      channel.retired = false
      channel.exclusive = channel.sending
    }
    if (this.#deletes) this.#remove(channel, deletedThere)
    else if (call.inParts) this.#renewWhenOut(channel)
    else this.#cancel(channel)
    channel.flush()
    this.#closeIfDone()
    this.#pool.changed()
  }

  /** Servers may answer each packet of a request, as some of Go's do: no other call is to get one of those answers. */
  #renewWhenOut(channel: ClientChannel): void {
    if (channel.sending) channel.stale = true
    else this.#renew(channel)
  }

  #remove(channel: ClientChannel, error: (sent: boolean) => Error): void {
    if (this.#channels.get(channel.id) === channel) this.#channels.delete(channel.id)
    const at = this.channels.indexOf(channel)
    if (at >= 0) this.channels.splice(at, 1)
    channel.close(error)
  }

  /** Bytes of a body were read or dropped. */
  taken(bytes: number): void {
    this.#unread -= bytes
    if (!this.#paused || this.#unread > this.#limits.maxUnreadBytes / 2) return
    this.#paused = false
    this.#heartbeat?.stop()
    this.#c.resume()
    this.#pool.changed()
  }

  #pause(): void {
    this.#paused = true
    this.#c.pause()
    if (this.#heartbeat !== undefined) this.#heartbeat.restart()
    else this.#heartbeat = this.#c.loop.runEvery(HEARTBEAT, () => this.#beat())
    this.#pool.changed()
  }

  /**
   * What is not read does not show its end, but writing to a peer that is gone fails. A question for a channel harms
   * nobody: the channel goes back when it comes.
   */
  #beat(): void {
    if (this.live === 0) return
    void this.openSpare().then((spare) => {
      if (spare !== undefined) this.forget(spare)
    })
    this.#c.sendRaw(NO_DATA, (error) => {
      if (error !== undefined) this.#c.close()
    })
  }

  // ---- the end -----------------------------------------------------------------------------------------------------

  close(): void {
    this.#c.close()
  }

  /** Closes it without sending what is unsent: the server may never take it. */
  abort(reason: CloseReason): void {
    this.#c.abort(reason)
  }

  ended(reason: CloseReason): void {
    this.closed = true
    this.#heartbeat?.stop()
    // Sources that wait for it end.
    this.#hasRoom()
    const error = (sent: boolean): IipError =>
      new IipError(IipErrorCode.CLOSED, `the connection ended: ${reason.message}`, sent, reason.error)
    for (const channel of this.#channels.values()) channel.close(error)
    for (const channel of this.channels) channel.close(error)
    this.#pool.connectionClosed(this, reason)
  }
}

function channelId(answer: Buffer): number | undefined {
  try {
    const { code, channel_id: id } = JSON.parse(answer.toString()) as { code?: unknown; channel_id?: unknown }
    const isId = Number.isInteger(id) && (id as number) > 0 && (id as number) <= 0xffffffff
    return code === 0 && isId ? (id as number) : undefined
  } catch {
    return undefined
  }
}

function isDelete(ring: RingBuffer, start: number, end: number): boolean {
  if (end - start !== DELETE_CHANNEL.length - 1) return false
  return DELETE_CHANNEL.compare(ring.storage, start, end, 0, DELETE_CHANNEL.length - 1) === 0
}

/** One iteration over `chunks`. Throws `ERR_RINGLOOP_OPTION` where they give none. */
function iterationOf<T>(chunks: AsyncIterable<T>): AsyncIterable<T> {
  const iterator = chunks[Symbol.asyncIterator]()
  if (typeof iterator?.next === 'function') return { [Symbol.asyncIterator]: () => iterator }
  throw optionError('the data of a request must be an async iterable that gives an iterator')
}

function bytesOfChunk(chunk: unknown): Uint8Array {
  if (typeof chunk === 'string') return Buffer.from(chunk)
  if (chunk instanceof Uint8Array) return chunk
  throw optionError(`a chunk of a request must be bytes or a string, not ${typeof chunk}`)
}

function deletedThere(sent: boolean): IipError {
  return new IipError(IipErrorCode.CLOSED, 'the server deleted the channel', sent)
}

function atItsEnd(sent: boolean): IipError {
  return new IipError(IipErrorCode.CLOSED, 'the connection is at its end', sent)
}

function tooLarge(limit: number): IipError {
  return new IipError(IipErrorCode.TOO_LARGE, `the response is longer than ${limit} bytes`, true)
}

function optionError(message: string): RingloopError {
  return new RingloopError(ErrorCode.OPTION, message)
}
