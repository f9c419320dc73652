/** Waiting for something to become true: every wait of the tests ends by an event or fails with a sentence. */
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises'

/** Resolves when `holds` does; rejects after `ms` (generous: the machine may be busy). */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  ms = 10_000,
): Promise<void> {
  const deadline = performance.now() + ms
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`waited ${ms} ms in vain until ${what}`)
    await sleep(5)
  }
}

/** What `promise` gives, or a rejection that says what was waited for. */
export async function within<T>(what: string, promise: Promise<T>, ms = 10_000): Promise<T> {
  const timer = new AbortController()
  const late = sleep(ms, undefined, { signal: timer.signal }).then(
    () => {
      throw new Error(`waited ${ms} ms in vain for ${what}`)
    },
    () => undefined as never,
  )
  try {
    return await Promise.race([promise, late])
  } finally {
    timer.abort()
  }
}

/** So many rounds of Node's loop, in which ticks, promises and immediates run. */
export async function rounds(count = 2): Promise<void> {
  for (let i = 0; i < count; i++) await immediate()
}
