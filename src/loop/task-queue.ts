/**
 * Functions to be called later on the loop's thread, in the order in which they came. The loop runs them at
 * the end of its turn. One thread only.
 */
import Denque from 'denque'

export class TaskQueue {
  readonly #tasks = new Denque<() => void>()
  readonly #onError: (error: unknown) => void

  /** `onError` gets what a task throws; the other tasks still run. */
  constructor(onError: (error: unknown) => void) {
    this.#onError = onError
  }

  /** How many tasks wait. */
  get length(): number {
    return this.#tasks.length
  }

  /** Queues `task` for the next {@link run}. */
  push(task: () => void): void {
    this.#tasks.push(task)
  }

  /**
   * Runs what waits now. What these tasks queue waits for the next run, so that the loop gets its turn in
   * between.
   */
  run(): void {
    for (let left = this.#tasks.length; left > 0; left--) {
      const task = this.#tasks.shift()
      if (task === undefined) return
      try {
        task()
      } catch (error) {
        this.#onError(error)
      }
    }
  }

  /** Forgets what waits. */
  clear(): void {
    this.#tasks.clear()
  }
}
