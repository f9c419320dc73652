/**
 * The program of an engine that brokers connect to, in a process of its own on a free port of the loopback interface: it
 * can be killed, started again on the same port, stopped and continued. Whoever starts one ends it with `close`.
 */
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { Child } from './child.js'
import { freePort } from './free-port.js'
import { until } from './wait.js'

/** A free port may be taken by somebody else before the program has it. */
const ATTEMPTS = 5

export interface EngineProgram {
  readonly file: string
  args(port: number): readonly string[]
  /** What it writes when it can be connected to. */
  readonly ready: string
}

/** Where the program is, or `undefined`: Debian has servers in `/usr/sbin`, which is not in everybody's path. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(path.delimiter), '/usr/sbin', '/usr/local/sbin']
  return folders.map((folder) => path.join(folder, name)).find((file) => existsSync(file))
}

export class EngineProcess {
  readonly port: number
  readonly #program: EngineProgram
  #child: Child

  private constructor(program: EngineProgram, port: number, child: Child) {
    this.#program = program
    this.port = port
    this.#child = child
  }

  /** Resolves when it can be connected to. */
  static async start(program: EngineProgram): Promise<EngineProcess> {
    for (let attempt = 1; ; attempt++) {
      const port = await freePort()
      try {
        return new EngineProcess(program, port, await run(program, port))
      } catch (error) {
        if (attempt === ATTEMPTS) throw error
      }
    }
  }

  /** Ends it at once, as a crash would. */
  async kill(): Promise<void> {
    this.#child.kill()
    await this.#child.exit()
  }

  /** After {@link kill}: starts it again, on the same port and with nothing kept. */
  async restart(): Promise<void> {
    this.#child = await run(this.#program, this.port)
  }

  /**
   * It does nothing any more, but its sockets stay: the system goes on taking what is sent to them. Its threads are stopped one
   * by one, and until the last one is, it may still answer.
   */
  stop(): void {
    const { process } = this.#child
    process.kill('SIGSTOP')
    while (!isStopped(process.pid!)) {}
  }

  continue(): void {
    this.#child.process.kill('SIGCONT')
  }

  /** Ends it for good. */
  async close(): Promise<void> {
    await this.kill()
  }
}

function isStopped(pid: number): boolean {
  const threads = `/proc/${pid}/task`
  if (!existsSync(threads)) return true
  return readdirSync(threads).every((thread) =>
    / [Tt] /.test(readFileSync(`${threads}/${thread}/stat`, 'latin1')),
  )
}

async function run(program: EngineProgram, port: number): Promise<Child> {
  const child = new Child(spawn(program.file, program.args(port), { stdio: ['ignore', 'pipe', 'pipe'] }))
  const hasSaid = (): boolean => (child.stdout + child.stderr).includes(program.ready)
  await until(`${program.file} is ready`, () => hasSaid() || child.exited, 20_000)
  if (child.exited) throw new Error(`${program.file} has ended: ${child.stdout}${child.stderr}`)
  return child
}
