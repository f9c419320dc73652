/**
 * A hierarchical timing wheel: all timers of one loop behind one Node timer. Adding, stopping and restarting
 * are O(1) and allocate nothing but the timer itself. One thread only. Times are in milliseconds.
 *
 *     level 0   |t t t t ...|   one slot per tick: fires
 *     level 1   |- - - - ...|   one slot per turn of level 0: cascades down when its turn begins
 *     level 2   |- - - - ...|   one slot per turn of level 1, and so on, 2^32 ticks in all
 *     far       |-|             whatever comes after these 2^32 ticks
 *
 * A timer lies at the level of the highest group of bits in which its tick differs from the current tick. So
 * no slot ever holds two turns, and the first filled slot of the lowest filled level is the next thing to do.
 */
import { checkOptions, type OptionNames } from '../check-options.js'
import { ErrorCode, RingloopError } from '../errors.js'
import { MAX_NODE_DELAY } from './max-delay.js'
import { NO_SLOT, Timer } from './timer.js'

const TICK_BITS = 32
const EPOCH = 2 ** TICK_BITS
const MAX_WHEEL_SIZE = 65_536

export interface TimingWheelOptions {
  /** Resolution in ms, at least 1. Default 10. */
  readonly tick?: number | undefined
  /** Slots per level, a power of two from 2 to 65536. Default 256. */
  readonly wheelSize?: number | undefined
  /** A clock in ms that does not go back. Default `performance.now`. */
  readonly now?: (() => number) | undefined
  /**
   * Gets what a timer throws. Default: it is thrown again as an uncaught exception; other timers still fire.
   */
  readonly onError?: ((error: unknown) => void) | undefined
}

const OPTIONS = {
  tick: true,
  wheelSize: true,
  now: true,
  onError: true,
} as const satisfies OptionNames<TimingWheelOptions>

class CallbackTimer extends Timer {
  readonly #callback: () => void

  constructor(callback: () => void) {
    super()
    this.#callback = callback
  }

  override fire(): void {
    const callback = this.#callback
    callback()
  }
}

/**
 * See the head of this file. A timer never fires early, and at most about one tick late while the thread is
 * not busy.
 */
export class TimingWheel {
  readonly #tickMs: number
  readonly #now: () => number
  readonly #onError: (error: unknown) => void
  readonly #start: number
  readonly #bits: number
  readonly #mask: number
  /**
   * The slots of all levels one after the other, and the far one last. Each holds the head of a ring of
   * timers.
   */
  readonly #slots: (Timer | undefined)[]
  readonly #wake = (): void => this.#run()
  /** All timers before this tick have fired. */
  #current = 0
  #length = 0
  /** How many of them keep the process running. */
  #refs = 0
  #running = false
  #closed = false
  #timeout: NodeJS.Timeout | undefined
  /** The tick for which the Node timer is set. */
  #armed = Number.POSITIVE_INFINITY

  /** Throws `ERR_RINGLOOP_OPTION` when `tick` or `wheelSize` is out of range. */
  constructor(options: TimingWheelOptions = {}) {
    checkOptions('a timing wheel', options, OPTIONS)
    const { tick = 10, wheelSize = 256, now = () => performance.now(), onError = throwLater } = options
    if (typeof tick !== 'number' || !(tick >= 1 && tick <= MAX_NODE_DELAY)) {
      throw new RingloopError(
        ErrorCode.OPTION,
        `tick must be a number of milliseconds, 1 or more, not ${tick}`,
      )
    }
    this.#bits = bitsOf(wheelSize)
    this.#mask = wheelSize - 1
    this.#slots = new Array(Math.ceil(TICK_BITS / this.#bits) * wheelSize + 1).fill(undefined)
    this.#tickMs = tick
    this.#now = now
    this.#onError = onError
    this.#start = now()
  }

  /** How many timers wait. */
  get length(): number {
    return this.#length
  }

  /**
   * Calls `callback` once, in `ms` milliseconds. Throws `ERR_RINGLOOP_OPTION` unless `ms` is finite and 0 or
   * more.
   */
  runAfter(ms: number, callback: () => void): Timer {
    const timer = new CallbackTimer(callback)
    this.add(timer, ms)
    return timer
  }

