/** What the IIP tests share: servers and clients that end with their test, and a peer that speaks frames. */
import { setImmediate as turn } from 'node:timers/promises'
import { type Handler, type LoggerOption, Server, type ServerOptions } from '../src/index.js'
import {
  encodePacket,
  IipClient,
  type IipClientOptions,
  type IipOut,
  IipProtocol,
  type IipProtocolOptions,
  type IipRequest,
} from '../src/plugins/iip/index.js'
import { Peer } from './example-process.js'

const endings: (() => unknown)[] = []

/** For `afterEach`. */
export async function endAll(): Promise<void> {
  for (const end of endings.splice(0).reverse()) await end()
}

export function atEnd(end: () => unknown): void {
  endings.push(end)
}

export type IipHandler = Handler<IipRequest, IipOut>

export async function serveIip(
  handler: IipHandler,
  options: IipProtocolOptions = {},
  server: ServerOptions = {},
): Promise<number> {
  return (await startIip(handler, options, server)).address.port
}

export async function startIip(
  handler: IipHandler,
  options: IipProtocolOptions = {},
  more: ServerOptions = {},
): Promise<Server<IipRequest, IipOut>> {
  const protocol = new IipProtocol(options)
  const server = new Server(handler, { address: '127.0.0.1:0', protocol, logger: false, ...more })
  await server.start()
  atEnd(() => server.stop())
  return server
}

/** Gives answers as they are, also those that are errors, unless `raw` is `false`. */
export function iipClient(port: number, options: Partial<IipClientOptions> = {}): IipClient {
  const client = new IipClient({ address: `127.0.0.1:${port}`, logger: false, raw: true, ...options })
  atEnd(() => client.close())
  return client
}

/** Keeps the log lines of an option `logger`. */
export class Lines {
  readonly lines: { level: string; message: string; fields: object }[] = []

  get logger(): Exclude<LoggerOption, string | false> {
    const keep =
      (level: string) =>
      (fields: object, message: string): void => {
        this.lines.push({ level, message, fields })
      }
    return { debug: keep('debug'), info: keep('info'), warn: keep('warn'), error: keep('error') }
  }

  /** From `info` up. */
  get worth(): Lines['lines'] {
    return this.lines.filter(({ level }) => level !== 'debug')
  }

  get text(): string {
    return JSON.stringify(this.lines)
  }
}

export interface Frame {
  readonly status: number
  readonly path: string
  readonly channel: number
  readonly data: Buffer
}

export function frame(status: number, path: string, channel: number, data: Uint8Array | string): Buffer {
  return encodePacket(status, path, channel, Buffer.from(data as string))
}

export function parseFrames(bytes: Buffer): Frame[] {
  const frames: Frame[] = []
  for (let at = 0; at < bytes.length; ) {
    const nul = bytes.indexOf(0, at + 1)
    if (nul < 0 || bytes.length < nul + 9) break
    const end = nul + 9 + bytes.readUInt32BE(nul + 5)
    if (bytes.length < end) break
    frames.push({
      status: bytes[at]!,
      path: bytes.toString('utf8', at + 1, nul),
      channel: bytes.readUInt32BE(nul + 1),
      data: bytes.subarray(nul + 9, end),
    })
    at = end
  }
  return frames
}

/** A plain socket that speaks frames. */
export class FramePeer {
  readonly peer: Peer

  constructor(peer: Peer) {
    this.peer = peer
  }

  /** With the channels 1 to `channels` open. */
  static async connect(port: number, channels = 0): Promise<FramePeer> {
    const peer = new FramePeer(await Peer.connect(port))
    atEnd(() => peer.peer.socket.destroy())
    for (let i = 0; i < channels; i++) await peer.send(1, '/sys/new_channel', 0, '{}')
    if (channels > 0) await peer.frames(channels)
    return peer
  }

  send(status: number, path: string, channel: number, data: Uint8Array | string): Promise<void> {
    return this.peer.write(frame(status, path, channel, data))
  }

  /** Awaits so many frames, all told. */
  async frames(count: number): Promise<Frame[]> {
    for (let length = 0; ; ) {
      const frames = parseFrames(this.peer.bytes)
      if (frames.length >= count) return frames
      length = this.peer.bytes.length
      await this.peer.received(length + 1)
    }
  }
}

/** Awaits a condition that another part of this process brings about. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await turn()
}
