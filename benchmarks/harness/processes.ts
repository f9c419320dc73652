/**
 * Starts servers and clients and makes sure that all of them end, by process id: after each round, on a
 * failure, on Ctrl-C. The servers also end by themselves when this process dies, since their standard input
 * ends with it.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { type Command, EXIT_UNAVAILABLE } from './suite.js'

const READY_MS = 15_000
const GRACE_MS = 3_000
const STDERR_KEPT = 4_000

/** Thrown when a program ends with {@link EXIT_UNAVAILABLE}: its contender is skipped, nothing is broken. */
export class Unavailable extends Error {}

const running = new Set<ChildProcess>()

function killAll(): void {
  for (const child of running) child.kill('SIGKILL')
}

process.on('exit', killAll)
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const) {
  process.on(signal, () => process.exit(code))
}

/** A child process whose standard output is read line by line. */
export class Program {
  readonly name: string
  readonly #child: ChildProcess
  readonly #lines: string[] = []
  readonly #ended: Promise<void>
  #wake: () => void = () => {}
  #hasEnded = false
  #stderr = ''

  constructor(name: string, command: Command) {
    this.name = name
    this.#child = spawn(command.file, command.args, { stdio: 'pipe' })
    running.add(this.#child)
    this.#child.stdin!.on('error', () => {}) // the program ended first; its exit code tells
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_KEPT)
    })
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      this.#lines.push(line)
      this.#wake()
    })
    this.#ended = this.#end()
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  async #end(): Promise<void> {
    try {
      await once(this.#child, 'close')
    } catch (error) {
      this.#stderr = String(error)
    }
    running.delete(this.#child)
    this.#hasEnded = true
    this.#wake()
  }

  /** The next line of standard output. Rejects when the program ends first or `ms` pass. */
  async line(ms: number): Promise<string> {
    const deadline = Date.now() + ms
    for (;;) {
      const line = this.#lines.shift()
      if (line !== undefined) return line
      if (this.#hasEnded) throw this.#failure()
      const left = deadline - Date.now()
      if (left <= 0) throw new Error(`${this.name} said nothing for ${ms} ms`)
      await this.#news(left)
    }
  }

  #news(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  #failure(): Error {
    const said = this.#stderr.trim().split('\n')
    if (this.#child.exitCode === EXIT_UNAVAILABLE) return new Unavailable(said.at(-1))
    const how = this.#child.signalCode ?? `code ${this.#child.exitCode}`
    const why = said.find((line) => /^\w*Error/.test(line)) ?? said.at(-1)
    return new Error(`${this.name} ended early (${how})${why && `: ${why}`}`)
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** Ends its standard input; a client that holds connections lets go of them. */
  endInput(): void {
    this.#child.stdin!.end()
  }

  /** Asks it to end, insists after a while, and resolves when it is gone. */
  async stop(): Promise<void> {
    if (this.#hasEnded) return
    this.#child.kill('SIGTERM')
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), GRACE_MS)
    await this.#ended
    clearTimeout(timer)
  }
}

export interface Listening {
  readonly program: Program
  readonly host: string
  readonly port: string
}

/** Starts a server and resolves when it listens. */
export async function startServer(name: string, command: Command): Promise<Listening> {
  const program = new Program(name, command)
  try {
    const line = await program.line(READY_MS)
    const match = /^listening on (.+):(\d+)$/.exec(line)
    if (!match) throw new Error(`${name} did not say where it listens but: ${line}`)
    return { program, host: match[1]!.replace(/^\[|\]$/g, ''), port: match[2]! }
  } catch (error) {
    await program.stop()
    throw error
  }
}
