/**
 * Messages of Protocol Buffers, each with the name of its type in front. Compatible on the wire with the protobuf plugin
 * of gev. Keeps no state per connection; one object serves all connections of a loop, and clients.
 */
import {
  type Connection,
  checkOptions,
  ErrorCode,
  type OptionNames,
  type Packed,
  type Packet,
  type Protocol,
  ProtocolError,
  type RingBuffer,
  RingloopError,
} from '../../index.js'

/** What encodes and decodes one type: a `Type` of protobufjs, a class that its `pbjs` made, or the like. */
export interface MessageType<Message = object> {
  encode(message: Message): { finish(): Uint8Array }
  decode(bytes: Uint8Array): Message
}

/** The types by the names that they have on the wire. */
// biome-ignore lint/suspicious/noExplicitAny: each type has messages of its own
export type TypeRegistry = Readonly<Record<string, MessageType<any>>>

/** A message with the name of its type: `ctx.type` tells which one `ctx.message` is. */
export type AnyMessage<Types extends TypeRegistry = TypeRegistry> = {
  [Name in keyof Types & string]: {
    readonly type: Name
    readonly message: Types[Name] extends MessageType<infer Message> ? Message : never
  }
}[keyof Types & string]

export interface ProtobufOptions<Types extends TypeRegistry> {
  /** What may come and be sent; a peer that sends another type is closed. */
  readonly types: Types
  /** Bytes of a frame, header included; the peer that announces more is closed. Default 1 MiB. */
  readonly maxPacket?: number
}

const OPTIONS = {
  types: true,
  maxPacket: true,
} as const satisfies OptionNames<ProtobufOptions<TypeRegistry>>

const DEFAULT_MAX_PACKET = 1024 * 1024
const LENGTH_SIZE = 4
const NAME_LENGTH_SIZE = 2
const HEADER = LENGTH_SIZE + NAME_LENGTH_SIZE
const MAX_NAME = 0xffff
const MAX_LENGTH = 0xffff_ffff
/** So much of an unknown name goes into the reason. */
const SHOWN_NAME = 64

interface Entry {
  readonly codec: TypeRegistry[string]
  readonly name: Buffer
}

/**
 * Frames of
 *
 *     │ u32 length of all that follows │ u16 length of the name │ name │ message │      numbers are big-endian
 *
 * The handler's `ctx` is the decoded message with its type, its data the bytes of the message. It answers with a message
 * and its type, or with bytes, which are a message of the type that it was asked with.
 *
 *     const protocol = new ProtobufProtocol({ types: { ping: root.lookupType('Ping') } })
 *     const server = new Server({ onMessage: (c, { type, message }) => ({ type, message }) }, { protocol })
 *     await server.start()
 */
