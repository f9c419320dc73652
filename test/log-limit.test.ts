/** Lines of a log that peers cause are few, whatever the peers do. */
import { afterEach, describe, expect, it, vi } from 'vitest'
import { LogLimit } from '../src/log-limit.js'
import { fakeLoop } from './support/fake-loop.js'
import { LengthProtocol } from './support/length-protocol.js'

afterEach(() => {
  vi.restoreAllMocks()
})

describe('a limit of log lines', () => {
  it('lets one of each kind through in a second, and counts those left out', () => {
    const limit = new LogLimit()
    expect(limit.admit('a', 0)).toBe(0)
    expect(limit.admit('b', 0)).toBe(0)
    for (let i = 1; i <= 99; i++) expect(limit.admit('a', 10 * i)).toBeUndefined()
    expect(limit.admit('a', 1000)).toBe(99)
    expect(limit.admit('a', 1999)).toBeUndefined()
    expect(limit.admit('b', 5000)).toBe(0)
    expect(limit.admit('a', 5000)).toBe(1)
  })

  it('takes kinds without end for one, and forgets those of a second ago', () => {
    const limit = new LogLimit()
    let lines = 0
    for (let i = 0; i < 10_000; i++) if (limit.admit(`kind ${i}`, 0) !== undefined) lines++
    expect(lines).toBe(65)
    expect(limit.admit('kind 0', 500)).toBeUndefined()
    expect(limit.admit('another', 1000)).toBe(0)
    expect(limit.admit('kind 5000', 1000)).toBe(0)
    for (let i = 0; i < 62; i++) limit.admit(`later ${i}`, 1000)
    expect(limit.admit('one too many', 1000)).toBe(10_000 - 65 + 1)
  })
})

it('peers that break the protocol cannot fill the log', async () => {
  const fake = await fakeLoop({ onMessage: () => {} }, { protocol: new LengthProtocol() })
  const tooLong = Buffer.alloc(4, 0xff)
  const offend = (): void => {
    const { socket } = fake.accept()
    socket.read(tooLong)
  }
  for (let i = 0; i < 100; i++) offend()
  expect(fake.logger.find('info', 'the peer broke the protocol')).toHaveLength(1)
  vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 1000)
  offend()
  const [, last] = fake.logger.find('info', 'the peer broke the protocol')
  expect(last!.fields).toMatchObject({ leftOut: 99 })
})
