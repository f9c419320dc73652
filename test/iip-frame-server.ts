/** A scripted IIP server on plain sockets: it gives channels as servers do, and leaves everything else to its test. */
import { once } from 'node:events'
import net from 'node:net'
import { atEnd, type Frame, frame, parseFrames } from './iip-support.js'
import { until } from './support/wait.js'

/** One connection, as the script sees it. */
export class FrameSocket {
  readonly socket: net.Socket
  /** Which connection of the server it is, from 0. */
  readonly index: number
  /** All that came, also what the server answers by itself. */
  readonly frames: Frame[] = []
  channels = 0
  /** Answers the questions whether the server is about to stop. */
  drain: () => void = () => {}
  closed = false

  constructor(socket: net.Socket, index: number) {
    this.socket = socket
    this.index = index
    socket
      .on('error', () => {})
      .on('close', () => {
        this.closed = true
      })
  }

  send(status: number, path: string, channel: number, data: Uint8Array | string): void {
    this.socket.write(frame(status, path, channel, data))
  }

  /** Answers a request as a whole. */
  answer({ path, channel, data }: Frame, answer: Uint8Array | string = data): void {
    this.send(5, path, channel, answer)
  }

  of(path: string): Frame[] {
    return this.frames.filter((each) => each.path === path)
  }
}

const DRAINS = '{"code":0}'

export type Script = (asked: Frame, on: FrameSocket) => void

/** How many bytes the unfinished packet still needs, at least: large ones are not put together at each read. */
function missingOf(rest: Buffer): number {
  const nul = rest.indexOf(0, 1)
  return nul < 0 || rest.length < nul + 9 ? 1 : nul + 9 + rest.readUInt32BE(nul + 5) - rest.length
}

export class FrameServer {
  readonly connections: FrameSocket[] = []
  port = 0
  /** What it says of draining; anything else than `{"code":0}` at once. */
  drains: string = DRAINS
  readonly #script: Script

  private constructor(script: Script) {
    this.#script = script
  }

  /** Ends with its test. Default: it echoes. */
  static async start(script: Script = (asked, on) => on.answer(asked)): Promise<FrameServer> {
    const made = new FrameServer(script)
    const server = net.createServer((socket) => made.#accept(socket))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    made.port = (server.address() as net.AddressInfo).port
    atEnd(() => {
      for (const { socket } of made.connections) socket.destroy()
      server.close()
    })
    return made
  }

  #accept(socket: net.Socket): void {
    const on = new FrameSocket(socket, this.connections.length)
    this.connections.push(on)
    const chunks: Buffer[] = []
    let missing = 0
    socket.on('data', (chunk) => {
      chunks.push(chunk)
      missing -= chunk.length
      if (missing > 0) return
      let rest = Buffer.concat(chunks.splice(0))
      for (const each of parseFrames(rest)) {
        rest = rest.subarray(Buffer.byteLength(each.path) + 10 + each.data.length)
        on.frames.push(each)
        this.#handle(each, on)
      }
      chunks.push(rest)
      missing = missingOf(rest)
    })
  }

  #handle(asked: Frame, on: FrameSocket): void {
    if (asked.path === '/sys/new_channel') {
      const id = ++on.channels
      on.answer(asked, JSON.stringify({ code: 0, channel_id: id }))
    } else if (asked.path === '/sys/drain') {
      on.drain = () => on.answer(asked, this.drains)
      if (this.drains !== DRAINS) on.drain()
    } else if (asked.path !== '/sys/delete_channel') this.#script(asked, on)
  }

  /** Awaits so many requests for a path, over all connections. */
  async asked(path: string, count = 1): Promise<Frame[]> {
    const all = (): Frame[] => this.connections.flatMap((on) => on.of(path))
    await until(`${count} requests for ${path}`, () => all().length >= count)
    return all()
  }
}
