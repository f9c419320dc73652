/**
 * A server of test/fixtures/hostile in a process of its own, so that one that spins, crashes or grows can be seen from
 * outside and ended: its events, its answers to commands, its sockets and its memory.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { type Child, fixture, startChild } from './child.js'
import { until } from './wait.js'

export type Poller = 'native' | 'net'

export interface HostOptions {
  readonly poller: Poller
  /** 0: a handler object in the main thread. Default 0. */
  readonly loops?: number
  /** Of the server; what JSON can hold. */
  readonly options?: Readonly<Record<string, unknown>>
  /** A plugin that has a broker, and the options of that. */
  readonly broker?: Readonly<Record<string, unknown>>
  /** Only where there are no loops in threads. */
  readonly badLogger?: boolean
  /** The file that its standard error goes to. */
  readonly stderr?: string
}

export interface Total {
  readonly connections: number
  readonly accepted: number
  readonly rejected: number
  readonly closed: Readonly<Record<string, number>>
  readonly writeBufferBytes: number
  readonly slowConsumerDrops: number
  readonly handlerErrors: number
  readonly protocolErrors: number
  readonly activeMs: number
  readonly idleMs: number
  readonly restarts: number
}

const KIB = 1024

interface Answer {
  readonly id: number
  readonly failed?: string
  readonly value?: unknown
}

export class HostedServer {
  readonly child: Child
  port = 0
  #asked = 0
  #readTo = 0
  readonly #told: Map<string, unknown[]> = new Map()
  readonly #answers: Map<number, Answer> = new Map()

  private constructor(child: Child) {
    this.child = child
  }

  static async start(module: string, host: HostOptions): Promise<HostedServer> {
    const { poller, loops = 0, options, badLogger, stderr, broker } = host
    const args = [
      '--module',
      module,
      '--loops',
      `${loops}`,
      '--options',
      JSON.stringify({ poller, ...options }),
    ]
    if (badLogger === true) args.push('--badLogger')
    if (broker !== undefined) args.push('--broker', JSON.stringify(broker))
    const server = new HostedServer(
      startChild(fixture('hostile/host.mjs'), stderr === undefined ? { args } : { args, stderr }),
    )
    try {
      server.port = JSON.parse(await server.child.line('listening')).port
    } catch (error) {
      server.kill()
      throw error
    }
    return server
  }

  /** What the server's module has told under `word`, in order. */
  events<T = Record<string, unknown>>(word: string): T[] {
    this.#read()
    return [...this.#of(word)] as T[]
  }

  #of(word: string): unknown[] {
    let told = this.#told.get(word)
    if (told === undefined) {
      told = []
      this.#told.set(word, told)
    }
    return told
  }

  #read(): void {
    const end = this.child.stdout.lastIndexOf('\n') + 1
    if (end <= this.#readTo) return
    for (const line of this.child.stdout.slice(this.#readTo, end - 1).split('\n')) {
      const blank = line.indexOf(' ')
      const word = line.slice(0, blank)
      const value = JSON.parse(line.slice(blank + 1))
      if (word === 'answer') this.#answers.set(value.id, value)
      else this.#of(word).push(value)
    }
    this.#readTo = end
  }

  /** Resolves with the events under `word` when there are at least `count`. */
  async told<T = Record<string, unknown>>(word: string, count = 1, ms?: number): Promise<T[]> {
    await until(
      `the server says '${word}' ${count} times`,
      () => this.events(word).length >= count || this.child.exited,
      ms,
    )
    if (this.child.exited && this.events(word).length < count)
      throw new Error(`it ended: ${this.child.stderr}`)
    return this.events(word)
  }

  /** Has the server's main thread do something; rejects when it fails or takes longer than `ms`. */
  async ask<T = unknown>(command: string, value?: unknown, ms?: number): Promise<T> {
    const id = ++this.#asked
    this.child.say(JSON.stringify({ id, command, value }))
    const find = (): Answer | undefined => {
      this.#read()
      return this.#answers.get(id)
    }
    await until(`'${command}' is answered`, () => find() !== undefined || this.child.exited, ms)
    const answer = find()
    if (answer === undefined) throw new Error(`it ended at '${command}': ${this.child.stderr}`)
    if (answer.failed !== undefined) throw new Error(answer.failed)
    return answer.value as T
  }

  async total(): Promise<Total> {
    return (await this.ask<{ total: Total }>('stats')).total
  }

  /** Open sockets of the process (Linux). */
  sockets(): number {
    const folder = `/proc/${this.child.process.pid}/fd`
    let count = 0
    for (const fd of readdirSync(folder)) {
      try {
        if (readlinkSync(`${folder}/${fd}`).startsWith('socket:')) count++
      } catch {
        // Closed between the two calls.
      }
    }
    return count
  }

  /** Resident memory in bytes (Linux). */
  memory(): number {
    const status = readFileSync(`/proc/${this.child.process.pid}/status`, 'latin1')
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * KIB
  }

  /** Stops the server and ends its process, which must end well. */
  async stop(): Promise<void> {
    await this.ask('stop', 0)
    this.child.process.stdin?.end()
    await this.child.exit()
  }

  kill(): void {
    this.child.kill()
  }
}

/** The shapes that a server can have: both pollers, a handler here and a module in two threads. */
export const SHAPES: readonly { readonly name: string; readonly poller: Poller; readonly loops: number }[] = [
  { name: 'native, here', poller: 'native', loops: 0 },
  { name: 'native, two loops', poller: 'native', loops: 2 },
  { name: 'net, here', poller: 'net', loops: 0 },
  { name: 'net, two loops', poller: 'net', loops: 2 },
]

/** Numbers of a total that are none: NaN and the infinities are null in JSON. */
export function notNumbers(total: Total): string[] {
  const found: string[] = []
  const look = (name: string, value: unknown): void => {
    if (value === null) found.push(name)
    else if (typeof value === 'object') {
      for (const [key, each] of Object.entries(value)) look(`${name}.${key}`, each)
    } else if (typeof value === 'number' && value < 0) found.push(`${name} is ${value}`)
  }
  look('total', total)
  return found
}
