/** Counts this process's open sockets, for tests that nothing is leaked. */
import { readdirSync, readlinkSync } from 'node:fs'

/** Open sockets, TCP and unix. */
export function openSockets(): number {
  let count = 0
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      if (readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:')) count++
    } catch {
      // Closed between the two calls.
    }
  }
  return count
}
