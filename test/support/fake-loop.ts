/** An event loop on a fake poller, for tests of the connection's states without a system. */
import { vi } from 'vitest'
import { connectionConfig } from '../../src/connection/config.js'
import type { AnyConnection } from '../../src/connection/host.js'
import type { Handler } from '../../src/handler.js'
import { SharedAdmission } from '../../src/loop/admission.js'
import { EventLoop, type LoopSetup } from '../../src/loop/event-loop.js'
import { SharedStats } from '../../src/loop/stats.js'
import type { ConnectionLimits } from '../../src/options.js'
import type { Protocol } from '../../src/protocol/protocol.js'
import { RawProtocol } from '../../src/protocol/raw.js'
import { FakePoller, type FakeSocket } from '../fake-poller.js'
import { type MemoryLogger, memoryLogger } from './memory-logger.js'
import { rounds } from './wait.js'

// biome-ignore lint/suspicious/noExplicitAny: each test has its own types
type Any = any

export interface FakeLoop {
  readonly loop: EventLoop
  readonly poller: FakePoller
  readonly logger: MemoryLogger
  /** Rings taken from the pools and not given back. */
  ringsOut(): number
  /** Accepts a connection: the fake socket and, of the same moment, the connection. */
  accept(): { socket: FakeSocket; c: AnyConnection }
}

export interface FakeLoopOptions extends ConnectionLimits {
  readonly protocol?: Protocol<Any, Any>
  readonly slabBytes?: number
  readonly records?: number
  /** Turns end when their time is over. Default `false`: whatever a read brings is handed over in its turn. */
  readonly takesTurns?: boolean
  /** Of a loop that has others, or other machines, beside it. */
  readonly beyond?: Pick<LoopSetup, 'relay' | 'remoteTopics'>
}

export async function fakeLoop(handler: Handler<Any, Any>, options: FakeLoopOptions = {}): Promise<FakeLoop> {
  const stats = new SharedStats(1)
  const logger = memoryLogger()
  let poller: FakePoller | undefined
  const loop = new EventLoop(
    { logger },
    {
      id: 0,
      serverId: 'test',
      stats,
      createPoller: (sink) => {
        poller = new FakePoller(sink, options.slabBytes, options.records)
        return poller
      },
      ...options.beyond,
    },
  )
  const config = connectionConfig(handler, options.protocol ?? new RawProtocol(), options)
  await loop.serve(config, new SharedAdmission(stats, 0, Number.POSITIVE_INFINITY))
  if (options.takesTurns !== true) vi.spyOn(loop.turns, 'lap').mockReturnValue(0)
  let taken = 0
  for (const pool of [loop.table.pool, loop.table.outPool]) {
    const { take, give } = { take: pool.take.bind(pool), give: pool.give.bind(pool) }
    vi.spyOn(pool, 'take').mockImplementation(() => {
      taken++
      return take()
    })
    vi.spyOn(pool, 'give').mockImplementation((ring) => {
      taken--
      give(ring)
    })
  }
  const fake = poller!
  return {
    loop,
    poller: fake,
    logger,
    ringsOut: () => taken,
    accept: () => {
      const before = new Set(loop.connections)
      const socket = fake.accept()
      const c = [...loop.connections].find((each) => !before.has(each))
      return { socket, c: c as AnyConnection }
    },
  }
}

/** Lets queued turns, promises and immediates run. */
export async function settle(): Promise<void> {
  await rounds(4)
}