export class ProtobufProtocol<Types extends TypeRegistry = TypeRegistry>
  implements Protocol<AnyMessage<Types>, AnyMessage<Types> | Uint8Array>
{
  readonly #entries: ReadonlyMap<string, Entry>
  readonly #maxPacket: number
  readonly #packet: { ctx: AnyMessage<Types>; data: Buffer } = {
    ctx: undefined as never,
    data: Buffer.alloc(0),
  }

  /** Throws `ERR_RINGLOOP_OPTION`. */
  constructor(options: ProtobufOptions<Types>) {
    checkOptions('ProtobufProtocol', options, OPTIONS)
    const { types, maxPacket = DEFAULT_MAX_PACKET } = options
    if (!(maxPacket > HEADER)) throw invalid(`maxPacket must be a number above ${HEADER}, not ${maxPacket}`)
    this.#maxPacket = maxPacket
    this.#entries = new Map(Object.entries(types ?? {}).map(([name, codec]) => [name, entry(name, codec)]))
    if (this.#entries.size === 0) throw invalid('types must have at least one message type')
  }

  unPacket(
    _c: Connection<AnyMessage<Types> | Uint8Array>,
    buffer: RingBuffer,
  ): Packet<AnyMessage<Types>> | undefined {
    if (buffer.length < LENGTH_SIZE) return undefined
    const length = buffer.peekUint32()
    if (length + LENGTH_SIZE > this.#maxPacket) {
      throw new ProtocolError(
        `a frame of ${length + LENGTH_SIZE} bytes is above maxPacket (${this.#maxPacket})`,
      )
    }
    if (length < NAME_LENGTH_SIZE) throw new ProtocolError(`a frame of length ${length} has no type`)
    if (buffer.length < HEADER) return undefined
    const nameLength = buffer.peekUint16(LENGTH_SIZE)
    const size = length - NAME_LENGTH_SIZE - nameLength
    if (size < 0) throw new ProtocolError(`a type name of ${nameLength} bytes in a frame of length ${length}`)
    if (buffer.length < LENGTH_SIZE + length) return undefined
    buffer.retrieve(HEADER)
    const type = buffer.peek(nameLength).toString()
    buffer.retrieve(nameLength)
    const data = buffer.take(size)
    this.#packet.ctx = { type, message: this.#decode(type, data) } as AnyMessage<Types>
    this.#packet.data = data
    return this.#packet
  }

  /** Throws `ERR_RINGLOOP_PACKET` for an unknown type and for a message that is too long; passes on what `encode` throws. */
  packet(_c: unknown, out: AnyMessage<Types> | Uint8Array, ctx?: AnyMessage<Types>): Packed {
    const { name } = this.#entryOf(out, ctx)
    const message = this.#encode(out)
    const frame = Buffer.allocUnsafe(HEADER + name.length + message.length)
    writeFrame(frame, 0, name, message)
    return frame
  }

  packetInto(
    _c: unknown,
    out: AnyMessage<Types> | Uint8Array,
    ctx: AnyMessage<Types> | undefined,
    target: Buffer,
    offset: number,
  ): number {
    // A message is encoded before its length is known; bytes have theirs.
    if (!(out instanceof Uint8Array)) return -1
    const { name } = this.#entryOf(out, ctx)
    if (HEADER + name.length + out.length > target.length - offset) return -1
    return writeFrame(target, offset, name, out)
  }

  broadcast(out: AnyMessage<Types> | Uint8Array): () => Packed {
    const packed = this.packet(undefined, out)
    return () => packed
  }

  #decode(type: string, data: Buffer): object {
    const known = this.#entries.get(type)
    if (known === undefined) {
      throw new ProtocolError(`the message type ${JSON.stringify(type.slice(0, SHOWN_NAME))} is not known`)
    }
    try {
      return known.codec.decode(data)
    } catch (error) {
      throw new ProtocolError(`a message of type ${type} cannot be decoded: ${(error as Error).message}`)
    }
  }

  #entryOf(out: AnyMessage<Types> | Uint8Array, ctx: AnyMessage<Types> | undefined): Entry {
    const type = out instanceof Uint8Array ? ctx?.type : out?.type
    const known = this.#entries.get(type as string)
    if (known !== undefined) return known
    throw new RingloopError(
      ErrorCode.PACKET,
      type === undefined
        ? 'what is sent needs the name of its type: { type, message }'
        : `the message type ${JSON.stringify(type)} is not one of the protocol's types`,
    )
  }

  #encode(out: AnyMessage<Types> | Uint8Array): Uint8Array {
    if (out instanceof Uint8Array) return out
    return this.#entries.get(out.type)!.codec.encode(out.message).finish()
  }
}

function entry(name: string, codec: TypeRegistry[string]): Entry {
  const bytes = Buffer.from(name)
  if (bytes.length > MAX_NAME) throw invalid(`the name of a type must have at most ${MAX_NAME} bytes`)
  if (typeof codec?.encode !== 'function' || typeof codec.decode !== 'function') {
    throw invalid(`the type ${name} must have functions encode and decode`)
  }
  return { codec, name: bytes }
}

function writeFrame(target: Buffer, offset: number, name: Buffer, message: Uint8Array): number {
  const length = NAME_LENGTH_SIZE + name.length + message.length
  if (length > MAX_LENGTH)
    throw new RingloopError(ErrorCode.PACKET, `a message of ${message.length} bytes is too long`)
  target.writeUInt32BE(length, offset)
  target.writeUInt16BE(name.length, offset + LENGTH_SIZE)
  target.set(name, offset + HEADER)
  target.set(message, offset + HEADER + name.length)
  return LENGTH_SIZE + length
}

function invalid(message: string): RingloopError {
  return new RingloopError(ErrorCode.OPTION, message)
}
