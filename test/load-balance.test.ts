import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import {
  type Balancer,
  createBalancer,
  type LoadBalance,
  type LoopLoad,
} from '../src/threads/load-balance.js'

const unexpected = (error: unknown): never => expect.unreachable(String(error))
const noAddress = (): never => expect.unreachable('nobody asked for the address')
const STRATEGIES: LoadBalance[] = ['round-robin', 'least-connection', 'source-hash', () => 0]

function makeLoops(
  count: number,
  dead: readonly number[] = [],
): { -readonly [K in keyof LoopLoad]: LoopLoad[K] }[] {
  return Array.from({ length: count }, (_, id) => ({ id, connections: 0, alive: !dead.includes(id) }))
}

/** Assigns `count` connections and returns how many each of the loops has. */
function assign(
  balancer: Balancer,
  loops: ReturnType<typeof makeLoops>,
  count: number,
  peerAddr: () => string = noAddress,
): number[] {
  for (let i = 0; i < count; i++) loops[balancer.pick(loops, peerAddr)]!.connections++
  return loops.map((loop) => loop.connections)
}

describe('round-robin', () => {
  it('gives 9 connections to 4 loops as 3, 2, 2, 2', () => {
    expect(assign(createBalancer('round-robin', unexpected), makeLoops(4), 9)).toEqual([3, 2, 2, 2])
  })

  it('skips dead loops and takes them in again', () => {
    const balancer = createBalancer('round-robin', unexpected)
    const loops = makeLoops(4, [1])
    expect(assign(balancer, loops, 6)).toEqual([2, 0, 2, 2])
    loops[1]!.alive = true
    expect(assign(balancer, loops, 4)).toEqual([3, 1, 3, 3])
  })
})

describe('least-connection', () => {
  it('gives 200 connections to 4 loops as 50 each', () => {
    expect(assign(createBalancer('least-connection', unexpected), makeLoops(4), 200)).toEqual([
      50, 50, 50, 50,
    ])
  })

  it('takes the first of equals, and fills up the one that lost connections', () => {
    const balancer = createBalancer('least-connection', unexpected)
    const loops = makeLoops(3)
    expect(balancer.pick(loops, noAddress)).toBe(0)
    loops[0]!.connections = 5
    loops[1]!.connections = 7
    loops[2]!.connections = 4
    expect(balancer.pick(loops, noAddress)).toBe(2)
    loops[2]!.alive = false
    expect(balancer.pick(loops, noAddress)).toBe(0)
  })
})

describe('source-hash', () => {
  const balancer = createBalancer('source-hash', unexpected)

  it('sends an address to the same loop whatever its port', () => {
    const loops = makeLoops(4)
    for (const host of ['10.0.0.1', '192.168.7.9', '[::1]', '[fe80::1234]']) {
      const first = balancer.pick(loops, () => `${host}:1`)
      for (const port of [80, 1833, 65_535]) expect(balancer.pick(loops, () => `${host}:${port}`)).toBe(first)
    }
  })

  it('is FNV-1a of the host', () => {
    // Published test vectors of FNV-1a, 32 bits: "" 0x811c9dc5, "a" 0xe40c292c, "foobar" 0xbf9cf968.
    const loops = makeLoops(1_009)
    expect(balancer.pick(loops, () => '')).toBe(0x811c9dc5 % 1_009)
    expect(balancer.pick(loops, () => 'a:1')).toBe(0xe40c292c % 1_009)
    expect(balancer.pick(loops, () => 'foobar:80')).toBe(0xbf9cf968 % 1_009)
  })

  it('spreads many addresses', () => {
    let host = 0
    const counts = assign(balancer, makeLoops(4), 1_000, () => `10.0.${host >> 8}.${host++ & 255}:5000`)
    for (const count of counts) expect(count).toBeGreaterThan(150)
  })

  it('moves only the addresses of a loop that died, to the next one', () => {
    const before = makeLoops(4)
    const after = makeLoops(4, [2])
    for (let i = 0; i < 200; i++) {
      const home = balancer.pick(before, () => `10.1.2.${i}:9`)
      expect(balancer.pick(after, () => `10.1.2.${i}:9`)).toBe(home === 2 ? 3 : home)
    }
  })
})

describe('a function', () => {
  it('gets the address and the loops, and its index is taken', () => {
    const choose = vi.fn(() => 2)
    const loops = makeLoops(4)
    expect(createBalancer(choose, unexpected).pick(loops, () => '10.0.0.1:80')).toBe(2)
    expect(choose.mock.calls).toEqual([['10.0.0.1:80', loops]])
  })

  it('has its index moved on to a living loop when it is not one', () => {
    const loops = makeLoops(4, [0, 2])
    for (const [index, picked] of [
      [2, 3],
      [-1, 1],
      [1.5, 1],
      [Number.NaN, 1],
      [7, 3],
    ] as const) {
      expect(createBalancer(() => index, unexpected).pick(loops, () => '')).toBe(picked)
    }
    expect(createBalancer(() => undefined as unknown as number, unexpected).pick(loops, () => '')).toBe(1)
  })

  it('is replaced by round-robin where it throws, and the error is reported', () => {
    const onError = vi.fn()
    const error = new Error('boom')
    const balancer = createBalancer(() => {
      throw error
    }, onError)
    expect(assign(balancer, makeLoops(4), 9, () => '10.0.0.1:80')).toEqual([3, 2, 2, 2])
    expect(onError).toHaveBeenCalledTimes(9)
    expect(onError).toHaveBeenCalledWith(error)
  })
})

describe('every strategy', () => {
  it('asks for the address only if it says so, and then once', () => {
    for (const strategy of STRATEGIES) {
      const balancer = createBalancer(strategy, unexpected)
      const peerAddr = vi.fn(() => '10.0.0.1:80')
      balancer.pick(makeLoops(2), peerAddr)
      expect(peerAddr).toHaveBeenCalledTimes(balancer.needsAddress ? 1 : 0)
    }
  })

  it('picks a living loop, or -1 when there is none', () => {
    const anyLoops = fc.array(fc.record({ id: fc.nat(), connections: fc.nat(), alive: fc.boolean() }))
    const balancers = STRATEGIES.map((strategy) => createBalancer(strategy, unexpected))
    fc.assert(
      fc.property(anyLoops, fc.ipV4(), (loops, host) => {
        for (const balancer of balancers) {
          const index = balancer.pick(loops, () => `${host}:1`)
          if (loops.some((loop) => loop.alive)) expect(loops[index]?.alive).toBe(true)
          else expect(index).toBe(-1)
        }
      }),
    )
  })
})
