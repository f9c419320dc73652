/** The bound of a stop: nothing that a handler does or leaves undone keeps `server.stop()` from resolving. */
import { MAX_NODE_DELAY } from '../timers/max-delay.js'

/**
 * Milliseconds that a loop has, beyond `drain`, to end: 2 s of them are for lingering peers, the rest for `onStop`, or for
 * an `onStart` that is still running.
 */
export const STOP_GRACE_MS = 5_000

/** Resolves to whether `promise`, which must not reject, was resolved within `ms`. */
export async function resolvesWithin(promise: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, Math.min(ms, MAX_NODE_DELAY), false)
  })
  try {
    return await Promise.race([promise.then(() => true), late])
  } finally {
    clearTimeout(timer)
  }
}
