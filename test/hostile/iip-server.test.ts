/** An IIP server and clients that stop half-way: answers reach whom they are for, what nobody waits for ends. */
import { afterEach, describe, expect, it } from 'vitest'
import { endAll, type Frame, FramePeer, frame, parseFrames } from '../iip-support.js'
import { SHAPES } from '../support/hosted-server.js'
import { hostedScene } from '../support/scene.js'
import { until, within } from '../support/wait.js'

const [FIRST, ONLY, MORE, LAST] = [0, 1, 2, 3]
const RESPONSE = 5
const MIB = 1024 * 1024
const LONG = 60_000
const SHORT = 300
/** Between two answers of a slow handler. */
const SLOW = 150
/** What may be held, and the pieces that are more. */
const ROOM = 256 * 1024
const PIECE = Buffer.alloc(40_000)
const PIECES = 7
const DRAINING = '{"code":0}'

const { serve } = hostedScene()
afterEach(endAll)

/** Counts the frames of each channel as they come, and keeps none. */
function countFrames({ peer }: FramePeer): Map<number, number> {
  const counts = new Map<number, number>()
  let rest = Buffer.alloc(0)
  peer.socket.removeAllListeners('data').on('data', (chunk) => {
    rest = Buffer.concat([rest, chunk])
    for (const each of parseFrames(rest)) {
      counts.set(each.channel, (counts.get(each.channel) ?? 0) + 1)
      rest = rest.subarray(10 + each.path.length + each.data.length)
    }
  })
  return counts
}

/** On each of its channels a request, the last of which is too much to hold; the system takes in what is not read. */
async function fill(peer: FramePeer, path: string): Promise<void> {
  for (let channel = 1; channel <= PIECES; channel++) await peer.send(ONLY, path, channel, PIECE)
}

/** A connection with a channel of its own for the notice, and so many more. */
async function listening(port: number, more: number): Promise<FramePeer> {
  const peer = await FramePeer.connect(port, 1 + more)
  await peer.send(ONLY, '/sys/drain', 1, '{}')
  await peer.send(ONLY, '/echo', 0, 'hello')
  expect(texts(await peer.frames(2 + more)).at(-1)).toBe('hello')
  return peer
}

const texts = (frames: readonly Frame[]): string[] => frames.map(({ data }) => data.toString())

