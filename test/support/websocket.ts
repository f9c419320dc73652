/** The other end of a WebSocket, made by hand: requests, masked frames in any shape, and a reader of unmasked ones. */
import type { Connection } from '../../src/connection.js'
import type { Handler } from '../../src/handler.js'
import type { WebSocketContext, WebSocketOptions, WebSocketOut } from '../../src/plugins/websocket/index.js'
import { WebSocketProtocol } from '../../src/plugins/websocket/index.js'
import type { FakeSocket } from '../fake-poller.js'
import { type FakeLoop, fakeLoop } from './fake-loop.js'

export type WebSocketHandler = Handler<WebSocketContext, WebSocketOut>

const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
/** What RFC 6455, section 1.3 answers to it. */
export const ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='

const HEADERS: Readonly<Record<string, string>> = {
  Host: 'example.com',
  Upgrade: 'websocket',
  Connection: 'Upgrade',
  'Sec-WebSocket-Key': KEY,
  'Sec-WebSocket-Version': '13',
}

/** An opening request; a header that is `undefined` is left out, one that is a list is repeated. */
export function request(
  changes: Readonly<Record<string, string | readonly string[] | undefined>> = {},
  line = 'GET /chat?room=1 HTTP/1.1',
): string {
  const fields = Object.entries({ ...HEADERS, ...changes }).flatMap(([name, value]) =>
    value === undefined ? [] : [value].flat().map((each) => `${name}: ${each}`),
  )
  return `${[line, ...fields].join('\r\n')}\r\n\r\n`
}

export interface FrameShape {
  readonly fin?: boolean
  /** Bits of the first byte beside FIN and opcode. */
  readonly rsv?: number
  readonly mask?: boolean
  /** Bytes of the length field: 1, 3 or 9, by default as few as possible. */
  readonly lengthBytes?: number
  /** The length that is said, where it is not that of the payload. */
  readonly length?: bigint
}

/** A frame as a client sends it. */
export function frame(opcode: number, payload: Uint8Array | string = '', shape: FrameShape = {}): Buffer {
  const bytes = Buffer.from(payload as string)
  const length = shape.length ?? BigInt(bytes.length)
  const width = shape.lengthBytes ?? (length < 126 ? 1 : length < 65536 ? 3 : 9)
  const header = Buffer.alloc(1 + width)
  header[0] = (shape.fin === false ? 0 : 0x80) | (shape.rsv ?? 0) | opcode
  const maskBit = shape.mask === false ? 0 : 0x80
  header[1] = maskBit | (width === 1 ? Number(length) : width === 3 ? 126 : 127)
  if (width === 3) header.writeUInt16BE(Number(length), 2)
  if (width === 9) header.writeBigUInt64BE(length, 2)
  if (maskBit === 0) return Buffer.concat([header, bytes])
  const key = Buffer.from([0x37, 0xfa, 0x21, 0x3d])
  return Buffer.concat([header, key, bytes.map((byte, i) => byte ^ key[i & 3]!)])
}

/** The frames of a client with their masks taken off and their keys zero. */
export function unmasked(frames: Buffer): Buffer {
  const bytes = Buffer.from(frames)
  for (let at = 0; at < bytes.length; ) {
    const second = bytes[at + 1]!
    const wide = (second & 0x7f) === 127 ? 8 : (second & 0x7f) === 126 ? 2 : 0
    const from = at + 2 + wide + ((second & 0x80) === 0 ? 0 : 4)
    let length = second & 0x7f
    if (wide === 2) length = bytes.readUInt16BE(at + 2)
    if (wide === 8) length = Number(bytes.readBigUInt64BE(at + 2))
    at = from + length
    if ((second & 0x80) === 0) continue
    for (let i = from; i < at; i++) bytes[i]! ^= bytes[from - 4 + ((i - from) & 3)]!
    bytes.fill(0, from - 4, from)
  }
  return bytes
}

export function closeFrame(code: number, reason: string | Uint8Array = ''): Buffer {
  const payload = Buffer.concat([Buffer.from([code >> 8, code & 0xff]), Buffer.from(reason as string)])
  return frame(8, payload)
}

export interface ReadFrame {
  readonly fin: boolean
  readonly rsv: number
  readonly opcode: number
  readonly payload: Buffer
}

/** The frames of a server. Throws for what is no frame of one, and for one that is cut off. */
export function readFrames(bytes: Buffer): ReadFrame[] {
  const frames: ReadFrame[] = []
  for (let at = 0; at < bytes.length; ) {
    const [first, second] = [bytes[at]!, bytes[at + 1]!]
    if ((second & 0x80) !== 0) throw new Error('a server does not mask')
    const wide = second === 127 ? 8 : second === 126 ? 2 : 0
    let length = second
    if (wide === 2) length = bytes.readUInt16BE(at + 2)
    if (wide === 8) length = Number(bytes.readBigUInt64BE(at + 2))
    if ((wide === 2 && length < 126) || (wide === 8 && length < 65536)) throw new Error('a length too wide')
    at += 2 + wide
    if (at + length > bytes.length) throw new Error('a frame is cut off')
    frames.push({
      fin: (first & 0x80) !== 0,
      rsv: first & 0x70,
      opcode: first & 0x0f,
      payload: bytes.subarray(at, at + length),
    })
    at += length
  }
  return frames
}

/** What came, as short texts: `text hello`, `close 1002`. The reason of a close is left out. */
export function told(bytes: Buffer): string[] {
  const names: Record<number, string> = { 1: 'text', 2: 'binary', 9: 'ping', 10: 'pong' }
  return readFrames(bytes).map(({ opcode, payload }) => {
    if (opcode !== 8) return `${names[opcode] ?? opcode} ${payload}`
    return payload.length === 0 ? 'close' : `close ${payload.readUInt16BE()}`
  })
}

const END_OF_HEAD = '\r\n\r\n'

/** One client that is connected to a fake loop. */
export class Client {
  readonly socket: FakeSocket
  readonly c: Connection<WebSocketOut>

  constructor(fake: FakeLoop) {
    const { socket, c } = fake.accept()
    this.socket = socket
    this.c = c
  }

  /** The head of the answer to the handshake. */
  get head(): string {
    const { out } = this.socket
    const end = out.indexOf(END_OF_HEAD)
    return out.toString('latin1', 0, end === -1 ? out.length : end + END_OF_HEAD.length)
  }

  get status(): number {
    return Number(this.head.split(' ')[1])
  }

  header(name: string): string | undefined {
    return new RegExp(`^${name}: (.*)\r$`, 'im').exec(this.head)?.[1]
  }

  /** What came behind the head. */
  get body(): Buffer {
    return this.socket.out.subarray(this.head.length)
  }

  get told(): string[] {
    return told(this.body)
  }

  read(...bytes: (Uint8Array | string)[]): this {
    for (const each of bytes) this.socket.read(each)
    return this
  }
}

export const echo: WebSocketHandler = { onMessage: (_c, _ctx, data) => data }

/** A loop that speaks WebSocket, and a client whose handshake is over. */
export async function open(
  handler: WebSocketHandler = echo,
  options: WebSocketOptions = {},
  changes: Parameters<typeof request>[0] = {},
): Promise<{ readonly fake: FakeLoop; readonly client: Client }> {
  const fake = await serve(handler, options)
  const client = new Client(fake).read(request(changes))
  if (client.status !== 101) throw new Error(client.head)
  return { fake, client }
}

export function serve(handler: WebSocketHandler = echo, options: WebSocketOptions = {}): Promise<FakeLoop> {
  return fakeLoop(handler, { protocol: new WebSocketProtocol(options) })
}
