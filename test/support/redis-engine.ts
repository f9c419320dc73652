/** A `redis-server` without persistence, and a client of it that looks at what it has. */
import { createClient } from '@redis/client'
import type { Engine } from '../brokers/broker.case.js'
import { EngineProcess, findProgram } from './engine-process.js'

const FILE = findProgram('redis-server')

/** There is a `redis-server` here. */
export const hasRedis: boolean = FILE !== undefined

export class RedisEngine implements Engine {
  readonly #process: EngineProcess

  private constructor(process: EngineProcess) {
    this.#process = process
  }

  /** `args` are further arguments, such as `--requirepass`. */
  static async start(...args: readonly string[]): Promise<RedisEngine> {
    const process = await EngineProcess.start({
      file: FILE!,
      args: (port) => [
        ...['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'],
        ...args,
      ],
      ready: 'Ready to accept connections',
    })
    return new RedisEngine(process)
  }

  get url(): string {
    return `redis://127.0.0.1:${this.#process.port}`
  }

  kill(): Promise<void> {
    return this.#process.kill()
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

  close(): Promise<void> {
    return this.#process.close()
  }

  async subscriptions(): Promise<number> {
    return ((await this.command('PUBSUB', 'CHANNELS')) as unknown[]).length
  }

  /** What it answers to a command that somebody else gives. */
  async command(...args: readonly (string | Buffer)[]): Promise<unknown> {
    const client = createClient({ url: this.url })
    client.on('error', () => {})
    await client.connect()
    try {
      return await client.sendCommand(args)
    } finally {
      client.destroy()
    }
  }
}
