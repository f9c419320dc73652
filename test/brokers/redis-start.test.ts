/** What a broker says when there is no Redis that it can use: one sentence that says what to change, in good time. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { RedisBroker, type RedisBrokerOptions } from '../../src/plugins/redis/index.js'
import { openSockets } from '../support/descriptors.js'
import { contentRedis, FakeRedis, hello } from '../support/fake-redis.js'
import { RecordingHost } from '../support/recording-host.js'
import { hasRedis, RedisEngine } from '../support/redis-engine.js'
import { until, within } from '../support/wait.js'

const SECRET = 'hush-hush'
const closers: (() => Promise<void>)[] = []

afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

async function fake(answer: (command: string) => string | undefined): Promise<FakeRedis> {
  const redis = await FakeRedis.start(answer)
  closers.push(() => redis.close())
  return redis
}

async function engine(...args: readonly string[]): Promise<RedisEngine> {
  const redis = await RedisEngine.start(...args)
  closers.push(() => redis.close())
  return redis
}

/** What `start` rejects with. */
async function failure(options: RedisBrokerOptions): Promise<Error & { code?: string }> {
  const broker = new RedisBroker(options)
  const host = new RecordingHost()
  const error = await within(
    'a rejection',
    broker.start(host).then(
      () => broker.stop(),
      (reason: Error) => reason,
    ),
    20_000,
  )
  expect(error).toMatchObject({ code: 'ERR_RINGLOOP_CONNECT' })
  expect(everythingIn(error as Error)).not.toContain(SECRET)
  expect(host.calls).toBe(0)
  return error as Error
}

function everythingIn(error: Error): string {
  return `${error.stack}${error.cause instanceof Error ? everythingIn(error.cause) : ''}${JSON.stringify(error)}`
}

const withSecret = (port: number): string => `redis://somebody:${SECRET}@127.0.0.1:${port}`

describe('RedisBroker.start where something else listens', () => {
  it('says that an old server is to be upgraded', async () => {
    const redis = await fake((command) => contentRedis(command, hello('6.2.14')))
    const { message } = await failure({ url: withSecret(redis.port) })
    expect(message).toMatch(/127\.0\.0\.1:\d+ .*it is 6\.2\.14, and 7\.0 or later is needed: upgrade it/)
  })

  it('says so of one that does not even know HELLO', async () => {
    const redis = await fake(() => '-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n')
    expect((await failure({ url: withSecret(redis.port) })).message).toMatch(/7\.0 or later is needed/)
  })

  it('says that a replica is not enough', async () => {
    const redis = await fake((command) => contentRedis(command, hello('7.2.0', 'standalone', 'replica')))
    expect((await failure({ url: withSecret(redis.port) })).message).toMatch(/connect to the master/)
  })

  it('says that a cluster keeps no history, and takes one without', async () => {
    const redis = await fake((command) => contentRedis(command, hello('7.2.0', 'cluster')))
    const url = withSecret(redis.port)
    expect((await failure({ url, history: {} })).message).toMatch(/leave out the option history/)
    const broker = new RedisBroker({ url })
    await broker.start(new RecordingHost())
    await broker.stop()
  })

  it('gives up what accepts and never answers, and leaves nothing open', async () => {
    const before = openSockets()
    const redis = await fake(() => undefined)
    const { message } = await failure({ url: withSecret(redis.port), connectTimeout: 100 })
    expect(message).toMatch(/has not answered within 100 ms; see whether it is Redis/)
    await until('it is closed', () => redis.open === 0)
    expect(redis.connections).toBe(1)
    await redis.close()
    closers.length = 0
    await until('no socket is left', () => openSockets() <= before)
  })

  it('says what came where it is no Redis', async () => {
    const redis = await fake(() => 'HTTP/1.1 400 Bad Request\r\n\r\n')
    expect((await failure({ url: withSecret(redis.port) })).message).toMatch(
      /see whether it is Redis that listens there/,
    )
  })

  it('says that nobody is there', async () => {
    const redis = await FakeRedis.start(() => undefined)
    const { port } = redis
    await redis.close()
    const { message } = await failure({ url: withSecret(port) })
    expect(message).toMatch(new RegExp(`nothing answers as Redis at 127\\.0\\.0\\.1:${port} .*change url`))
    expect((await failure({ socket: { path: '/no/such/file', tls: false } })).message).toContain(
      '/no/such/file',
    )
  })

  it('is for one server', async () => {
    const redis = await fake((command) => contentRedis(command, hello('7.2.0')))
    const broker = new RedisBroker({ url: withSecret(redis.port) })
    await broker.start(new RecordingHost())
    await expect(broker.start(new RecordingHost())).rejects.toMatchObject({ code: 'ERR_RINGLOOP_STATE' })
    await broker.stop()
  })
})

