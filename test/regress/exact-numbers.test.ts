// NaN, 2 ** 32 and their like became 0 in the addon, which is somebody's poller and somebody's slot.
import { afterEach, expect, it } from 'vitest'
import { AcceptOnlySink } from '../../src/loop/poller/accept-only-sink.js'
import { loadNativeAddon } from '../../src/loop/poller/native-addon.js'
import { NativePoller } from '../../src/loop/poller/native-poller.js'
import { connectRaw, type RawClient } from '../support/raw-client.js'
import { until } from '../support/wait.js'

class Accepts extends AcceptOnlySink {
  slot = -1
  handleAccept(slot: number): void {
    this.slot = slot
  }
  handleAcceptError(): void {}
  handleFileLeft(): void {}
  handleLost(): void {}
}

// biome-ignore lint/suspicious/noExplicitAny: wrong arguments are what is tested
const addon = loadNativeAddon() as any
const WRONG = [Number.NaN, 2 ** 32, -(2 ** 32), 2 ** 31, 0.5, -0.5, Number.POSITIVE_INFINITY, 1e300]

let poller: NativePoller | undefined
let peer: RawClient | undefined

afterEach(() => {
  peer?.destroy()
  poller?.destroy()
})

it('refuses as a poller or a slot what is no int32, and touches nobody’s', async () => {
  const sink = new Accepts()
  poller = new NativePoller(sink)
  const { endpoint } = await poller.listen(
    { host: '127.0.0.1', port: 0 },
    { noDelay: true, keepAlive: 0, backlog: 16, reusePort: false, park: false },
  )
  peer = await connectRaw(endpoint as { port: number })
  await until('it is accepted', () => sink.slot >= 0)
  const bytes = Buffer.from('no')
  const methods = [
    'close',
    'setReading',
    'shutdownWrite',
    'peerAddr',
    'localAddr',
    'release',
    'adopt',
    'flush',
  ]
  // In a fresh process the first poller is number 0 and its first socket slot 0.
  for (const number of WRONG) {
    for (const method of methods) {
      expect(() => addon[method](0, number, true), `${method}(0, ${number})`).toThrow(TypeError)
      expect(() => addon[method](number, sink.slot, true), `${method}(${number}, …)`).toThrow(TypeError)
    }
    expect(() => addon.write(0, number, bytes, 0, 2)).toThrow(TypeError)
    expect(() => addon.handOff(0, sink.slot, number)).toThrow(TypeError)
    expect(() => addon.listenTcp(0, '127.0.0.1', number, 1, true, 0, false, 0, false)).toThrow(TypeError)
    expect(() => addon.destroy(number)).toThrow(TypeError)
  }
  expect(poller.write(sink.slot, Buffer.from('alive'), 0, 5)).toBe(5)
  await peer.bytes(5)
  expect(peer.text).toBe('alive')
})
