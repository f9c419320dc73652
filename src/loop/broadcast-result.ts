/** What broadcasts and publications did, added up. Plain values; any thread. */
import type { BroadcastResult } from '../loop.js'

/** When nobody is there. */
export const NOTHING_SENT: BroadcastResult = { sent: 0, dropped: 0, closed: 0 }

/** So many whole loops did not get it, since it is too far behind. */
export function leftOut(loops: number): BroadcastResult {
  return { sent: 0, dropped: loops, closed: 0 }
}

export function addResults(a: BroadcastResult, b: BroadcastResult): BroadcastResult {
  return { sent: a.sent + b.sent, dropped: a.dropped + b.dropped, closed: a.closed + b.closed }
}
