/** Fairness: what one connection may take of a turn, and who goes on in the next. Time is the feature here. */
import { describe, expect, it, vi } from 'vitest'
import type { ProtocolConnection } from '../src/connection.js'
import type { Packet } from '../src/protocol/protocol.js'
import type { RingBuffer } from '../src/ringbuffer/ring-buffer.js'
import { fakeLoop, settle } from './support/fake-loop.js'
import { frames, LengthProtocol } from './support/length-protocol.js'

/** Keeps the thread for so long. */
function spin(ms: number): void {
  const end = performance.now() + ms
  while (performance.now() < end);
}

const MANY = 200

function flood(): Buffer {
  return frames(...Array.from({ length: MANY }, (_, i) => String(i)))
}

/** Half a millisecond for each packet. */
function slowLoop(seen: string[]): ReturnType<typeof fakeLoop> {
  return fakeLoop(
    {
      onMessage: (_c, _ctx, data) => {
        seen.push(String(data))
        spin(0.5)
      },
    },
    { protocol: new LengthProtocol(), takesTurns: true },
  )
}

describe('a connection with many packets', () => {
  it('hands over some of them in a turn, and the rest in later rounds, in order', async () => {
    const seen: string[] = []
    const fake = await slowLoop(seen)
    const { socket } = fake.accept()
    socket.read(flood())
    const first = seen.length
    expect(first).toBeGreaterThan(0)
    expect(first).toBeLessThan(MANY)
    await vi.waitFor(() => expect(seen).toHaveLength(MANY), { timeout: 30_000 })
    expect(seen).toEqual(Array.from({ length: MANY }, (_, i) => String(i)))
    await settle()
    expect(fake.ringsOut()).toBe(0)
  })

  it('does not keep another one waiting for them', async () => {
    const seen: string[] = []
    const fake = await slowLoop(seen)
    fake.accept().socket.read(flood())
    fake.accept().socket.read(frames('polite'))
    expect(seen).toContain('polite')
    expect(seen.length).toBeLessThan(MANY)
  })

  it('several of them take turns', async () => {
    const seen: number[] = []
    const fake = await fakeLoop(
      {
        onMessage: (c) => {
          seen.push(c.id)
          spin(0.5)
        },
      },
      { protocol: new LengthProtocol(), takesTurns: true },
    )
    const all = [fake.accept(), fake.accept(), fake.accept()]
    for (const { socket } of all) socket.read(flood())
    await vi.waitFor(() => expect(seen).toHaveLength(3 * MANY), { timeout: 60_000 })
    const lastOfFirst = seen.lastIndexOf(all[0]!.c.id)
    const firstOfLast = seen.indexOf(all[2]!.c.id)
    expect(firstOfLast).toBeLessThan(lastOfFirst)
  })

  it('is not read far ahead while it waits for its turn', async () => {
    const fake = await fakeLoop(
      { onMessage: () => spin(0.5) },
      { protocol: new LengthProtocol(), takesTurns: true },
    )
    const { socket, c } = fake.accept()
    let reads = 0
    while (socket.read(Buffer.concat(Array.from({ length: 40 }, flood)))) reads++
    expect(reads).toBeLessThan(20)
    expect(c.readBufferLength).toBeLessThan(256 * 1024)
    c.close()
    await settle()
    expect(fake.ringsOut()).toBe(0)
  })

  it('ends as it should when the peer has ended its side meanwhile', async () => {
    let seen = 0
    const reasons: string[] = []
    const fake = await fakeLoop(
      {
        onMessage: () => {
          seen++
          spin(0.2)
        },
        onClose: (_c, { code }) => void reasons.push(`${code} after ${seen}`),
      },
      { protocol: new LengthProtocol(), takesTurns: true },
    )
    const { socket } = fake.accept()
    socket.read(flood())
    socket.end()
    await vi.waitFor(() => expect(reasons).toEqual([`peer-closed after ${MANY}`]), { timeout: 30_000 })
  })
})

describe('yield', () => {
  it('of a connection: unPacket is asked again in a later round, also where no byte waits', async () => {
    const asked: number[] = []
    class Yielding extends LengthProtocol {
      override unPacket(c: ProtocolConnection, ring: RingBuffer): Packet<number> | undefined {
        asked.push(ring.length)
        if (asked.length === 1) {
          ring.retrieveAll()
          c.yield()
          return undefined
        }
        return super.unPacket(c, ring)
      }
    }
    const fake = await fakeLoop({ onMessage() {} }, { protocol: new Yielding() })
    const { socket } = fake.accept()
    socket.read(frames('abc'))
    expect(asked).toHaveLength(1)
    await settle()
    expect(asked).toEqual([7, 0])
    expect(fake.ringsOut()).toBe(0)
  })

  it('of a loop lets sockets be served between two steps', async () => {
    const order: string[] = []
    const fake = await fakeLoop({ onMessage: (_c, _ctx, data) => void order.push(String(data)) })
    const { socket } = fake.accept()
    const work = async (): Promise<void> => {
      for (let step = 0; step < 3; step++) {
        await fake.loop.yield()
        order.push(`step ${step}`)
        setImmediate(() => socket.read(`read ${step}`))
      }
    }
    await work()
    await settle()
    expect(order).toEqual(['step 0', 'read 0', 'step 1', 'read 1', 'step 2', 'read 2'])
  })

  it('drained() gives the others their turn when it was asked for too long', async () => {
    const fake = await fakeLoop({ onMessage() {} })
    const { c } = fake.accept()
    let sent = 0
    let stopped = false
    const stream = async (): Promise<void> => {
      while (!stopped && (await c.drained())) {
        c.send('x')
        sent++
        spin(0.05)
      }
    }
    const streaming = stream()
    await new Promise((resolve) => setTimeout(resolve, 1))
    // The timer got its turn, though the stream is always ready.
    stopped = true
    await streaming
    expect(sent).toBeGreaterThan(0)
    expect(sent).toBeLessThan(2000)
    c.close()
    await settle()
    expect(await c.drained()).toBe(false)
  })

  it('whoever yielded goes on when the loop has stopped', async () => {
    const fake = await fakeLoop({ onMessage() {} })
    const stopping = fake.loop.stop()
    const yielded = fake.loop.yield()
    await stopping
    await expect(yielded).resolves.toBeUndefined()
  })
})