  /**
   * Calls `callback` every `ms` milliseconds (at least a tick), first in `ms`. The rate is fixed: lateness
   * does not add up. What was missed while the thread was busy is called once, not many times. Throws as
   * `runAfter`.
   */
  runEvery(ms: number, callback: () => void): Timer {
    const timer = new CallbackTimer(callback)
    timer.period = this.#tickMs
    this.add(timer, ms)
    return timer
  }

  /**
   * Lets `timer` fire in `ms` milliseconds; one that waits already is moved. On a closed wheel the timer
   * stays stopped. Throws `ERR_RINGLOOP_OPTION` unless `ms` is finite and 0 or more.
   */
  add(timer: Timer, ms: number): void {
    if (typeof ms !== 'number' || !(ms >= 0 && ms < Number.POSITIVE_INFINITY)) throw badDelay(ms)
    if (timer.wheel !== this) {
      timer.stop()
      timer.wheel = this
    }
    if (this.#closed) return
    timer.delay = ms
    if (timer.period > 0) timer.period = Math.max(ms, this.#tickMs)
    const elapsed = this.#now() - this.#start
    if (timer.slot === NO_SLOT) this.#enter(timer, elapsed)
    else this.#unlink(timer)
    this.#schedule(timer, elapsed + ms, elapsed)
    if (timer.tick < this.#armed && !this.#running) this.#arm()
  }

  /** For a timer's `stop`. */
  remove(timer: Timer): void {
    if (timer.slot === NO_SLOT) return
    this.#leave(timer)
    if (this.#length === 0) this.#disarm()
  }

  /** A waiting timer keeps the process running from now on (1), or no more (-1). */
  countRef(change: number): void {
    this.#refs += change
    if (this.#refs > 0) this.#timeout?.ref()
    else this.#timeout?.unref()
  }

  /** Stops all timers. What is added later stays stopped. */
  close(): void {
    this.#closed = true
    for (let slot = 0; slot < this.#slots.length; slot++) {
      for (let timer = this.#slots[slot]; timer !== undefined; timer = this.#slots[slot]) this.#leave(timer)
    }
    this.#disarm()
  }

  #enter(timer: Timer, elapsed: number): void {
    // An empty wheel has slept: without this a first timer would lie too high and cascade for nothing.
    if (this.#length === 0 && !this.#running) {
      this.#current = Math.max(this.#current, Math.floor(elapsed / this.#tickMs))
    }
    this.#length++
    if (timer.keepsAlive && ++this.#refs === 1) this.#timeout?.ref()
  }

  #leave(timer: Timer): void {
    this.#unlink(timer)
    this.#length--
    if (timer.keepsAlive && --this.#refs === 0) this.#timeout?.unref()
  }

  #schedule(timer: Timer, deadline: number, elapsed: number): void {
    timer.deadline = deadline
    // Rounded up: not early. After this tick: what a callback adds does not fire in the same round.
    timer.tick = Math.max(Math.ceil(deadline / this.#tickMs), Math.floor(elapsed / this.#tickMs) + 1)
    this.#link(timer, this.#slotOf(timer.tick))
  }

  #slotOf(tick: number): number {
    const current = this.#current
    if (Math.floor(tick / EPOCH) !== Math.floor(current / EPOCH)) return this.#slots.length - 1
    // Bit operators take both modulo 2^32. The lowest bit is set so that equal ticks are of level 0.
    const level = Math.trunc((31 - Math.clz32((tick ^ current) | 1)) / this.#bits)
    return (level << this.#bits) + ((tick >>> (level * this.#bits)) & this.#mask)
  }

  /** The tick in which a filled slot's turn comes. */
  #tickOf(slot: number): number {
    if (slot === this.#slots.length - 1) return (Math.floor(this.#current / EPOCH) + 1) * EPOCH
    const level = slot >>> this.#bits
    const width = 2 ** (level * this.#bits)
    const turn = Math.min(width * (this.#mask + 1), EPOCH)
    return this.#current - (this.#current % turn) + (slot & this.#mask) * width
  }

  /** The filled slot whose turn comes first, or NO_SLOT. */
  #firstSlot(): number {
    if (this.#length === 0) return NO_SLOT
    const far = this.#slots.length - 1
    for (let first = 0, shift = 0; first < far; first += this.#mask + 1, shift += this.#bits) {
      const end = first + this.#mask + 1
      for (let slot = first + ((this.#current >>> shift) & this.#mask); slot < end; slot++) {
        if (this.#slots[slot] !== undefined) return slot
      }
    }
    return far
  }

  #run(): void {
    this.#timeout = undefined
    this.#armed = Number.POSITIVE_INFINITY
    this.#running = true
    try {
      this.#advance(this.#now() - this.#start)
    } finally {
      this.#running = false
      this.#arm()
    }
  }

  #advance(elapsed: number): void {
    const target = Math.floor(elapsed / this.#tickMs)
    for (let slot = this.#firstSlot(); slot !== NO_SLOT; slot = this.#firstSlot()) {
      const tick = this.#tickOf(slot)
      if (tick > target) break
      this.#current = tick
      if (slot <= this.#mask) this.#expire(slot, elapsed)
      else this.#cascade(slot)
    }
    this.#current = Math.max(this.#current, target)
  }

  /**
   * Head by head, since each callback may change the ring. None can grow it: what is added comes after this
   * tick.
   */
  #expire(slot: number, elapsed: number): void {
    for (let timer = this.#slots[slot]; timer !== undefined; timer = this.#slots[slot]) {
      if (timer.period > 0) this.#repeat(timer, elapsed)
      else this.#leave(timer)
      try {
        timer.fire()
      } catch (error) {
        this.#onError(error)
      }
    }
  }

  #repeat(timer: Timer, elapsed: number): void {
    const late = Math.max(elapsed - timer.deadline, 0)
    this.#unlink(timer)
    this.#schedule(timer, timer.deadline + (Math.floor(late / timer.period) + 1) * timer.period, elapsed)
  }

  #cascade(slot: number): void {
    const head = this.#slots[slot]!
    this.#slots[slot] = undefined
    let timer = head
    do {
      const next = timer.next
      this.#link(timer, this.#slotOf(timer.tick))
      timer = next
    } while (timer !== head)
  }

  /** Appends, so that timers of one tick fire in the order in which they were added. */
  #link(timer: Timer, slot: number): void {
    const head = this.#slots[slot]
    timer.slot = slot
    if (head === undefined) {
      timer.next = timer
      timer.prev = timer
      this.#slots[slot] = timer
      return
    }
    timer.next = head
    timer.prev = head.prev
    head.prev.next = timer
    head.prev = timer
  }

  #unlink(timer: Timer): void {
    const { next, prev, slot } = timer
    if (next === timer) {
      this.#slots[slot] = undefined
    } else {
      prev.next = next
      next.prev = prev
      if (this.#slots[slot] === timer) this.#slots[slot] = next
      timer.next = timer
      timer.prev = timer
    }
    timer.slot = NO_SLOT
  }

  #arm(): void {
    this.#disarm()
    const slot = this.#firstSlot()
    if (slot === NO_SLOT) return
    this.#armed = this.#tickOf(slot)
    const delay = Math.ceil(this.#armed * this.#tickMs - (this.#now() - this.#start))
    this.#timeout = setTimeout(this.#wake, Math.min(Math.max(delay, 1), MAX_NODE_DELAY))
    if (this.#refs === 0) this.#timeout.unref()
  }

  #disarm(): void {
    if (this.#timeout !== undefined) clearTimeout(this.#timeout)
    this.#timeout = undefined
    this.#armed = Number.POSITIVE_INFINITY
  }
}

function bitsOf(wheelSize: number): number {
  const bits = Math.log2(wheelSize)
  if (typeof wheelSize === 'number' && Number.isInteger(bits) && bits >= 1 && wheelSize <= MAX_WHEEL_SIZE)
    return bits
  throw new RingloopError(
    ErrorCode.OPTION,
    `wheelSize must be a power of two from 2 to ${MAX_WHEEL_SIZE}, not ${wheelSize}`,
  )
}

function badDelay(ms: unknown): RingloopError {
  const given = typeof ms === 'string' ? `the string '${ms}'` : String(ms)
  return new RingloopError(
    ErrorCode.OPTION,
    `a timer's delay must be a number of milliseconds, finite and 0 or more, not ${given}`,
  )
}

function throwLater(error: unknown): void {
  process.nextTick(() => {
    throw error
  })
}
