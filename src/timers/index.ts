/**
 * Timers as their users see them. The classes, in `timer.ts` and `timing-wheel.ts`, know each other's links; the types keep those out of
 * sight. No code of its own.
 */
import { Timer as WheelTimer } from './timer.js'
import { type TimingWheelOptions, TimingWheel as Wheel } from './timing-wheel.js'

/**
 * A timer of a {@link TimingWheel} or a loop. Make a subclass of it, and give it to `add` or `loop.addTimer`, where a
 * closure per timer is too much.
 */
export interface Timer {
  /** Called when the time has come. It may stop or restart this and any other timer. */
  fire(): void

  /** `true` while it waits to fire. */
  readonly active: boolean

  /** The timer does not fire (again). Harmless when it is stopped already or has fired. */
  stop(): void

  /**
   * Counts again from now, whether it waits, has fired or was stopped: `ms`, by default the delay it had. For
   * a repeating timer `ms` becomes its period. Does nothing once the wheel is closed; throws
   * `ERR_RINGLOOP_STATE` before the timer was added to a wheel.
   */
  restart(ms?: number): void

  /** The timer alone does not keep the process running. */
  unref(): this

  /** The timer keeps the process running while it waits: the default. */
  ref(): this
}

/** What a subclass of {@link Timer} inherits, and what it owes. */
declare abstract class TimerBase implements Timer {
  abstract fire(): void
  get active(): boolean
  stop(): void
  restart(ms?: number): void
  unref(): this
  ref(): this
}

export const Timer: typeof TimerBase = WheelTimer

/** Many timers behind one of Node's. One never fires early, and at most about a tick late while the thread is not busy. */
export interface TimingWheel {
  /** How many timers wait. */
  readonly length: number

  /** Calls `callback` once, in `ms` milliseconds. Throws `ERR_RINGLOOP_OPTION` unless `ms` is a number, finite and 0 or more. */
  runAfter(ms: number, callback: () => void): Timer

  /**
   * Calls `callback` every `ms` milliseconds (at least a tick), first in `ms`. The rate is fixed: lateness does not add
   * up. What was missed while the thread was busy is called once, not many times. Throws as `runAfter`.
   */
  runEvery(ms: number, callback: () => void): Timer

  /**
   * Lets `timer` fire in `ms` milliseconds; one that waits already is moved. On a closed wheel the timer stays stopped.
   * Throws as `runAfter`.
   */
  add(timer: Timer, ms: number): void

  /** Stops all timers. What is added later stays stopped. */
  close(): void
}

export interface TimingWheelConstructor {
  /** Throws `ERR_RINGLOOP_OPTION`. */
  new (options?: TimingWheelOptions): TimingWheel
  readonly prototype: TimingWheel
}

export const TimingWheel: TimingWheelConstructor = Wheel
