import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { CLOSE_CODES } from '../src/errors.js'
import { CELL, type Cell, LoopCounters, SharedStats } from '../src/loop/stats.js'
import { TLS_FAILURES } from '../src/tls-failure.js'

const NO_LIMIT = Number.POSITIVE_INFINITY

describe('SharedStats', () => {
  it('starts at zero, with every reason of a close', () => {
    const { loops, total } = new SharedStats(3).snapshot()
    expect(loops).toHaveLength(3)
    expect(Object.keys(total.closed)).toEqual([...CLOSE_CODES])
    expect(Object.keys(total.tlsFailures)).toEqual([...TLS_FAILURES])
    const {
      closed,
      tlsFailures,
      handlerTime,
      batchTime,
      batchSize,
      loopDelay,
      tlsHandshakeTime,
      ...counters
    } = total
    for (const histogram of [handlerTime, batchTime, batchSize, loopDelay, tlsHandshakeTime]) {
      const { bounds, counts, count, sum } = histogram
      expect(counts).toEqual(Array(bounds.length + 1).fill(0))
      expect([count, sum]).toEqual([0, 0])
    }
    const numbers = [closed, tlsFailures, counters].flatMap((each) => Object.values(each))
    expect(numbers.every((value) => value === 0)).toBe(true)
    expect(Object.keys(counters)).toEqual(
      expect.arrayContaining([...Object.keys(CELL), 'connections', 'rejected', 'restarts', 'lost']),
    )
  })

  it('shows another view of the same memory what was counted', () => {
    const stats = new SharedStats(2)
    const counters = new LoopCounters(stats, 1)
    counters.add(CELL.bytesIn, 2 ** 40)
    counters.add(CELL.bytesIn, 0.5)
    const { loops, total } = SharedStats.from(stats.buffer).snapshot()
    expect(loops.map((loop) => loop.bytesIn)).toEqual([0, 2 ** 40 + 0.5])
    expect(total.bytesIn).toBe(2 ** 40 + 0.5)
  })

  it('keeps every counter of every loop apart', () => {
    const stats = new SharedStats(3)
    const cells = Object.entries(CELL) as [keyof typeof CELL, Cell][]
    for (let loop = 0; loop < 3; loop++) {
      const counters = new LoopCounters(stats, loop)
      for (const [, cell] of cells) counters.add(cell, 100 * loop + cell + 1)
      for (const [i, reason] of CLOSE_CODES.entries()) {
        for (let n = 0; n <= i + loop; n++) counters.closed(reason, n % 2 === 0)
      }
    }
    const { loops, total } = stats.snapshot()
    for (const [loop, of] of loops.entries()) {
      for (const [name, cell] of cells) expect(of[name]).toBe(100 * loop + cell + 1)
      for (const [i, reason] of CLOSE_CODES.entries()) expect(of.closed[reason]).toBe(i + loop + 1)
    }
    expect(total.busyMs).toBe(300 + 3 * (CELL.busyMs + 1))
  })

  it('gives each loop cache lines of its own', () => {
    const stats = new SharedStats(3)
    for (let loop = 0; loop < 3; loop++) expect(stats.cellsOf(loop).byteOffset % 64).toBe(0)
    const end = stats.cellsOf(0).byteOffset + stats.cellsOf(0).byteLength
    expect(stats.cellsOf(1).byteOffset - 64).toBeGreaterThanOrEqual(end)
  })

  it('counts a connection from its assignment to its close', () => {
    const stats = new SharedStats(2)
    const counters = new LoopCounters(stats, 1)
    expect(stats.admit(1, NO_LIMIT)).toBe(true)
    expect(stats.connectionsOf(1)).toBe(1)
    counters.accepted()
    counters.connected()
    expect([stats.connectionsOf(1), stats.inbound]).toEqual([2, 1])
    counters.closed('peer-closed', true)
    counters.closed('closed', false)
    expect([stats.connectionsOf(1), stats.inbound]).toEqual([0, 0])
    expect(stats.snapshot().total).toMatchObject({
      connections: 0,
      accepted: 1,
      connected: 1,
      closed: { 'peer-closed': 1, closed: 1, idle: 0 },
    })
  })

  it('rejects above maxConnections over all loops, and does not count what connect made', () => {
    const stats = new SharedStats(2)
    new LoopCounters(stats, 0).connected()
    expect([0, 1, 0, 1].map((loop) => stats.admit(loop, 3))).toEqual([true, true, true, false])
    stats.leave(0)
    expect(stats.admit(1, 3)).toBe(true)
    const { loops, total } = stats.snapshot()
    expect(loops.map((loop) => loop.rejected)).toEqual([0, 1])
    expect(total.connections).toBe(4)
  })

  it('forgets the connections of a loop that is replaced, and nothing else', () => {
    const stats = new SharedStats(2)
    for (const loop of [0, 0, 1]) stats.admit(loop, NO_LIMIT)
    const counters = new LoopCounters(stats, 0)
    counters.connected()
    counters.add(CELL.writeBufferBytes, 500)
    counters.add(CELL.bytesOut, 7)
    stats.resetLoop(0)
    stats.resetLoop(0)
    expect(stats.inbound).toBe(1)
    const { loops } = stats.snapshot()
    expect(loops[0]).toMatchObject({
      connections: 0,
      writeBufferBytes: 0,
      bytesOut: 7,
      connected: 1,
      lost: 3,
    })
    expect(loops[1]).toMatchObject({ connections: 1, lost: 0 })
  })

  it('counts how often the thread of a loop died', () => {
    const stats = new SharedStats(2)
    stats.countRestart(1)
    stats.countRestart(1)
    const { loops, total } = stats.snapshot()
    expect([loops[0]!.restarts, loops[1]!.restarts, total.restarts]).toEqual([0, 2, 2])
  })

  it('adds up like a sheet of paper', () => {
    const operation = fc.tuple(fc.nat(2), fc.constantFrom('admit', 'connect', 'close', 'hang up', 'reset'))
    fc.assert(
      fc.property(fc.array(operation), fc.integer({ min: 0, max: 5 }), (operations, max) => {
        const stats = new SharedStats(3)
        const inbound = [0, 0, 0]
        const outbound = [0, 0, 0]
        const total = (): number => inbound.reduce((all, n) => all + n)
        for (const [loop, kind] of operations) {
          const counters = new LoopCounters(stats, loop)
          if (kind === 'admit') {
            const admitted = total() < max
            expect(stats.admit(loop, max)).toBe(admitted)
            if (admitted) inbound[loop]!++
          } else if (kind === 'connect') {
            counters.connected()
            outbound[loop]!++
          } else if (kind === 'close' && inbound[loop]! > 0) {
            counters.closed('closed', true)
            inbound[loop]!--
          } else if (kind === 'hang up' && outbound[loop]! > 0) {
            counters.closed('idle', false)
            outbound[loop]!--
          } else if (kind === 'reset') {
            stats.resetLoop(loop)
            inbound[loop] = 0
            outbound[loop] = 0
          }
          expect(stats.inbound).toBe(total())
          expect([0, 1, 2].map((i) => stats.connectionsOf(i))).toEqual(
            inbound.map((n, i) => n + outbound[i]!),
          )
        }
      }),
    )
  })

  it('counts batches and the time in them', () => {
    const stats = new SharedStats(1)
    const counters = new LoopCounters(stats, 0)
    counters.addBatch(10, 0.25)
    counters.addBatch(5, 0.5)
    expect(stats.snapshot().total).toMatchObject({ batches: 2, batchRecords: 15, busyMs: 0.75 })
  })

  it('puts every value into the bucket whose bound is the first not below it', () => {
    const value = fc.oneof(fc.double({ min: 0, max: 5_000, noNaN: true }), fc.constantFrom(0, 1e12))
    fc.assert(
      fc.property(fc.array(value), fc.array(value), (first, second) => {
        const stats = new SharedStats(2)
        for (const [loop, values] of [first, second].entries()) {
          const counters = new LoopCounters(stats, loop)
          for (const each of values) counters.addDelay(each)
        }
        const { loops, total } = stats.snapshot()
        const all = [first, second, [...first, ...second]]
        for (const [i, { loopDelay }] of [...loops, total].entries()) {
          const { bounds, counts, count, sum } = loopDelay
          const below = bounds.map((bound) => all[i]!.filter((each) => each <= bound).length)
          expect(counts.slice(0, -1).map((_, k) => counts.slice(0, k + 1).reduce((a, b) => a + b))).toEqual(
            below,
          )
          expect(count).toBe(all[i]!.length)
          expect(sum).toBeCloseTo(all[i]!.reduce((a, b) => a + b, 0))
        }
      }),
    )
  })

  it('keeps a bound in its own bucket, in every histogram', () => {
    const stats = new SharedStats(1)
    const counters = new LoopCounters(stats, 0)
    const empty = stats.snapshot().total
    for (const bound of empty.handlerTime.bounds) counters.addHandlerTime(bound, 3)
    for (const bound of empty.batchSize.bounds) counters.addBatch(bound, 0)
    for (const bound of empty.batchTime.bounds) counters.addBatch(1, bound)
    const { handlerTime, batchSize, batchTime } = stats.snapshot().total
    expect(handlerTime.counts).toEqual([...handlerTime.bounds.map(() => 3), 0])
    expect(batchSize.counts).toEqual([1 + batchTime.bounds.length, ...Array(10).fill(1), 0])
    expect(batchTime.counts).toEqual([1 + batchSize.bounds.length, ...Array(9).fill(1), 0])
  })

  it('is seen, and changed without loss, from two threads', async () => {
    const stats = new SharedStats(2)
    const rounds = 100_000
    const bytesIn = stats.cellsOf(1).byteOffset + CELL.bytesIn * 8
    // Stands in for a loop: it closes on loop 1 what this thread admits, and writes a cell of its own.
    const worker = new Worker(
      `const { parentPort, workerData: { buffer, line, bytesIn, rounds } } = require('node:worker_threads')
       const ints = new Int32Array(buffer), cell = new Float64Array(buffer, bytesIn, 1)
       parentPort.postMessage(new Int32Array(buffer)[0])
       for (let i = 0; i < rounds; i++) {
         cell[0] += 2
         Atomics.sub(ints, line, 1)
         Atomics.sub(ints, 1, 1)
       }`,
      {
        eval: true,
        workerData: { buffer: stats.buffer, line: (stats.cellsOf(1).byteOffset - 64) / 4, bytesIn, rounds },
      },
    )
    const [numLoops] = await once(worker, 'message')
    for (let i = 0; i < rounds + 3; i++) stats.admit(1, NO_LIMIT)
    await once(worker, 'exit')
    expect(numLoops).toBe(2)
    expect([stats.inbound, stats.connectionsOf(0), stats.connectionsOf(1)]).toEqual([3, 0, 3])
    expect(stats.snapshot().loops[1]!.bytesIn).toBe(2 * rounds)
  })
})
