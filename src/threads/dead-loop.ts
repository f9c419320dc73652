/** What the option `onLoopDied` is told of a loop whose thread has ended unasked. */
export interface DeadLoop {
  /** 0 … numLoops - 1. */
  readonly id: number
  /** Why: what was thrown and not caught, the exit code, the memory limit; or why it could not be started again. */
  readonly error: Error
  /** Milliseconds until it is started again. */
  readonly restartIn: number
}
