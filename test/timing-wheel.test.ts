import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Timer } from '../src/timers/timer.js'
import { TimingWheel, type TimingWheelOptions } from '../src/timers/timing-wheel.js'

const DAY = 86_400_000

/** The wheel's clock: faked Node time, and what a stall adds to it. */
let stalled = 0
const now = (): number => performance.now() + stalled
const makeWheel = (options: TimingWheelOptions = {}): TimingWheel => new TimingWheel({ now, ...options })

describe('TimingWheel', () => {
  beforeEach(() => {
    stalled = 0
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
  })
  afterEach(() => {
    vi.unstubAllGlobals()
    vi.useRealTimers()
  })

  it('fires once, not early and at most a tick late', () => {
    const wheel = makeWheel()
    const start = now()
    const fired: number[] = []
    vi.advanceTimersByTime(7)
    wheel.runAfter(25, () => fired.push(now() - start))
    vi.advanceTimersByTime(1000)
    expect(fired).toHaveLength(1)
    expect(fired[0]).toBeGreaterThanOrEqual(32)
    expect(fired[0]).toBeLessThanOrEqual(42)
  })

  it('fires a delay of 0 in the next tick, not at once', () => {
    const wheel = makeWheel()
    const fire = vi.fn()
    wheel.runAfter(0, fire)
    expect(fire).not.toHaveBeenCalled()
    vi.advanceTimersByTime(10)
    expect(fire).toHaveBeenCalledTimes(1)
  })

  it.each([2_550, 2_560, 2_570, 655_350, 655_360, 655_370, DAY, 2 ** 31 - 1, 2 ** 31, 2 ** 31 * 25])(
    'cascades a delay of %i ms down to its tick',
    (ms) => {
      const wheel = makeWheel()
      const start = now()
      let fired = -1
      wheel.runAfter(ms, () => {
        fired = now() - start
      })
      vi.advanceTimersByTime(ms + 20)
      expect(fired).toBeGreaterThanOrEqual(ms)
      expect(fired).toBeLessThanOrEqual(ms + 11)
    },
  )

  it('keeps firing when the count of ticks passes 2^32', () => {
    const wheel = makeWheel({ tick: 1 })
    const start = now()
    stalled = 2 ** 32 - 500
    const fired: number[] = []
    for (const ms of [499, 500, 501, 3_000]) wheel.runAfter(ms, () => fired.push(now() - start - 2 ** 32))
    vi.advanceTimersByTime(5_000)
    expect(fired).toEqual([-1, 0, 1, 2_500])
  })

  it('fires in the order of ticks, and within a tick in the order of adding, as a sorted list would', () => {
    const operation = fc.record({
      kind: fc.constantFrom('add', 'add', 'stop', 'restart', 'wait', 'stall'),
      ms: fc.oneof(fc.nat(50), fc.nat(3_000), fc.nat(1_000_000), fc.nat(2 ** 31)),
      which: fc.nat(100),
    })
    const wheels = fc.record({
      tick: fc.constantFrom(1, 3, 10, 100),
      wheelSize: fc.constantFrom(2, 8, 64, 256),
    })
    fc.assert(
      fc.property(wheels, fc.array(operation, { maxLength: 60 }), (options, operations) => {
        const node = new FakeNode()
        const model = new ModelWheel(options.tick, node)
        const wheel = new TimingWheel({ ...options, now: () => node.now })
        const fired: number[] = []
        const timers: Timer[] = []
        const add = (ms: number): void => {
          const id = timers.length
          timers.push(wheel.runAfter(ms, () => fired.push(id) && model.expectDue(id)))
          model.schedule(id, ms)
        }
        const pick = (which: number): number => which % timers.length
        for (const op of operations) {
          if (op.kind === 'add' || timers.length === 0) add(op.ms)
          else if (op.kind === 'wait') node.wait(op.ms)
          else if (op.kind === 'stall') node.stall(op.ms)
          else if (op.kind === 'stop') {
            timers[pick(op.which)]!.stop()
            model.stop(pick(op.which))
          } else {
            timers[pick(op.which)]!.restart(op.ms)
            model.schedule(pick(op.which), op.ms)
          }
          // A timer may be added while the thread is late, but what is due has fired when it is idle again.
          if (op.kind !== 'stall') node.wait(0)
          if (op.kind !== 'stall') expect(fired).toEqual(model.expire())
        }
        node.wait(2 ** 31 + 2 * options.tick)
        expect(fired).toEqual(model.expire())
        expect([wheel.length, node.timers.size]).toEqual([0, 0])
      }),
      { numRuns: 300 },
    )
  })

  describe('runEvery', () => {
    it('keeps a fixed rate: lateness does not add up', () => {
      const wheel = makeWheel()
      const start = now()
      const fired: number[] = []
      wheel.runEvery(25, () => fired.push(now() - start))
      vi.advanceTimersByTime(1_005)
      expect(fired).toHaveLength(40)
      for (const [i, at] of fired.entries()) {
        expect(at).toBeGreaterThanOrEqual(25 * (i + 1))
        expect(at).toBeLessThanOrEqual(25 * (i + 1) + 11)
      }
    })

    it('fires once after a stall and goes on in the old rhythm', () => {
      const wheel = makeWheel()
      const start = now()
      const fired: number[] = []
      wheel.runEvery(100, () => fired.push(now() - start))
      stalled = 1_050
      vi.advanceTimersByTime(100)
      expect(fired).toHaveLength(1)
      vi.advanceTimersByTime(200)
      expect(fired.slice(1)).toEqual([1_200, 1_300])
    })

    it('takes a period below the tick as one tick', () => {
      const wheel = makeWheel()
      const fire = vi.fn()
      wheel.runEvery(0, fire)
      vi.advanceTimersByTime(100)
      expect(fire).toHaveBeenCalledTimes(10)
    })

    it('can be stopped from its own callback', () => {
      const wheel = makeWheel()
      const fire = vi.fn(() => timer.stop())
      const timer = wheel.runEvery(10, fire)
      vi.advanceTimersByTime(100)
      expect(fire).toHaveBeenCalledTimes(1)
      expect(timer.active).toBe(false)
    })
  })

  describe('stop and restart', () => {
    it('is idempotent and leaves other timers alone', () => {
      const wheel = makeWheel()
      const kept = vi.fn()
      const timer = wheel.runAfter(10, () => expect.unreachable())
      wheel.runAfter(10, kept)
      timer.stop()
      timer.stop()
      vi.advanceTimersByTime(50)
      timer.stop()
      expect(kept).toHaveBeenCalledTimes(1)
    })

    it('lets a callback stop the timers that fire with it, before and after it', () => {
      const wheel = makeWheel()
      const fired: string[] = []
      const first = wheel.runAfter(10, () => fired.push('first'))
      wheel.runAfter(10, () => {
        fired.push('second')
        for (const timer of [first, third, fourth]) timer.stop()
      })
      const third = wheel.runAfter(10, () => fired.push('third'))
      const fourth = wheel.runAfter(10, () => fired.push('fourth'))
      wheel.runAfter(10, () => fired.push('fifth'))
      vi.advanceTimersByTime(50)
      expect(fired).toEqual(['first', 'second', 'fifth'])
    })

    it('counts again from now with the old delay or a new one', () => {
      const wheel = makeWheel()
      const start = now()
      const fired: number[] = []
      const timer = wheel.runAfter(100, () => fired.push(now() - start))
      vi.advanceTimersByTime(60)
      timer.restart()
      vi.advanceTimersByTime(100)
      expect(fired).toEqual([160])
      timer.restart(30)
      vi.advanceTimersByTime(100)
      expect(fired).toEqual([160, 190])
    })

    it('can be restarted from its own callback without firing in the same round', () => {
      const wheel = makeWheel()
      let fired = 0
      const timer: Timer = wheel.runAfter(0, () => {
        fired++
        timer.restart()
      })
      vi.advanceTimersByTime(100)
      expect(fired).toBe(10)
      timer.stop()
    })

    it('moves a timer that is added to another wheel', () => {
      const [one, two] = [makeWheel(), makeWheel()]
      const timer = one.runAfter(10, () => {})
      two.add(timer, 10)
      expect([one.length, two.length]).toEqual([0, 1])
      timer.stop()
      expect(vi.getTimerCount()).toBe(0)
    })

    it('throws when a timer is restarted that was never added', () => {
      expect(() => new Counting().restart(10)).toThrow(
        expect.objectContaining({ code: 'ERR_RINGLOOP_STATE' }),
      )
    })
  })

  it('fires an object with a fire method, without a closure', () => {
    const wheel = makeWheel()
    const timer = new Counting()
    wheel.add(timer, 20)
    wheel.add(timer, 40)
    expect(wheel.length).toBe(1)
    vi.advanceTimersByTime(30)
    expect(timer.count).toBe(0)
    vi.advanceTimersByTime(30)
    expect(timer.count).toBe(1)
  })

  describe('the Node timer', () => {
    it('exists only while a timer waits, and there is one for all', () => {
      const wheel = makeWheel()
      expect(vi.getTimerCount()).toBe(0)
      const timers = [500, 20, DAY].map((ms) => wheel.runAfter(ms, () => {}))
      expect(vi.getTimerCount()).toBe(1)
      for (const timer of timers) timer.stop()
      expect(vi.getTimerCount()).toBe(0)
    })

    it('does not wake while nothing is due', () => {
      const clock = vi.fn(now)
      const wheel = makeWheel({ now: clock })
      wheel.runAfter(DAY, () => {})
      clock.mockClear()
      vi.advanceTimersByTime(DAY - 700_000)
      expect(clock.mock.calls.length).toBeLessThanOrEqual(4)
    })

    it('is set earlier when a nearer timer comes', () => {
      const wheel = makeWheel()
      const fired: string[] = []
      wheel.runAfter(5_000, () => fired.push('late'))
      wheel.runAfter(50, () => fired.push('soon'))
      vi.advanceTimersByTime(60)
      expect(fired).toEqual(['soon'])
    })

    it('keeps the process running only for timers that are not unref', () => {
      const set = vi.spyOn(globalThis, 'setTimeout')
      const hasRef = (): boolean => set.mock.results.at(-1)!.value.hasRef()
      const wheel = makeWheel()
      const reaper = wheel.runAfter(1_000, () => {}).unref()
      expect(hasRef()).toBe(false)
      const user = wheel.runAfter(2_000, () => {})
      expect(hasRef()).toBe(true)
      user.stop()
      expect(hasRef()).toBe(false)
      reaper.ref()
      expect(hasRef()).toBe(true)
      reaper.unref().unref()
      expect(hasRef()).toBe(false)
      reaper.restart(10)
      vi.advanceTimersByTime(20)
      expect(wheel.length).toBe(0)
    })
  })

  it('reports what a callback throws and fires the others', () => {
    const onError = vi.fn()
    const wheel = makeWheel({ onError })
    const other = vi.fn()
    const error = new Error('boom')
    wheel.runEvery(10, () => {
      throw error
    })
    wheel.runAfter(10, other)
    vi.advanceTimersByTime(20)
    expect(onError.mock.calls).toEqual([[error], [error]])
    expect(other).toHaveBeenCalledTimes(1)
    wheel.close()
  })

  it('goes on when the error callback throws too', () => {
    const wheel = makeWheel({
      onError: (error) => {
        throw error
      },
    })
    const other = vi.fn()
    wheel.runAfter(10, () => {
      throw new Error('boom')
    })
    wheel.runAfter(10, other)
    expect(() => vi.advanceTimersByTime(10)).toThrow('boom')
    vi.advanceTimersByTime(10)
    expect(other).toHaveBeenCalledTimes(1)
  })

  it('stops everything when it is closed, also from a callback, and takes no more', () => {
    const wheel = makeWheel()
    const never = vi.fn()
    wheel.runAfter(10, () => wheel.close())
    const timers = [10, 20, DAY, 2 ** 31 * 30].map((ms) => wheel.runAfter(ms, never))
    timers.push(wheel.runEvery(10, never))
    vi.advanceTimersByTime(10)
    const late = wheel.runAfter(0, never)
    timers[0]!.restart()
    expect([...timers, late].map((timer) => timer.active)).toEqual([false, false, false, false, false, false])
    expect(wheel.length).toBe(0)
    expect(vi.getTimerCount()).toBe(0)
    late.stop()
    vi.advanceTimersByTime(DAY)
    expect(never).not.toHaveBeenCalled()
    wheel.close()
  })

  it.each([
    { tick: 0 },
    { tick: Number.NaN },
    { tick: -1 },
    { wheelSize: 0 },
    { wheelSize: 1 },
    { wheelSize: 100 },
    { tick: '10' as never },
    { wheelSize: '256' as never },
  ])('refuses the options %o', (options) => {
    expect(() => makeWheel(options)).toThrow(expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }))
  })

  it.each([
    -1,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    '2000' as never,
    '' as never,
    undefined as never,
    null as never,
    true as never,
    [5] as never,
    10n as never,
  ])('refuses a delay of %o', (ms) => {
    const wheel = makeWheel()
    const waiting = wheel.runAfter(5, () => {})
    waiting.stop()
    for (const add of [
      () => wheel.runAfter(ms, () => {}),
      () => wheel.runEvery(ms, () => {}),
      () => wheel.add(new Counting(), ms),
      ...(ms === undefined ? [] : [() => waiting.restart(ms)]),
    ]) {
      expect(add).toThrow(expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }))
    }
    expect(wheel.length).toBe(0)
  })
})

