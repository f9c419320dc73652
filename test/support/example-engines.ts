/** The engines that examples take by a flag, where they are installed. Says which are not. */
import type { Engine } from '../brokers/broker.case.js'
import { hasNats, NatsEngine } from './nats-engine.js'
import { hasRedis, RedisEngine } from './redis-engine.js'

/** An engine, and the flags of an example that is to use it. */
export interface ExampleEngine {
  readonly engine: Engine
  readonly flags: readonly string[]
}

interface EngineKind {
  readonly name: string
  start(): Promise<ExampleEngine>
}

const REDIS: EngineKind = {
  name: 'redis',
  async start() {
    const engine = await RedisEngine.start()
    return { engine, flags: ['--redis', engine.url] }
  },
}

const NATS: EngineKind = {
  name: 'nats',
  async start() {
    const engine = await NatsEngine.start()
    return { engine, flags: ['--nats', `nats://${engine.server}`] }
  },
}

for (const [name, isThere] of [
  ['redis-server', hasRedis],
  ['nats-server', hasNats],
]) {
  if (isThere === false) console.error(`there is no ${name}: the tests of the examples over it are skipped`)
}

export const ENGINES: readonly EngineKind[] = [...(hasRedis ? [REDIS] : []), ...(hasNats ? [NATS] : [])]
