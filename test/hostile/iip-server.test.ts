/** An IIP server and clients that stop half-way: answers reach whom they are for, what nobody waits for ends. */
import { afterEach, describe, expect, it } from 'vitest'
import { endAll, type Frame, FramePeer, frame, parseFrames } from '../iip-support.js'
import { SHAPES } from '../support/hosted-server.js'
import { hostedScene } from '../support/scene.js'
import { until } from '../support/wait.js'

const [FIRST, ONLY, MORE, LAST] = [0, 1, 2, 3]
const RESPONSE = 5

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
  })
}
