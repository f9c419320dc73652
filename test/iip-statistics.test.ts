/** The statistics paths: the JSON of the Go implementation, with numbers that are right and summed over loops. */
import { afterEach, describe, expect, it } from 'vitest'
import { IipRouter, type MeasureJson } from '../src/plugins/iip/index.js'
import { Measure, measureText, merge } from '../src/plugins/iip/statistics.js'
import { atEnd, endAll, FramePeer, iipClient, serveIip } from './iip-support.js'

afterEach(endAll)

const HELLO = '{"code":0,"channel_id":1}'
/** Bytes of a frame besides path and data. */
const FRAME = 10

const echoRouter = (options = {}): IipRouter => new IipRouter(options).handle('/echo', ({ data }) => data)

async function ask(peer: FramePeer, path: string, data: string): Promise<string> {
  const before = (await peer.frames(0)).length
  await peer.send(1, path, 1, data)
  return (await peer.frames(before + 1)).at(-1)!.data.toString()
}

describe('what a server counts', () => {
  it('is told by /sys/server_count, /sys/path_count and /sys/connection_statis, byte for byte', async () => {
    const peer = await FramePeer.connect(await serveIip(echoRouter()), 1)
    await peer.send(0, '/echo', 1, 'one')
    await peer.send(3, '/echo', 1, 'two')
    await peer.frames(2)
    const echoBytes = 5 + FRAME + 6
    const count = {
      PacketsSent: 1,
      PacketReceived: 2,
      WholePacketSent: 1,
      WholePacketReceived: 1,
      BytesSent: echoBytes,
      BytesReceived: echoBytes + 5 + FRAME,
    }
    expect(await ask(peer, '/sys/path_count', '/echo')).toBe(JSON.stringify(count))
    const hello = '/sys/new_channel'.length + FRAME
    const pathCount = '/sys/path_count'.length + FRAME
    const first = {
      PacketsSent: 3,
      PacketReceived: 5,
      WholePacketSent: 3,
      WholePacketReceived: 4,
      BytesSent: count.BytesSent + hello + HELLO.length + pathCount + JSON.stringify(count).length,
      BytesReceived: count.BytesReceived + hello + 2 + pathCount + 5 + '/sys/server_count'.length + FRAME + 2,
    }
    expect(await ask(peer, '/sys/server_count', '{}')).toBe(JSON.stringify(first))

    const connections = JSON.parse(await ask(peer, '/sys/connection_statis', '{}'))
    const [[address, about]] = Object.entries(connections) as [
      [string, { Channels: object; WriteQueue: number }],
    ]
    expect(address).toMatch(/^127\.0\.0\.1:\d+$/)
    expect(Object.keys(about.Channels)).toEqual(['0', '1'])
    expect(about).toMatchObject({
      WriteQueue: 0,
      Channels: { 0: { ReceiveQueue: 0, Count: { PacketsSent: 1 } } },
    })
  })

  it('says so for a path that has no handler', async () => {
    const peer = await FramePeer.connect(await serveIip(echoRouter()), 1)
    for (const path of ['/sys/path_count', '/sys/path_measure']) {
      expect(await ask(peer, path, '/nope')).toBe(
        `{"code":-1,"message":"handler fail:path [${path}] not support"}`,
      )
    }
  })

  it('measures durations: 301 seconds, eight ranges, nanoseconds', async () => {
    const peer = await FramePeer.connect(await serveIip(echoRouter()), 1)
    for (let i = 0; i < 5; i++) await ask(peer, '/echo', 'x')
    const measure = JSON.parse(await ask(peer, '/sys/path_measure', '/echo')) as MeasureJson
    expect(Object.keys(measure)).toEqual([
      'five_minute_requests',
      'five_minute_duration',
      'all_requests',
      'all_duration',
      'five_minute_timecount',
      'all_timecount',
    ])
    expect([measure.five_minute_requests.length, measure.five_minute_timecount.length]).toEqual([301, 301])
    expect(measure.all_timecount.range_count.length).toBe(8)
    expect(measure.five_minute_requests.reduce((a, b) => a + b)).toBe(5)
    expect(measure.all_requests).toBe(5)
    expect(measure.all_duration).toBeGreaterThan(0)
    const server = JSON.parse(await ask(peer, '/sys/server_measure', '{}')) as MeasureJson
    expect(server.all_requests).toBe(6)
    expect(await ask(peer, '/sys/statis', '{"time_unit":"nanosecond"}')).toMatch(
      /^total count: \{.*\ntotal measure:\n5 minute requests {5}: 7, average duration: \d+\n[\s\S]*\/echo count: \{"PacketsSent":5,/,
    )
  })

  it('is told to nobody with off, and counts nothing then', async () => {
    const peer = await FramePeer.connect(await serveIip(echoRouter({ statistics: 'off' })), 1)
    expect(await ask(peer, '/sys/server_count', '{}')).toBe('{"code":102,"message":"handle error"}')
    expect(() => new IipRouter({ statistics: 'maybe' as never })).toThrow(/'loopback', 'on' or 'off'/)
  })

  it('may be replaced by a handler of one’s own', async () => {
    const router = echoRouter().handle('/sys/statis', () => 'mine')
    const peer = await FramePeer.connect(await serveIip(router), 1)
    expect(await ask(peer, '/sys/statis', '{}')).toBe('mine')
  })
})

describe('a measure', () => {
  it('forgets seconds that are older than five minutes', () => {
    const measure = new Measure('microsecond')
    measure.add(0.05, 10_000)
    measure.add(2, 200_000)
    measure.add(0.15, 310_500)
    const {
      five_minute_requests: seconds,
      all_requests: all,
      all_timecount: ranges,
    } = measure.toJson(310_900)
    expect([seconds[0], seconds[190], seconds[300], all]).toEqual([1, 1, 1, 3])
    expect(ranges.range_count.map(({ Count }) => Count)).toEqual([1, 1, 0, 0, 0, 0, 0, 1])
    expect(measure.toJson(311_000).five_minute_requests.reduce((a, b) => a + b)).toBe(2)
    expect(measure.toJson(10_000_000).five_minute_requests.reduce((a, b) => a + b)).toBe(0)
    measure.add(1, 311_000)
    expect(measure.toJson(311_000).five_minute_requests.reduce((a, b) => a + b)).toBe(3)
    expect(measureText(measure.toJson(311_000), 'microsecond')).toMatch(
      /all requests {10}: 4, average duration: 800\n/,
    )
  })

  it('is summed number by number', () => {
    const sum = merge<unknown>(
      { a: 1, list: [1, { b: 2 }], only: 1 },
      { a: 2, list: [3, { b: 4 }], other: 5 },
    )
    expect(sum).toEqual({ a: 3, list: [4, { b: 6 }], only: 1, other: 5 })
  })
})

describe('on several loops', () => {
  it('the numbers are those of all loops', async () => {
    // Threads need compiled code: the pretest script builds it.
    const { Server } = (await import('../dist/src/index.js' as string)) as typeof import('../src/index.js')
    const options = { address: '127.0.0.1:0', numLoops: 3, logger: false } as const
    const server = new Server(new URL('fixtures/iip-loop.mjs', import.meta.url), options)
    await server.start()
    atEnd(() => server.stop())
    const { port } = server.address
    const peers = await Promise.all([0, 1, 2, 3, 4, 5].map(() => FramePeer.connect(port, 1)))
    const loops = await Promise.all(peers.map((peer) => ask(peer, '/loop', '{}')))
    expect(new Set(loops).size).toBe(3)
    for (const peer of peers) await ask(peer, '/echo', 'x'.repeat(100))

    const bytes = 6 * ('/echo'.length + FRAME + 100)
    const wanted = [6, 6, 6, 6, bytes, bytes]
    expect(Object.values(JSON.parse(await ask(peers[0]!, '/sys/path_count', '/echo')))).toEqual(wanted)
    const { all_requests: all } = JSON.parse(
      await ask(peers[1]!, '/sys/path_measure', '/echo'),
    ) as MeasureJson
    expect(all).toBe(6)
    expect(Object.keys(JSON.parse(await ask(peers[2]!, '/sys/connection_statis', '{}'))).length).toBe(6)
    peers[5]!.peer.socket.destroy()
    await Promise.all([0, 1, 2].map((i) => ask(peers[i]!, '/echo', 'y')))
    const { PacketsSent } = JSON.parse(await ask(peers[3]!, '/sys/server_count', '{}'))
    expect(PacketsSent).toBe(6 * 3 + 3 + 3)
    expect(iipClient(port).connections).toBe(0)
  })
})
