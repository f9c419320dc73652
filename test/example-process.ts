/** An example as a process of its own, as a user starts it, and the peers that speak to it over plain sockets. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import path from 'node:path'

const EXAMPLES = path.resolve(import.meta.dirname, '..', 'dist', 'examples')
const LISTENING = /^listening on (.*):(\d+)\n/

/** What a program printed, and how it ended. */
export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

const running = new Set<ChildProcess>()

/** For `afterEach`: no process outlives its test. */
export async function endExamples(): Promise<void> {
  await Promise.all([...running].map((child) => end(child, 'SIGKILL')))
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (!running.has(child)) return
  const closed = once(child, 'close')
  child.kill(signal)
  await closed
}

/** Runs an example to its end. */
export async function runExample(name: string, ...flags: string[]): Promise<Ended> {
  return new ExampleProcess(fileOf(name), flags).ended
}

/** Starts an example and awaits the line that says where it listens. */
export async function startExample(name: string, ...flags: string[]): Promise<ExampleProcess> {
  return startProgram(fileOf(name), ...flags, '--port', '0')
}

/** Starts any program that prints such a line. */
export async function startProgram(file: string, ...flags: string[]): Promise<ExampleProcess> {
  const program = new ExampleProcess(file, flags)
  await program.listening()
  return program
}

/** Starts an example that does not listen, with `input` as its standard input. */
export function launchExample(name: string, flags: readonly string[], input = ''): ExampleProcess {
  return new ExampleProcess(fileOf(name), flags, input)
}

function fileOf(name: string): string {
  return path.join(EXAMPLES, `${name}.js`)
}

export class ExampleProcess {
  /** Resolves when it has ended and everything that it printed was read. */
  readonly ended: Promise<Ended>
  stdout = ''
  stderr = ''
  port = 0
  readonly #child: ChildProcess
  #changed: () => void = () => {}

  constructor(file: string, flags: readonly string[], input = '') {
    const child = spawn(process.execPath, [file, ...flags])
    child.stdin.on('error', () => {}).end(input)
    this.#child = child
    running.add(child)
    child.stdout.setEncoding('utf8').on('data', (text: string) => this.#add('stdout', text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => this.#add('stderr', text))
    this.ended = new Promise((resolve) => {
      child.on('close', (code) => {
        running.delete(child)
        this.#changed()
        resolve({ code, stdout: this.stdout, stderr: this.stderr })
      })
    })
  }

  #add(stream: 'stdout' | 'stderr', text: string): void {
    this[stream] += text
    this.#changed()
  }

  /** Awaits that it has printed something that matches; rejects when it ends without. */
  async printed(stream: 'stdout' | 'stderr', pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this[stream])
      if (match !== null) return match
      if (!running.has(this.#child))
        throw new Error(`it ended without ${pattern}: ${this.stdout}${this.stderr}`)
      await new Promise<void>((resolve) => {
        this.#changed = resolve
      })
    }
  }

  async listening(): Promise<void> {
    this.port = Number((await this.printed('stdout', LISTENING))[2])
  }

  /** SIGTERM, and how it ended. */
  async stop(): Promise<Ended> {
    await end(this.#child, 'SIGTERM')
    return this.ended
  }

  /** SIGKILL. */
  kill(): Promise<void> {
    return end(this.#child, 'SIGKILL')
  }

  connect(): Promise<Peer> {
    return Peer.connect(this.port)
  }
}

/** A plain socket that remembers what came. */
export class Peer {
  readonly socket: net.Socket
  /** Resolves with everything that came once the other side has ended or reset. */
  readonly ended: Promise<Buffer>
  readonly #chunks: Buffer[] = []
  #length = 0
  #over = false
  #changed: () => void = () => {}

  constructor(socket: net.Socket) {
    this.socket = socket
    socket.on('error', () => {})
    socket.on('data', (chunk) => {
      this.#chunks.push(chunk)
      this.#length += chunk.length
      this.#changed()
    })
    this.ended = new Promise((resolve) => {
      socket.on('close', () => {
        this.#over = true
        this.#changed()
        resolve(this.bytes)
      })
    })
  }

  static async connect(port: number): Promise<Peer> {
    const socket = net.connect(port, '127.0.0.1')
    const peer = new Peer(socket)
    await once(socket, 'connect')
    return peer
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks)
  }

  get text(): string {
    return this.bytes.toString()
  }

  /** Resolves once the bytes are in the kernel. */
  write(bytes: Uint8Array | string): Promise<void> {
    return new Promise((resolve) => {
      this.socket.write(bytes, () => resolve())
    })
  }

  /** Awaits so many bytes, all told; rejects when the other side ends before. */
  async received(length: number): Promise<Buffer> {
    await this.#until(() => this.#length >= length)
    return this.bytes
  }

  /** Awaits that what came, all told, matches; rejects when the other side ends before. */
  async said(pattern: RegExp): Promise<string> {
    await this.#until(() => pattern.test(this.text))
    return this.text
  }

  async #until(done: () => boolean): Promise<void> {
    while (!done()) {
      if (this.#over)
        throw new Error(`the connection ended after ${this.#length} bytes: ${this.text.slice(0, 200)}`)
      await new Promise<void>((resolve) => {
        this.#changed = resolve
      })
    }
  }
}
