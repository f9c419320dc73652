/** Protocols in which a peer that ends its side has left (`endsWithPeer`), and ends that wait for nothing (`abort`). */
import { describe, expect, it } from 'vitest'
import type { ProtocolConnection } from '../src/connection.js'
import { type CloseReason, ErrorCode, RingloopError } from '../src/errors.js'
import type { Handler } from '../src/handler.js'
import { type FakeLoop, type FakeLoopOptions, fakeLoop, settle } from './support/fake-loop.js'
import { bodies, frames, LengthProtocol } from './support/length-protocol.js'

class Parting extends LengthProtocol {
  readonly endsWithPeer = true
}

class PartingTogether extends Parting {
  readonly multiplexed = true
}

interface Heard {
  readonly closes: CloseReason[]
  readonly ends: number[]
}

async function serve(
  onMessage: Handler['onMessage'],
  options: FakeLoopOptions = {},
): Promise<FakeLoop & Heard> {
  const heard: Heard = { closes: [], ends: [] }
  const handler: Handler = {
    onMessage,
    onEnd: () => void heard.ends.push(1),
    onClose: (_c, reason) => void heard.closes.push(reason),
  }
  return { ...(await fakeLoop(handler, { protocol: new Parting(), ...options })), ...heard }
}

const never = new Promise<string>(() => {})

describe('a peer that has left', () => {
  it.each([new Parting(), new PartingTogether()])('is not waited for', async (protocol) => {
    const fake = await serve(() => never, { protocol })
    const { socket } = fake.accept()
    socket.read(frames('a', 'b'))
    await settle()
    expect(socket.closed).toBeUndefined()
    socket.end()
    await settle()
    expect(fake.closes).toMatchObject([{ code: 'peer-closed' }])
    expect(fake.ends).toEqual([])
    expect(fake.ringsOut()).toBe(0)
    expect(fake.poller.violations).toEqual([])
  })

  it('gets what is answered at once, by promises too, however many', async () => {
    const fake = await serve(async (_c, _ctx, data) => {
      await undefined
      await undefined
      return data
    })
    const { socket } = fake.accept()
    const all = Array.from({ length: 500 }, (_, i) => `${i}`)
    socket.read(frames(...all))
    socket.end()
    while (socket.closed === undefined) await settle()
    expect(bodies(socket.out).map(String)).toEqual(all)
    expect(fake.ends).toEqual([1])
    expect(fake.closes).toMatchObject([{ code: 'peer-closed' }])
  })

  it('is waited for while the protocol holds packets, and under allowHalfOpen', async () => {
    for (const allowHalfOpen of [false, true]) {
      const fake = await serve(() => never, { allowHalfOpen })
      const { socket, c } = fake.accept()
      if (!allowHalfOpen) c.holdPackets()
      socket.read(frames('a'))
      socket.end()
      await settle()
      expect(socket.closed).toBeUndefined()
    }
  })

  it('leaves a handler that rejects for it without a line in the log', async () => {
    const gone = new RingloopError(ErrorCode.CLOSED, 'gone')
    for (const reason of [gone, new DOMException('aborted', { name: 'AbortError', cause: gone } as never)]) {
      let leave: (error: Error) => void = () => {}
      const answer = new Promise<string>((_resolve, reject) => {
        leave = reject
      })
      const fake = await serve(() => answer)
      const { socket, c } = fake.accept()
      socket.room = () => 0
      c.send('this does not get through')
      await settle()
      socket.read(frames('a'))
      socket.end()
      await settle()
      expect(c.isClosing).toBe(true)
      leave(reason)
      await settle()
      expect(fake.logger.find('error', '')).toEqual([])
    }
  })
})

/** Who pauses by itself, and goes on when the peer has left. */
class Telling extends LengthProtocol {
  readonly told: number[] = []

  onLeft(c: ProtocolConnection): void {
    this.told.push(c.id)
  }
}

describe('onLeft', () => {
  it.each(['leave', 'reset'] as const)(
    'is told to any protocol (%s), and the connection goes on as before',
    async (how) => {
      const protocol = new Telling()
      const fake = await serve((_c, _ctx, data) => data, { protocol })
      const { socket, c } = fake.accept()
      c.pause()
      await settle()
      socket[how]()
      await settle()
      expect(protocol.told).toEqual([c.id])
      expect([socket.closed, fake.closes]).toEqual([undefined, []])
    },
  )

  it('is not told under allowHalfOpen', async () => {
    const protocol = new Telling()
    const fake = await serve((_c, _ctx, data) => data, { protocol, allowHalfOpen: true })
    const { socket, c } = fake.accept()
    c.pause()
    socket.leave()
    await settle()
    expect(protocol.told).toEqual([])
  })
})

it('abort drops what is unsent, and onClose comes later with the reason', async () => {
  const fake = await serve(() => undefined)
  const { socket, c } = fake.accept()
  socket.room = () => 0
  c.send('this does not get through')
  await settle()
  expect(c.writeBufferLength).toBeGreaterThan(0)
  expect(() => c.abort('too slow' as never)).toThrow(expect.objectContaining({ code: ErrorCode.OPTION }))
  c.abort({ code: 'slow-consumer', message: 'too slow' })
  expect(fake.closes).toEqual([])
  await settle()
  expect(fake.closes).toEqual([{ code: 'slow-consumer', message: 'too slow' }])
  expect(socket.closed).toBe('at once')
  expect(fake.ringsOut()).toBe(0)
})
