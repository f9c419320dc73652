/** What Redis holds for topics with history: how much, for how long, and what becomes of it when others touch it. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { BrokerPosition, KeptMessages } from '../../src/broker.js'
import { RedisBroker, type RedisHistoryOptions } from '../../src/plugins/redis/index.js'
import { RecordingHost } from '../support/recording-host.js'
import { hasRedis, RedisEngine } from '../support/redis-engine.js'
import { until, within } from '../support/wait.js'

const TOPIC = 'kept/a'
const PLACE = `ringloop:place:${TOPIC}`
const KEPT = `ringloop:kept:${TOPIC}`
const MIB = 1024 * 1024

describe.skipIf(!hasRedis)('the history of a RedisBroker', () => {
  let engine: RedisEngine
  const brokers: RedisBroker[] = []

  beforeEach(async () => {
    engine = await RedisEngine.start()
  })

  afterEach(async () => {
    for (const broker of brokers.splice(0)) await broker.stop()
    await engine.close()
  })

  async function join(
    history: RedisHistoryOptions = {},
  ): Promise<{ broker: RedisBroker; host: RecordingHost }> {
    const broker = new RedisBroker({ url: engine.url, history: { prefix: 'kept/', ...history } })
    const host = new RecordingHost()
    await broker.start(host)
    brokers.push(broker)
    host.subscribe(broker, TOPIC)
    await until('it is joined', () => host.has(TOPIC))
    return { broker, host }
  }

  async function send(broker: RedisBroker, ...texts: readonly string[]): Promise<BrokerPosition[]> {
    return (await Promise.all(
      texts.map((text) => broker.publish(TOPIC, Buffer.from(text))),
    )) as BrokerPosition[]
  }

  const number = async (...command: readonly string[]): Promise<number> =>
    Number(await engine.command(...command))
  const keys = async (): Promise<string[]> => ((await engine.command('KEYS', '*')) as string[]).sort()
  const offsets = ({ messages }: KeptMessages): number[] => messages.map(({ offset }) => offset)

  it('is two keys for each topic, which end by themselves, the place last', async () => {
    const { broker } = await join({ size: 3, ttl: 60_000, positionTtl: 600_000 })
    await send(broker, '1', '2', '3', '4', '5')
    expect(await keys()).toEqual([KEPT, PLACE])
    expect(await number('LLEN', KEPT)).toBe(3)
    expect(await number('PTTL', KEPT)).toBeGreaterThan(30_000)
    expect(await number('PTTL', KEPT)).toBeLessThanOrEqual(60_000)
    expect(await number('PTTL', PLACE)).toBeGreaterThan(630_000)
    expect(await number('PTTL', PLACE)).toBeLessThanOrEqual(660_000)
  })

  it('is a place that ends by itself where a topic was only read, and nothing where it was only joined', async () => {
    const { broker } = await join()
    expect(await keys()).toEqual([])
    await broker.read(TOPIC, undefined)
    expect(await keys()).toEqual([PLACE])
    expect(await number('PTTL', PLACE)).toBeGreaterThan(0)
  })

  it('begins anew where the place is lost, without what was kept before', async () => {
    const { broker, host } = await join()
    const [first] = await send(broker, '1')
    await engine.command('DEL', PLACE)
    const [second] = await send(broker, '2')
    expect(second!.offset).toBe(1)
    expect(second!.epoch).not.toBe(first!.epoch)
    const kept = await broker.read(TOPIC, first)
    expect(kept).toMatchObject({ position: second, recovered: false, messages: [{ offset: 1 }] })
    await until('both have come', () => host.received.length === 2)
    expect(host.received.map(({ position }) => position)).toEqual([first, second])
  })

  it('says that something is missing where somebody has removed it', async () => {
    const { broker } = await join()
    const [first] = await send(broker, '1', '2', '3')
    await engine.command('LREM', KEPT, '1', '2:2')
    expect(await broker.read(TOPIC, first)).toMatchObject({ recovered: false, messages: [{ offset: 3 }] })
  })

  it('goes on, in order, when Redis has forgotten the scripts', async () => {
    const { broker, host } = await join()
    await send(broker, '1')
    await engine.command('SCRIPT', 'FLUSH')
    const places = await send(broker, '2', '3', '4')
    expect(places.map(({ offset }) => offset)).toEqual([2, 3, 4])
    await engine.command('SCRIPT', 'FLUSH')
    expect(offsets(await broker.read(TOPIC, places[0]))).toEqual([3, 4])
    await until('all have come', () => host.received.length === 4)
    expect(host.texts(TOPIC)).toEqual(['1', '2', '3', '4'])
  })

  it('gives the newest 2 MiB at most, and says that this is not all', async () => {
    const { broker } = await join()
    const bytes = Buffer.alloc(0.75 * MIB, 'x')
    const places: (BrokerPosition | undefined)[] = []
    for (let i = 0; i < 4; i++) places.push(await broker.publish(TOPIC, bytes))
    const kept = await broker.read(TOPIC, places[0])
    expect(kept).toMatchObject({ position: places[3], recovered: false })
    expect(offsets(kept)).toEqual([3, 4])
    expect(await broker.read(TOPIC, places[1])).toMatchObject({ recovered: true })
  })

  it('is read by many at once, all of whom are answered, also when the connection ends', async () => {
    const { broker, host } = await join()
    const [first] = await send(broker, '1', '2', '3')
    const all = Array.from({ length: 100 }, () => broker.read(TOPIC, first))
    for (const kept of await Promise.all(all)) expect(offsets(kept)).toEqual([2, 3])
    engine.stop()
    const late = Array.from({ length: 100 }, () => broker.read(TOPIC, first).catch(() => 'rejected'))
    await engine.kill()
    expect(new Set(await within('all to settle', Promise.all(late)))).toEqual(new Set(['rejected']))
    await engine.restart()
    await until('it is joined', () => host.has(TOPIC))
    expect(await broker.read(TOPIC, undefined)).toMatchObject({ messages: [] })
  })

  it('gives no place to what somebody else publishes to its channel', async () => {
    const { broker, host } = await join()
    const strange = [
      ...[
        '',
        'x',
        ':1:',
        'e:0:x',
        'e:01:x',
        'e:1',
        'e:99999999999999999:x',
        'e:9999999999999999:x',
        'a b:1:x',
      ],
      ...[`${'e'.repeat(65)}:1:x`, 'x'.repeat(100_000)],
    ]
    for (const text of strange) await engine.command('PUBLISH', `ringloop:${TOPIC}`, text)
    const [first] = await send(broker, 'ours')
    await until('ours has come', () => host.received.length > strange.length)
    expect(host.texts(TOPIC)).toEqual([...strange, 'ours'])
    expect(host.received.map(({ position }) => position)).toEqual([...strange.map(() => undefined), first])
    expect(host.reasons).toEqual([])
  })

  it('rejects where a key is something else, and only that', async () => {
    const { broker, host } = await join()
    const [first] = await send(broker, '0')
    await engine.command('SET', KEPT, 'x')
    await expect(broker.publish(TOPIC, Buffer.from('1'))).rejects.toThrow(/WRONGTYPE/)
    await engine.command('DEL', KEPT)
    const [third] = await send(broker, '2')
    expect(third).toEqual({ epoch: first!.epoch, offset: 3 })
    expect(await broker.read(TOPIC, first)).toMatchObject({ recovered: false, messages: [{ offset: 3 }] })
    await engine.command('SET', PLACE, 'x')
    await expect(broker.publish(TOPIC, Buffer.from('1'))).rejects.toThrow(/WRONGTYPE/)
    await expect(broker.read(TOPIC, undefined)).rejects.toThrow(/WRONGTYPE/)
    await expect(broker.publish('kept/b', Buffer.from('1'))).resolves.toMatchObject({ offset: 1 })
    expect(host.reasons).toEqual([])
  })

  it('rejects where Redis has no memory left', async () => {
    const { broker, host } = await join()
    await engine.command('CONFIG', 'SET', 'maxmemory', '1')
    await expect(broker.publish(TOPIC, Buffer.from('1'))).rejects.toThrow(/OOM/)
    await engine.command('CONFIG', 'SET', 'maxmemory', '0')
    expect(await send(broker, '2')).toMatchObject([{ offset: 1 }])
    expect(host.reasons).toEqual([])
  })

  it('counts beyond what fits into 32 bits', async () => {
    const { broker } = await join()
    const [{ epoch }] = (await send(broker, '1')) as [BrokerPosition]
    const far = Number.MAX_SAFE_INTEGER - 2
    await engine.command('HSET', PLACE, 'offset', `${far}`)
    expect(await send(broker, '2', '3')).toEqual([
      { epoch, offset: far + 1 },
      { epoch, offset: far + 2 },
    ])
    const kept = await broker.read(TOPIC, { epoch, offset: far })
    expect(offsets(kept)).toEqual([far + 1, far + 2])
    expect(kept.recovered).toBe(true)
  })

  it('is refused by a broker that keeps nothing', async () => {
    const broker = new RedisBroker({ url: engine.url })
    await broker.start(new RecordingHost())
    brokers.push(broker)
    await expect(broker.read(TOPIC, undefined)).rejects.toMatchObject({ code: 'ERR_RINGLOOP_STATE' })
  })
})