describe('TimingWheel on the real clock', () => {
  it('fires in order and never early', async () => {
    const wheel = new TimingWheel()
    const start = performance.now()
    const fired: { ms: number; at: number }[] = []
    await new Promise<void>((resolve) => {
      for (const ms of [120, 30, 0, 75])
        wheel.runAfter(ms, () => fired.push({ ms, at: performance.now() - start }))
      wheel.runAfter(150, resolve)
    })
    expect(fired.map(({ ms }) => ms)).toEqual([0, 30, 75, 120])
    for (const { ms, at } of fired) expect(at).toBeGreaterThanOrEqual(ms)
  })

  it('throws what a callback throws as an uncaught exception', async () => {
    const others = process.listeners('uncaughtException')
    process.removeAllListeners('uncaughtException')
    try {
      const caught = new Promise((resolve) => process.once('uncaughtException', resolve))
      new TimingWheel().runAfter(0, () => {
        throw new Error('boom')
      })
      expect(await caught).toEqual(new Error('boom'))
    } finally {
      for (const listener of others) process.on('uncaughtException', listener)
    }
  })
})

class Counting extends Timer {
  count = 0

  override fire(): void {
    this.count++
  }
}

/** Stands in for Node's clock and timers; unlike vitest's it can stall: time passes and no timer fires. */
class FakeNode {
  now = 0
  readonly timers: Map<object, { at: number; fire: () => void }> = new Map()

