/** Runs a script of test/fixtures in a process of its own, for what ends or limits a process. */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { until } from './wait.js'

const FIXTURES = fileURLToPath(new URL('../fixtures/', import.meta.url))

export function fixture(name: string): string {
  return path.join(FIXTURES, name)
}

export function fixtureUrl(name: string): URL {
  return new URL(`../fixtures/${name}`, import.meta.url)
}

export interface ChildOptions {
  readonly args?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** The most descriptors it may have open (`ulimit -n`). */
  readonly maxFiles?: number
  readonly execArgv?: readonly string[]
  /** The file that its standard error goes to, instead of {@link Child.stderr}. */
  readonly stderr?: string
}

/** A running script and what it has written. */
export class Child {
  readonly process: ChildProcess
  stdout = ''
  stderr = ''
  code: number | null = null
  signal: NodeJS.Signals | null = null
  exited = false

  constructor(child: ChildProcess) {
    this.process = child
    child.stdout?.on('data', (chunk: Buffer) => {
      this.stdout += chunk.toString()
    })
    child.stderr?.on('data', (chunk: Buffer) => {
      this.stderr += chunk.toString()
    })
    child.on('close', (code, signal) => {
      this.code = code
      this.signal = signal
      this.exited = true
    })
  }

  /** The rest of the first line that begins with `word`. */
  async line(word: string, ms = 20_000): Promise<string> {
    const find = (): string | undefined =>
      this.stdout
        .split('\n')
        .slice(0, -1)
        .find((line) => line.startsWith(`${word} `))
    await until(
      `the child says '${word}'\n${this.stdout}\n${this.stderr}`,
      () => find() !== undefined || this.exited,
      ms,
    )
    const line = find()
    if (line === undefined)
      throw new Error(`it ended without saying '${word}': ${this.stdout}\n${this.stderr}`)
    return line.slice(word.length + 1)
  }

  say(line: string): void {
    this.process.stdin?.write(`${line}\n`)
  }

  async exit(ms = 20_000): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    await until('the child has ended', () => this.exited, ms)
    return { code: this.code, signal: this.signal }
  }

  kill(): void {
    if (!this.exited) this.process.kill('SIGKILL')
  }
}

export function startChild(script: string, options: ChildOptions = {}): Child {
  const node = [...(options.execArgv ?? []), script, ...(options.args ?? [])]
  const env = { ...process.env, ...options.env }
  if (options.stderr !== undefined) {
    const fd = openSync(options.stderr, 'a')
    const child = startProcess(process.execPath, node, { env, stdio: ['pipe', 'pipe', fd] })
    closeSync(fd)
    return child
  }
  if (options.maxFiles === undefined) return startProcess(process.execPath, node, { env })
  const shell = `ulimit -n ${options.maxFiles}; exec "$@"`
  return startProcess('sh', ['-c', shell, 'sh', process.execPath, ...node], { env })
}

function startProcess(file: string, args: readonly string[], options: SpawnOptions): Child {
  return new Child(spawn(file, args, options))
}
