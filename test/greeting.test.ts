/** A promise of `onConnect`: awaited before the first packet, within `handshakeTimeout`. */
import { describe, expect, it, vi } from 'vitest'
import type { ProtocolConnection } from '../src/connection.js'
import type { CloseReason } from '../src/errors.js'
import type { Packet } from '../src/protocol/protocol.js'
import { RawProtocol } from '../src/protocol/raw.js'
import type { RingBuffer } from '../src/ringbuffer/ring-buffer.js'
import { fakeLoop, settle } from './support/fake-loop.js'
import { frames, LengthProtocol } from './support/length-protocol.js'

interface Gate {
  readonly open: () => void
  readonly fail: (error: Error) => void
  readonly promise: Promise<void>
}

function gate(): Gate {
  let open!: () => void
  let fail!: (error: Error) => void
  const promise = new Promise<void>((resolve, reject) => {
    open = resolve
    fail = reject
  })
  return { open, fail, promise }
}

describe('async onConnect', () => {
  it('holds packets back until it has settled, and then hands them over in order', async () => {
    const { open, promise } = gate()
    const calls: string[] = []
    const fake = await fakeLoop(
      {
        onConnect: async () => {
          await promise
          calls.push('ready')
        },
        onMessage: (_c, _ctx, data) => void calls.push(String(data)),
      },
      { protocol: new LengthProtocol() },
    )
    const { socket } = fake.accept()
    socket.read(frames('one', 'two'))
    await settle()
    expect(calls).toEqual([])
    open()
    await settle()
    expect(calls).toEqual(['ready', 'one', 'two'])
    expect(fake.ringsOut()).toBe(0)
  })

  it.each([false, true])(
    'also holds the packet back that was cut in the call that ended the handshake (borrow %s)',
    async (borrow) => {
      const { open, promise } = gate()
      const calls: string[] = []
      /** The first line is the handshake; the rest of the same read is a packet of the same call. */
      class Shaking extends RawProtocol {
        readonly handshake = true
        override unPacket(c: ProtocolConnection, ring: RingBuffer): Packet | undefined {
          const at = ring.indexOf('\n')
          if (at >= 0) {
            ring.retrieve(at + 1)
            c.established()
          }
          return super.unPacket(c, ring)
        }
      }
      const fake = await fakeLoop(
        {
          onConnect: async () => {
            await promise
            calls.push('ready')
          },
          onMessage: (_c, _ctx, data) => void calls.push(String(data)),
        },
        { protocol: new Shaking({ borrow }) },
      )
      const { socket } = fake.accept()
      socket.read('hello\nsecret')
      socket.read(' and more')
      await settle()
      expect(calls).toEqual([])
      open()
      await settle()
      expect(calls).toEqual(['ready', 'secret', ' and more'])
      expect(fake.ringsOut()).toBe(0)
    },
  )

  it('that rejects closes the connection; nothing was handed over', async () => {
    const { fail, promise } = gate()
    const calls: string[] = []
    const fake = await fakeLoop({
      onConnect: () => promise,
      onMessage: () => void calls.push('message'),
      onClose: (_c, { message }) => void calls.push(message),
    })
    const { socket } = fake.accept()
    socket.read('x')
    fail(new Error('who are you'))
    await settle()
    expect(calls).toEqual(['onConnect failed: who are you'])
    expect(fake.ringsOut()).toBe(0)
  })

  it('that takes longer than handshakeTimeout closes the connection', async () => {
    const reasons: CloseReason[] = []
    const fake = await fakeLoop(
      {
        onConnect: () => new Promise(() => {}),
        onMessage() {},
        onClose: (_c, reason) => void reasons.push(reason),
      },
      { handshakeTimeout: 30 },
    )
    fake.accept().socket.read('x')
    await vi.waitFor(() => expect(reasons).toMatchObject([{ code: 'handshake-timeout' }]), {
      timeout: 10_000,
    })
    expect(fake.ringsOut()).toBe(0)
  })

  it('the end of the peer’s side waits for it too', async () => {
    const { open, promise } = gate()
    const calls: string[] = []
    const fake = await fakeLoop({
      onConnect: () => promise,
      onMessage: (_c, _ctx, data) => void calls.push(String(data)),
      onEnd: () => void calls.push('end'),
      onClose: (_c, { code }) => void calls.push(code),
    })
    const { socket } = fake.accept()
    socket.read('last words')
    socket.end()
    await settle()
    expect(calls).toEqual([])
    open()
    await settle()
    expect(calls).toEqual(['last words', 'end', 'peer-closed'])
  })

  it('a protocol that never ends its handshake is closed after handshakeTimeout', async () => {
    class Silent extends RawProtocol {
      readonly handshake = true
      override unPacket(_c: ProtocolConnection, ring: RingBuffer): undefined {
        ring.retrieveAll()
      }
    }
    const fake = await fakeLoop({ onMessage() {} }, { protocol: new Silent(), handshakeTimeout: 30 })
    const { socket } = fake.accept()
    socket.read('x')
    await vi.waitFor(() => expect(socket.closed).toBeDefined(), { timeout: 10_000 })
    expect(fake.loop.stats().closed['handshake-timeout']).toBe(1)
  })
})

describe('onConnect that is called from within unPacket', () => {
  class Shaking extends RawProtocol {
    readonly handshake = true
    override unPacket(c: ProtocolConnection, ring: RingBuffer): Packet | undefined {
      c.established()
      return super.unPacket(c, ring)
    }
  }

  it.each(['pause', 'close', 'throw'] as const)('and does %s gets no packet of that call', async (what) => {
    const seen: string[] = []
    const fake = await fakeLoop(
      {
        onConnect: (c) => {
          if (what === 'pause') c.pause()
          else if (what === 'close') c.close()
          else throw new Error('no')
        },
        onMessage: (_c, _ctx, data) => void seen.push(String(data)),
      },
      { protocol: new Shaking() },
    )
    const { socket, c } = fake.accept()
    socket.read('early')
    await settle()
    expect(seen).toEqual([])
    if (what !== 'pause') return
    c.resume()
    await settle()
    expect(seen).toEqual(['early'])
  })

  it('a packet that waits for it is handed over also when the socket breaks meanwhile', async () => {
    const { open, promise } = gate()
    const seen: string[] = []
    const fake = await fakeLoop(
      { onConnect: () => promise, onMessage: (_c, _ctx, data) => void seen.push(String(data)) },
      { protocol: new Shaking() },
    )
    const { socket } = fake.accept()
    socket.read('early')
    socket.reset()
    open()
    await settle()
    expect(seen).toEqual(['early'])
    expect(socket.closed).toBeDefined()
  })

  it('onEnd is told late where the peer had ended before the handshake was over', async () => {
    const seen: string[] = []
    class Late extends RawProtocol {
      readonly handshake = true
    }
    const fake = await fakeLoop(
      { onMessage() {}, onEnd: () => void seen.push('end') },
      { protocol: new Late(), allowHalfOpen: true },
    )
    const { socket, c } = fake.accept()
    socket.end()
    await settle()
    expect(seen).toEqual([])
    ;(c as ProtocolConnection).established()
    await settle()
    expect(seen).toEqual(['end'])
  })
})