  constructor() {
    vi.stubGlobal('setTimeout', (fire: () => void, ms: number) => {
      const timer = { at: this.now + ms, fire, unref: () => {}, ref: () => {} }
      this.timers.set(timer, timer)
      return timer
    })
    vi.stubGlobal('clearTimeout', (timer: object) => this.timers.delete(timer))
  }

  stall(ms: number): void {
    this.now += ms
  }

  wait(ms: number): void {
    const end = this.now + ms
    for (let next = this.#first(); next !== undefined && next.at <= end; next = this.#first()) {
      this.timers.delete(next)
      this.now = Math.max(this.now, next.at)
      next.fire()
    }
    this.now = Math.max(this.now, end)
  }

  #first(): { at: number; fire: () => void } | undefined {
    return [...this.timers.values()].sort((a, b) => a.at - b.at)[0]
  }
}

/** A list of what waits; what is due fires sorted by tick, then by the time of scheduling. */
class ModelWheel {
  readonly #fired: number[] = []
  readonly #tick: number
  readonly #node: FakeNode
  #waiting: { id: number; due: number; tick: number }[] = []

  constructor(tick: number, node: FakeNode) {
    this.#tick = tick
    this.#node = node
  }

  schedule(id: number, ms: number): void {
    this.stop(id)
    const due = this.#node.now + ms
    const tick = Math.max(Math.ceil(due / this.#tick), Math.floor(this.#node.now / this.#tick) + 1)
    this.#waiting.push({ id, due, tick })
  }

  stop(id: number): void {
    this.#waiting = this.#waiting.filter((timer) => timer.id !== id)
  }

  expectDue(id: number): void {
    const timer = this.#waiting.find((waiting) => waiting.id === id)
    expect(this.#node.now, `timer ${id} is not early`).toBeGreaterThanOrEqual(timer!.due)
  }

  expire(): number[] {
    const reached = Math.floor(this.#node.now / this.#tick)
    const due = this.#waiting.filter((timer) => timer.tick <= reached).sort((a, b) => a.tick - b.tick)
    this.#waiting = this.#waiting.filter((timer) => timer.tick > reached)
    for (const timer of due) this.#fired.push(timer.id)
    return this.#fired
  }
}