describe('new RedisBroker', () => {
  const refused = (options: unknown): Error & { code?: string } => {
    try {
      new RedisBroker(options as RedisBrokerOptions)
    } catch (error) {
      expect(everythingIn(error as Error)).not.toContain(SECRET)
      return error as Error
    }
    throw new Error('it was taken')
  }

  it.each([
    [{ url: `127.0.0.1:6379/${SECRET}` }, /url is written redis:\/\/user:password@host:6379\/0/],
    [{ url: `http://a:${SECRET}@127.0.0.1` }, /redis:/],
    [{ url: `redis://a:${SECRET}@127.0.0.1/zero` }, /pathname/],
    [{ url: `redis://a:${SECRET}%zz@127.0.0.1` }, /URI malformed/],
    [{ url: `rediss://a:${SECRET}@127.0.0.1`, socket: { tls: true } }, /socket\.tls goes without url/],
    [{ url: { text: SECRET } }, /url must be a string/],
    [{ password: [SECRET] }, /password must be a string/],
    [{ socket: SECRET }, /socket must be an object/],
    [{ prefix: 5 }, /prefix must be a string/],
    [{ connectTimeout: 0 }, /connectTimeout must be an integer/],
    [{ pingInterval: Number.POSITIVE_INFINITY }, /pingInterval must be an integer/],
    [{ history: { prefix: 5 } }, /history\.prefix must be a string/],
    [{ history: { size: 0 } }, /history\.size must be an integer/],
    [{ history: { size: 10_001 } }, /history\.size must be an integer/],
    [{ history: { ttl: 0.5 } }, /history\.ttl must be an integer/],
    [{ history: { positionTtl: -1 } }, /history\.positionTtl must be an integer/],
    [{ history: null }, /the options of history must be an object/],
  ])('throws for %j', (options, sentence) => {
    const error = refused(options)
    expect(error.code).toBe('ERR_RINGLOOP_OPTION')
    expect(error.message).toMatch(sentence)
  })

  it('takes every kind of address, and does not write into what it is given', () => {
    const socket = Object.freeze({ host: '127.0.0.1', port: 1 })
    const options = Object.freeze({ socket, username: 'a', password: 'b', database: 1, name: 'c' })
    expect(new RedisBroker(options).history).toBeUndefined()
    for (const url of [
      'redis://h',
      'rediss://a:b@[::1]:1/2',
      'unix:///tmp/redis.sock',
      'unix://a:b@/tmp/r?db=1',
    ]) {
      expect(new RedisBroker({ url, history: { prefix: 'kept/' } }).history).toEqual({ prefix: 'kept/' })
    }
    expect(new RedisBroker({ history: {} }).history).toEqual({ prefix: '' })
  })
})

describe.skipIf(!hasRedis)('RedisBroker.start with rights', () => {
  it('says that the password is wrong, or that there should be one', async () => {
    const redis = await engine('--requirepass', 'right')
    for (const url of [redis.url, redis.url.replace('//', `//:${SECRET}@`)]) {
      expect((await failure({ url })).message).toMatch(/change the user and the password/)
    }
    const broker = new RedisBroker({ url: redis.url, password: 'right' })
    await broker.start(new RecordingHost())
    await broker.stop()
  })

  it('is content with the rights that are documented, and says which one is missing', async () => {
    const redis = await engine()
    const rights = ['+hello', '+ping', '+publish', '+subscribe', '+unsubscribe']
    const kept = [
      '+evalsha',
      '+eval',
      '+script|load',
      '+hmget',
      '+hset',
      '+hincrby',
      '+pexpire',
      '+unlink',
      '+lpush',
      '+ltrim',
      '+lrange',
    ]
    const asUser = async (...rules: readonly string[]): Promise<RedisBrokerOptions> => {
      await redis.command('ACL', 'SETUSER', 'u', 'reset', 'on', `>${SECRET}`, ...rules)
      return { url: redis.url, username: 'u', password: SECRET }
    }
    const broker = new RedisBroker(await asUser('&ringloop:*', ...rights))
    await broker.start(new RecordingHost())
    await broker.publish('a', Buffer.from('x'))
    await broker.stop()
    const keeper = new RedisBroker({
      ...(await asUser('&ringloop:*', '~ringloop:*', ...rights, ...kept)),
      history: {},
    })
    await keeper.start(new RecordingHost())
    const first = await keeper.publish('a', Buffer.from('x'))
    expect((await keeper.read('a', { ...first!, offset: 0 })).messages).toHaveLength(1)
    await keeper.stop()
    for (const rules of [
      ['&other:*', ...rights],
      ['&ringloop:*', ...rights.filter((each) => each !== '+publish')],
    ]) {
      expect((await failure(await asUser(...rules))).message).toMatch(/its user needs more rights.*NOPERM/)
    }
  })

  it('works over a unix socket and in another database', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'ringloop-'))
    closers.push(() => rm(folder, { recursive: true }))
    const file = path.join(folder, 'redis.sock')
    const redis = await engine('--unixsocket', file)
    const broker = new RedisBroker({ url: `unix://${file}?db=3`, history: {}, name: 'a-server' })
    await broker.start(new RecordingHost())
    await broker.publish('a', Buffer.from('x'))
    expect(String(await redis.command('INFO', 'keyspace'))).toContain('db3:keys=2')
    expect(String(await redis.command('CLIENT', 'LIST'))).toContain('name=a-server')
    await broker.stop()
  })
})
