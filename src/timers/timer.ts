/**
 * A timer of a timing wheel: what it does when its time has come, and the place in the wheel that the wheel alone writes.
 * Belongs to the wheel's thread.
 */
import { ErrorCode, RingloopError } from '../errors.js'
import type { TimingWheel } from './timing-wheel.js'

/** The slot of a timer that waits for nothing. */
export const NO_SLOT = -1

/**
 * A timer of a {@link TimingWheel}. Subclass it and pass it to `add` where a closure per timer is too much. The fields
 * are the wheel's: users see the interface in `index.ts`.
 */
export abstract class Timer {
  /** The wheel it was last added to. */
  wheel: TimingWheel | undefined = undefined
  /** Neighbours in the ring of its slot; itself while it is in none. */
  next: Timer = this
  prev: Timer = this
  /** Counted over all levels; NO_SLOT while it is in none. */
  slot: number = NO_SLOT
  /** The tick in which it fires. */
  tick: number = 0
  /** When it is due, in ms since the wheel was made. */
  deadline: number = 0
  /** What `restart()` uses, in ms. */
  delay: number = 0
  /** Fires every so many ms; 0: once. */
  period: number = 0
  /** See `ref`. */
  keepsAlive: boolean = true

  /** Called when the time has come. It may stop or restart this and any other timer. */
  abstract fire(): void

  /** `true` while it waits to fire. */
  get active(): boolean {
    return this.slot !== NO_SLOT
  }

  /** The timer does not fire (again). Harmless when it is stopped already or has fired. */
  stop(): void {
    this.wheel?.remove(this)
  }

  /**
   * Counts again from now, whether it waits, has fired or was stopped: `ms`, by default the delay it had. For
   * a repeating timer `ms` becomes its period. Does nothing once the wheel is closed; throws
   * `ERR_RINGLOOP_STATE` before the timer was added to a wheel.
   */
  restart(ms: number = this.delay): void {
    if (this.wheel === undefined) {
      throw new RingloopError(ErrorCode.STATE, 'a timer must be added to a wheel before it can be restarted')
    }
    this.wheel.add(this, ms)
  }

  /** The timer alone does not keep the process running. */
  unref(): this {
    if (this.keepsAlive) {
      this.keepsAlive = false
      if (this.active) this.wheel?.countRef(-1)
    }
    return this
  }

  /** The timer keeps the process running while it waits: the default. */
  ref(): this {
    if (!this.keepsAlive) {
      this.keepsAlive = true
      if (this.active) this.wheel?.countRef(1)
    }
    return this
  }
}