for (const shape of SHAPES) {
  describe(shape.name, () => {
    it('an answer that came before the end of its request is the only one, and the next is for the next', async () => {
      const server = await serve('iip-server.mjs', shape)
      const peer = await FramePeer.connect(server.port, 1)
      for (let i = 0; i < 50; i++) {
        await peer.send(FIRST, '/early', 1, `${i}`)
        await peer.frames(2 + 2 * i)
        const rest = [frame(MORE, '/early', 1, 'more'), frame(LAST, '/early', 1, 'last')]
        await peer.peer.write(Buffer.concat([...rest, frame(ONLY, '/echo', 1, `mine ${i}`)]))
        const answers = await peer.frames(3 + 2 * i)
        expect(texts(answers.slice(-2))).toEqual([`early ${i}`, `mine ${i}`])
        expect(answers.at(-1)).toMatchObject({ status: RESPONSE, path: '/echo', channel: 1 })
      }
    })

    it('a stream that is always ready keeps no other request of its connection waiting', async () => {
      const server = await serve('iip-server.mjs', shape)
      const channels = 13
      const peer = await FramePeer.connect(server.port, channels)
      const counts = countFrames(peer)
      await peer.send(ONLY, '/endless', 1, 'x')
      await until('the stream runs', () => (counts.get(1) ?? 0) > 100)
      for (let channel = 2; channel <= channels; channel++) await peer.send(ONLY, '/echo', channel, 'x')
      await until('all are answered', () => counts.size === channels, 3000)
    })

    for (const how of ['end', 'destroy', 'resetAndDestroy'] as const) {
      it(`a handler hears that its connection has ended (${how})`, async () => {
        const server = await serve('iip-server.mjs', shape)
        const peer = await FramePeer.connect(server.port, 1)
        await peer.send(ONLY, '/waits', 1, 'x')
        await server.told('waiting')
        peer.peer.socket[how]()
        const [told] = await server.told<{ data: string; code: string }>('aborted')
        expect(told).toMatchObject({ data: 'x', code: 'ERR_RINGLOOP_CLOSED' })
      })
    }

    // A socket that is not read says nothing of its end under the net poller: there requestTimeout bounds it.
    const waysToLeave = shape.poller === 'native' ? (['end', 'destroy', 'resetAndDestroy'] as const) : []
    for (const how of waysToLeave) {
      it.each(['maxHeldBytes', 'maxHeldBytesPerLoop'])(
        `handlers hear that a connection has ended (${how}) that %s holds back, and it ends`,
        async (limit) => {
          const options = { data: { protocol: { [limit]: ROOM } } }
          const server = await serve('iip-server.mjs', { ...shape, options })
          const peer = await FramePeer.connect(server.port, PIECES)
          await fill(peer, '/waits')
          await server.told('waiting', PIECES - 1)
          peer.peer.socket[how]()
          await until('nobody is left', async () => (await server.total()).connections === 0)
          expect(server.events('aborted').length).toBeGreaterThanOrEqual(PIECES - 1)
          expect(server.events('aborted')[0]).toMatchObject({ code: 'ERR_RINGLOOP_CLOSED' })
        },
      )
    }

    it.each(['maxHeldBytes', 'maxHeldBytesPerLoop'])(
      'a connection that %s holds back for handlers that never answer ends after requestTimeout',
      async (limit) => {
        const options = { logger: 'warn', data: { protocol: { [limit]: ROOM, requestTimeout: SHORT } } }
        const server = await serve('iip-server.mjs', { ...shape, options })
        const peer = await FramePeer.connect(server.port, PIECES)
        await fill(peer, '/never')
        await within('the end', peer.peer.ended)
        await until('it is counted', async () => (await server.total()).closed.closed === 1)
        await until('it is logged', () => server.child.stderr.includes(`held back for ${SHORT} ms`))
      },
    )

    it('a connection that is held back while its handlers answer one after another goes on', async () => {
      const options = { data: { protocol: { maxHeldBytes: ROOM, requestTimeout: 5 * SLOW } } }
      const server = await serve('iip-server.mjs', { ...shape, options })
      const peer = await FramePeer.connect(server.port, 1)
      const requests = Array.from({ length: 12 }, () => frame(ONLY, `/after?ms=${SLOW}`, 1, PIECE))
      void peer.peer.write(Buffer.concat(requests))
      expect(texts(await peer.frames(13)).slice(1)).toEqual(Array(12).fill(`${PIECE.length}`))
    })

    it('a connection that is held back while it is sent a stream goes on to the end of that', async () => {
      const options = { data: { protocol: { maxHeldBytes: ROOM, requestTimeout: 5 * SLOW } } }
      const server = await serve('iip-server.mjs', { ...shape, options })
      const peer = await FramePeer.connect(server.port, 1 + PIECES)
      await peer.send(ONLY, `/ticking?ms=${SLOW}`, 1 + PIECES, 'x')
      await fill(peer, '/never')
      await fill(peer, '/behind')
      const frames = parseFrames(await within('the end', peer.peer.ended))
      expect(texts(frames.filter(({ path }) => path === '/ticking'))).toEqual(Array(16).fill('tick'))
    })

    it('a handler that begins when its peer has ended hears of it', async () => {
      const server = await serve('iip-server.mjs', shape)
      const peer = await FramePeer.connect(server.port)
      const waiting = [frame(ONLY, '/waits', 0, 'first'), frame(ONLY, '/waits', 0, 'second')]
      peer.peer.socket.end(Buffer.concat(waiting))
      await within('the end', peer.peer.ended)
      expect(await server.told('aborted', 2)).toMatchObject([{ data: 'first' }, { data: 'second' }])
    })

    it('a stream that is given up when its peer has ended is not taken for a whole one', async () => {
      const server = await serve('iip-server.mjs', shape)
      const peer = await FramePeer.connect(server.port, 1)
      await peer.send(ONLY, '/half', 1, 'x')
      await peer.frames(2)
      peer.peer.socket.end()
      const frames = parseFrames(await peer.peer.ended)
      expect(frames.slice(1)).toMatchObject([{ status: 4, channel: 1 }])
      expect(server.child.stderr).toBe('')
    })

    it('a channel that is deleted ends its answer, and nothing is sent on it', async () => {
      const server = await serve('iip-server.mjs', shape)
      const peer = await FramePeer.connect(server.port, 2)
      await peer.send(ONLY, '/waits', 1, 'x')
      await peer.send(ONLY, '/waits', 1, 'it never had its turn')
      await server.told('waiting')
      await peer.send(ONLY, '/sys/delete_channel', 1, '{}')
      const [told] = await server.told('aborted')
      expect(told).toEqual({ data: 'x', code: 'ERR_RINGLOOP_CLOSED', reason: 'the channel was deleted' })
      await peer.send(ONLY, '/sys/new_channel', 0, '{}')
      await peer.send(ONLY, '/echo', 1, 'new')
      const answers = texts(await peer.frames(4))
      expect(answers.slice(2)).toEqual(['{"code":0,"channel_id":1}', 'new'])
      expect(server.events('waiting').length).toBe(1)
    })

    it.each(['/endless', '/quiet'])('a channel that is deleted ends its stream %s', async (path) => {
      const server = await serve('iip-server.mjs', shape)
      const peer = await FramePeer.connect(server.port, 2)
      const counts = countFrames(peer)
      await peer.send(ONLY, path, 1, 'x')
      await until('the stream runs', () => counts.has(1))
      await peer.send(ONLY, '/sys/delete_channel', 1, '{}')
      await server.told('source-ended')
      const isAnswered = async (): Promise<void> => {
        const before = counts.get(2) ?? 0
        await peer.send(ONLY, '/echo', 2, 'x')
        await until('the other channel is answered', () => counts.get(2) === before + 1)
      }
      await isAnswered()
      const sent = counts.get(1)
      await isAnswered()
      expect(counts.get(1)).toBe(sent)
    })

    it('a channel is deleted in the middle of its request', async () => {
      const server = await serve('iip-server.mjs', shape)
      const peer = await FramePeer.connect(server.port, 2)
      await peer.send(FIRST, '/length', 1, Buffer.alloc(100_000))
      await peer.send(ONLY, '/sys/delete_channel', 1, '{}')
      await peer.send(ONLY, '/sys/new_channel', 0, '{}')
      await peer.send(ONLY, '/echo', 1, 'new')
      expect(texts(await peer.frames(4)).slice(2)).toEqual(['{"code":0,"channel_id":1}', 'new'])
    })

    it('handlers that go on after their channel was deleted are no more than there may be channels', async () => {
      const options = { data: { protocol: { maxChannelsPerConn: 2 } } }
      const server = await serve('iip-server.mjs', { ...shape, options })
      const peer = await FramePeer.connect(server.port)
      const answered = async (count: number): Promise<string> => texts(await peer.frames(count)).at(-1)!
      for (let i = 1; i <= 2; i++) {
        await peer.send(ONLY, '/sys/new_channel', 0, '{}')
        expect(await answered(i)).toBe('{"code":0,"channel_id":1}')
        await peer.send(ONLY, '/never', 1, 'x')
        await peer.send(ONLY, '/sys/delete_channel', 1, '{}')
      }
      await peer.send(ONLY, '/sys/new_channel', 0, '{}')
      expect(await answered(3)).toBe('{"code":106,"message":"channel create limited"}')
    })

    it('a client that has asked hears of the drain, and is answered until it goes', async () => {
      const server = await serve('iip-server.mjs', shape)
      const [peer, other] = [await listening(server.port, 2), await FramePeer.connect(server.port, 1)]
      await peer.send(ONLY, '/later', 2, 'asked before')
      const stopped = server.ask('stop', LONG)
      await within('the end of who has not asked', other.peer.ended)
      expect(texts(await peer.frames(5)).at(-1)).toBe(DRAINING)
      await peer.send(ONLY, '/echo', 3, 'asked within')
      await peer.send(ONLY, '/sys/drain', 3, '{}')
      await peer.send(ONLY, '/sys/new_channel', 1, '{}')
      expect(texts(await peer.frames(8)).slice(5)).toEqual([
        'asked within',
        DRAINING,
        '{"code":0,"channel_id":4}',
      ])
      await peer.send(ONLY, '/open', 1, 'x')
      await peer.frames(10)
      peer.peer.socket.end(frame(ONLY, '/echo', 3, 'the last'))
      const last = parseFrames(await within('its own end', peer.peer.ended)).slice(8)
      expect(texts(last).sort()).toEqual(['asked before', 'opened', 'the last'])
      await within('the stop', stopped)
    })

    it('a client that has asked and is silent holds the stop no longer than the time to drain', async () => {
      const server = await serve('iip-server.mjs', shape)
      const peer = await listening(server.port, 0)
      await within('the stop', server.ask('stop', SHORT))
      const frames = parseFrames(await within('the end', peer.peer.ended))
      expect(frames.at(-1)).toMatchObject({ status: RESPONSE, path: '/sys/drain', channel: 1 })
    })

    it('who waits for the notice is idle, and can go', async () => {
      const server = await serve('iip-server.mjs', { ...shape, options: { idleTime: 200 } })
      const [silent, leaver] = [await listening(server.port, 0), await listening(server.port, 0)]
      leaver.peer.socket.end()
      await within('the end of who goes', leaver.peer.ended)
      await within('the end of who is silent', silent.peer.ended)
      await until('both are counted', async () => {
        const { closed } = await server.total()
        return closed.idle === 1 && closed['peer-closed'] === 1
      })
    })

    it('the notice takes no channel from the requests, and there is one', async () => {
      const options = { data: { protocol: { maxChannelsPerConn: 1 } } }
      const server = await serve('iip-server.mjs', { ...shape, options })
      const peer = await listening(server.port, 0)
      await peer.send(ONLY, '/sys/new_channel', 0, '{}')
      await peer.send(ONLY, '/sys/new_channel', 0, '{}')
      expect(texts(await peer.frames(4)).slice(2)).toEqual([
        '{"code":0,"channel_id":2}',
        '{"code":106,"message":"channel create limited"}',
      ])
      await peer.send(ONLY, '/sys/drain', 2, '{}')
      expect(texts(await peer.frames(5)).at(-1)).toBe('{"code":102,"message":"handle error"}')
      await peer.send(ONLY, '/sys/delete_channel', 1, '{}')
      await peer.send(ONLY, '/sys/drain', 2, '{}')
      await peer.send(ONLY, '/echo', 0, 'asked')
      expect(texts(await peer.frames(6)).at(-1)).toBe('asked')
      const stopped = server.ask('stop', LONG)
      expect((await peer.frames(7)).at(-1)).toMatchObject({ path: '/sys/drain', channel: 2 })
      peer.peer.socket.end()
      await within('the stop', stopped)
    })

    // In one thread, so that all connections are one loop's.
    if (shape.loops > 1) return
    describe('what all connections hold', () => {
      const options = { data: { protocol: { maxHeldBytesPerLoop: 32 * MIB } } }

      it('half requests take no more than half of what there may be, and whole ones go on', async () => {
        const server = await serve('iip-server.mjs', { ...shape, options })
        const before = server.memory()
        const peers: FramePeer[] = []
        let closed = 0
        for (let i = 0; i < 16; i++) {
          const peer = await FramePeer.connect(server.port, 2)
          peers.push(peer)
          void peer.peer.ended.then(() => closed++)
          await peer.send(FIRST, '/length', 1, Buffer.alloc(12 * MIB))
          await peer.send(ONLY, '/echo', 2, 'x')
          await Promise.race([peer.frames(3), peer.peer.ended])
        }
        await until('most are closed', () => closed >= 14)
        expect(server.memory() - before).toBeLessThan(150 * MIB)
        const whole = await FramePeer.connect(server.port)
        await whole.send(ONLY, '/length', 0, Buffer.alloc(12 * MIB))
        expect(texts(await whole.frames(1))).toEqual([`${12 * MIB}`])
        expect((await server.total()).closed['protocol-error']).toBeGreaterThanOrEqual(14)
      })

      it('half requests of many connections, each of them small, take no more than there may be', async () => {
        const protocol = { maxHeldBytesPerLoop: 4 * MIB }
        const server = await serve('iip-server.mjs', { ...shape, options: { data: { protocol } } })
        let closed = 0
        for (let i = 0; i < 200; i++) {
          const peer = await FramePeer.connect(server.port)
          void peer.peer.ended.then(() => closed++)
          await peer.peer.write(frame(FIRST, '/length', 0, Buffer.alloc(MIB)).subarray(0, 15_000))
        }
        // Each takes 64 KiB of memory.
        await until('some are closed', () => closed >= 200 - 65)
        const small = await FramePeer.connect(server.port)
        await small.send(ONLY, '/echo', 0, 'x')
        expect(texts(await small.frames(1))).toEqual(['x'])
      })

      it('who holds the most is closed where handlers never answer, and the others go on', async () => {
        const protocol = { maxHeldBytesPerLoop: MIB, requestTimeout: SHORT }
        const options = { logger: 'warn', data: { protocol } }
        const server = await serve('iip-server.mjs', { ...shape, options })
        const [most, less] = [
          await FramePeer.connect(server.port, 8),
          await FramePeer.connect(server.port, 2),
        ]
        await less.send(ONLY, '/never', 1, Buffer.alloc(100_000))
        for (let channel = 1; channel <= 8; channel++) {
          void most.send(ONLY, '/never', channel, Buffer.alloc(125_000)).catch(() => {})
        }
        void less.send(ONLY, '/length', 2, Buffer.alloc(300_000))
        await within('the end of who holds the most', most.peer.ended)
        expect(texts(await less.frames(3)).at(-1)).toBe('300000')
        await until('it is counted', async () => (await server.total()).closed.closed === 1)
      })

      it('requests that wait for handlers hold back the large ones, and not the small', async () => {
        const server = await serve('iip-server.mjs', { ...shape, options })
        const peers = await Promise.all(Array.from({ length: 8 }, () => FramePeer.connect(server.port, 1)))
        const large = (channel: number): Buffer => frame(ONLY, '/late-length', channel, Buffer.alloc(3 * MIB))
        for (const [i, { peer }] of peers.entries()) {
          await peer.write(large(0))
          await server.told('late', i + 1)
        }
        for (const { peer } of peers) void peer.write(large(1))
        const small = await FramePeer.connect(server.port)
        for (let i = 1; i <= 100; i++) {
          await small.send(ONLY, '/echo', 0, 'x')
          await small.frames(i)
        }
        expect(server.events('late').length).toBeLessThan(12)
        expect((await server.total()).connections).toBe(9)
        const opening = setInterval(() => void small.send(ONLY, '/open', 0, 'x'), 10)
        const answers = await Promise.all(peers.map((peer) => peer.frames(3)))
        clearInterval(opening)
        for (const each of answers) expect(texts(each).slice(1)).toEqual(Array(2).fill(`${3 * MIB}`))
      })
    })
  })
}
