/** How a connection to Redis is kept, given up and made again. */
import { afterEach, describe, expect, it } from 'vitest'
import { RedisBroker } from '../../src/plugins/redis/index.js'
import { RedisConnection } from '../../src/plugins/redis/redis-connection.js'
import { redisSettings } from '../../src/plugins/redis/redis-options.js'
import { openSockets } from '../support/descriptors.js'
import { contentRedis, FakeRedis } from '../support/fake-redis.js'
import { connectRaw } from '../support/raw-client.js'
import { RecordingHost } from '../support/recording-host.js'
import { hasRedis, RedisEngine } from '../support/redis-engine.js'
import { rounds, until } from '../support/wait.js'

const closers: (() => Promise<void>)[] = []

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

async function fake(answer: (command: string) => string | undefined): Promise<FakeRedis> {
  const redis = await FakeRedis.start(answer)
  closers.push(() => redis.close())
  return redis
}

async function joined(broker: RedisBroker, ...topics: readonly string[]): Promise<RecordingHost> {
  const host = new RecordingHost()
  await broker.start(host)
  closers.push(() => broker.stop())
  host.subscribe(broker, ...topics)
  await until('they are joined', () => host.has(...topics))
  return host
}

describe('a connection to Redis', () => {
  it('that is closed while it is made leaves nothing open', async () => {
    const redis = await fake(contentRedis)
    const options = { url: `redis://127.0.0.1:${redis.port}` }
    const owner = { wanted: new Set<string>(), joined: () => {}, message: () => {}, ended: () => {} }
    const before = openSockets()
    const connection = new RedisConnection(options, redisSettings(options), owner)
    const opening = connection.open()
    connection.close()
    await expect(opening).rejects.toMatchObject({ code: 'ERR_RINGLOOP_CONNECT' })
    const later = await connectRaw({ host: '127.0.0.1', port: redis.port })
    await until('a later one is made', () => redis.open > 0)
    later.destroy()
    await until('no socket is left', () => openSockets() === before)
    expect(connection.isOpen).toBe(false)
  })

  it('is not given up where this thread was held up and the answer waits', async () => {
    const pause = new Int32Array(new SharedArrayBuffer(4))
    let pings = 0
    const redis = await fake((command) => {
      if (command !== 'PING') return contentRedis(command)
      pings++
      queueMicrotask(() => setImmediate(() => Atomics.wait(pause, 0, 0, 500)))
      return '+PONG\r\n'
    })
    const broker = new RedisBroker({ url: `redis://127.0.0.1:${redis.port}`, pingInterval: 300 })
    await joined(broker)
    await until('it was asked often', () => pings >= 3)
    expect(redis.connections).toBe(1)
  })

  it('is given up where nothing is answered, and made again', async () => {
    let isSilent = false
    const redis = await fake((command) => (isSilent ? undefined : contentRedis(command)))
    const broker = new RedisBroker({
      url: `redis://127.0.0.1:${redis.port}`,
      pingInterval: 300,
      connectTimeout: 1000,
    })
    const host = await joined(broker, 'a')
    isSilent = true
    await until('it is parted', () => !host.has('a'))
    expect(host.reasons).toEqual(['it has not answered for 300 ms'])
    await until('an attempt was made', () => redis.connections > 1)
    isSilent = false
    await until('it is joined', () => host.has('a'))
    await until('only one is left', () => redis.open === 1)
  })

  it('is given up where what comes is no Redis any more', async () => {
    let isStrange = false
    const redis = await fake((command) => (isStrange ? '?!\r\n' : contentRedis(command)))
    const broker = new RedisBroker({ url: `redis://127.0.0.1:${redis.port}` })
    const host = await joined(broker, 'a')
    isStrange = true
    await expect(broker.publish('a', Buffer.from('x'))).rejects.toThrow(Error)
    await until('it is parted', () => !host.has('a'))
    isStrange = false
    await until('it is joined', () => host.has('a'))
  })

  it('tells nothing after a stop, even of what came in the same read', async () => {
    const redis = await fake((command) => contentRedis(command))
    const broker = new RedisBroker({ url: `redis://127.0.0.1:${redis.port}` })
    const host = await joined(broker, 'a')
    const { calls } = host
    const stopped = broker.publish('a', Buffer.from('x')).then(() => broker.stop())
    redis.say('>3\r\n$7\r\nmessage\r\n$10\r\nringloop:a\r\n$1\r\nx\r\n'.repeat(1000))
    await stopped
    const { calls: after } = host
    await rounds(10)
    expect(host.calls).toBe(after)
    expect(calls).toBeLessThanOrEqual(after)
  })
})

describe.skipIf(!hasRedis)('a connection to a real Redis', () => {
  it('that is refused again and again is said once, and made when it may be', async () => {
    const engine = await RedisEngine.start()
    closers.push(() => engine.close())
    await engine.command('ACL', 'SETUSER', 'u', 'on', '>right', '~*', '&*', '+@all')
    const broker = new RedisBroker({ url: engine.url, username: 'u', password: 'right' })
    const host = await joined(broker, 'a')
    await engine.command('ACL', 'SETUSER', 'u', 'resetpass', '>other')
    await engine.command('CLIENT', 'KILL', 'USER', 'u')
    await until('it is parted', () => !host.has('a'))
    const attempts = async (): Promise<number> => {
      const stats = String(await engine.command('INFO', 'errorstats'))
      return Number(/errorstat_WRONGPASS:count=(\d+)/.exec(stats)?.[1] ?? 0)
    }
    await until('several attempts were made', async () => (await attempts()) >= 3)
    expect(host.logger.find('warn', 'change the user and the password')).toHaveLength(1)
    await engine.command('ACL', 'SETUSER', 'u', 'resetpass', '>right')
    await until('it is joined', () => host.has('a'))
  })

  it('is one for commands and messages', async () => {
    const engine = await RedisEngine.start()
    closers.push(() => engine.close())
    const host = new RecordingHost()
    const broker = new RedisBroker({ url: engine.url, history: {} })
    await broker.start(host)
    closers.push(() => broker.stop())
    host.subscribe(broker, 'a')
    await until('it is joined', () => host.has('a'))
    await broker.publish('a', Buffer.from('x'))
    const clients = String(await engine.command('CLIENT', 'LIST'))
      .trim()
      .split('\n')
    expect(clients.filter((line) => !line.includes('cmd=client'))).toEqual([
      expect.stringContaining('resp=3'),
    ])
  })
})
