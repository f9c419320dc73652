/** A real `nats-server`, and what its monitor says of it. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Engine } from '../brokers/broker.case.js'
import { EngineProcess, findProgram } from './engine-process.js'
import { until } from './wait.js'

const FILE = findProgram('nats-server')

/** There is a `nats-server` here. */
export const hasNats: boolean = FILE !== undefined

/** What the monitor says of a connection. */
interface Monitored {
  readonly subscriptions_list?: readonly string[]
}

export class NatsEngine implements Engine {
  readonly #folder: string
  readonly #process: EngineProcess

  private constructor(folder: string, process: EngineProcess) {
    this.#folder = folder
    this.#process = process
  }

  /** `config` is the text of its configuration file. */
  static async start(config = ''): Promise<NatsEngine> {
    const folder = mkdtempSync(path.join(tmpdir(), 'ringloop-nats-'))
    const file = path.join(folder, 'nats.conf')
    writeFileSync(file, config)
    const process = await EngineProcess.start({
      file: FILE!,
      args: (port) => [
        ...['-a', '127.0.0.1', '-p', `${port}`, '-m', '-1'],
        ...['-c', file, '--ports_file_dir', folder],
      ],
      ready: 'Server is ready',
    })
    return new NatsEngine(folder, process)
  }

  get server(): string {
    return `127.0.0.1:${this.#process.port}`
  }

  async kill(): Promise<void> {
    await this.#process.kill()
    const file = this.#portsFile()
    if (file !== undefined) rmSync(path.join(this.#folder, file))
  }

  restart(): Promise<void> {
    return this.#process.restart()
  }

  stop(): void {
    this.#process.stop()
  }

  continue(): void {
    this.#process.continue()
  }

  async close(): Promise<void> {
    await this.#process.close()
    rmSync(this.#folder, { recursive: true, force: true })
  }

  /** Reads this text as its configuration from now on. */
  reconfigure(config: string): void {
    writeFileSync(path.join(this.#folder, 'nats.conf'), config)
    this.#signal('SIGHUP')
  }

  /** It goes down soon, and says so. */
  lameDuck(): void {
    this.#signal('SIGUSR2')
  }

  async subscriptions(): Promise<number> {
    const all = await this.connections()
    return new Set(all.flatMap(({ subscriptions_list = [] }) => subscriptions_list)).size
  }

  async connections(): Promise<readonly Monitored[]> {
    await until('it says where its monitor is', () => this.#portsFile() !== undefined)
    const text = readFileSync(path.join(this.#folder, this.#portsFile()!), 'utf8')
    const { monitoring } = JSON.parse(text) as { readonly monitoring: readonly [string] }
    const response = await fetch(`${monitoring[0]}/connz?subs=1`)
    return ((await response.json()) as { readonly connections: readonly Monitored[] }).connections
  }

  /** Its name tells the process. */
  #portsFile(): string | undefined {
    return readdirSync(this.#folder).find((file) => file.endsWith('.ports'))
  }

  #signal(signal: NodeJS.Signals): void {
    process.kill(Number(/_(\d+)\.ports$/.exec(this.#portsFile()!)![1]), signal)
  }
}
