// Closing a socket whose peer had ended while reading was off reset it, and the answer on its way was lost.
import { afterEach, describe, expect, it } from 'vitest'
import { NativePoller } from '../../src/loop/poller/native-poller.js'
import { NetPoller } from '../../src/loop/poller/net-poller.js'
import type { Poller, PollerSink } from '../../src/loop/poller/poller.js'
import { connectRaw, type RawClient } from '../support/raw-client.js'
import { Recorder } from '../support/recorder.js'
import { until } from '../support/wait.js'

const LISTEN = { noDelay: true, keepAlive: 0, backlog: 16, reusePort: false, park: false }
const ANSWER = Buffer.alloc(400_000, 'answer')

const ends: (() => void)[] = []

afterEach(() => {
  for (const end of ends.splice(0)) end()
})

/** A peer that has sent `unread` bytes to a socket that is not read. */
async function pairWith(
  create: (sink: PollerSink) => Poller,
  unread: number,
): Promise<{ poller: Poller; sink: Recorder; peer: RawClient; slot: number }> {
  const sink = new Recorder()
  const poller = create(sink)
  ends.push(() => poller.destroy())
  const { endpoint } = await poller.listen({ host: '127.0.0.1', port: 0 }, LISTEN)
  const peer = await connectRaw(endpoint as { port: number })
  ends.push(() => peer.destroy())
  await until('it is accepted', () => sink.accepted.length === 1)
  const slot = sink.accepted[0]!
  poller.setReading(slot, false)
  peer.write(Buffer.alloc(unread))
  return { poller, sink, peer, slot }
}

/** Writes the whole answer by the poller's contract. */
async function answer(poller: Poller, sink: Recorder, slot: number, peer: RawClient): Promise<void> {
  for (let at = 0; at < ANSWER.length; ) {
    const before = sink.count('writable')
    const taken = poller.write(slot, ANSWER, at, ANSWER.length)
    expect(taken).toBeGreaterThanOrEqual(0)
    at += taken
    if (at === ANSWER.length) break
    // The kernel's buffers are too small for the answer to wait there as a whole.
    peer.socket.resume()
    await until('there is room', () => sink.count('writable') > before)
  }
}

for (const [name, create] of [
  ['native', (sink: PollerSink) => new NativePoller(sink)],
  ['net', (sink: PollerSink) => new NetPoller(sink)],
] as const) {
  describe(`${name}: close with linger after the peer’s end, with bytes unread`, () => {
    for (const shut of [true, false]) {
      it(`delivers the whole answer, ${shut ? 'after' : 'without'} shutdownWrite`, async () => {
        const { poller, sink, peer, slot } = await pairWith(create, 100_000)
        await new Promise<void>((resolve) => peer.socket.end(resolve))
        peer.socket.pause()
        await answer(poller, sink, slot, peer)
        if (shut) poller.shutdownWrite(slot)
        // So that the socket's hangup is reported before it is closed.
        await new Promise((resolve) => setTimeout(resolve, 30))
        poller.close(slot, true)
        peer.socket.resume()
        await peer.whenEnded()
        expect(peer.error).toBeUndefined()
        expect(peer.received.equals(ANSWER)).toBe(true)
      })
    }
  })
}
