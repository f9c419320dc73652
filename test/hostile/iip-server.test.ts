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
  })
}
