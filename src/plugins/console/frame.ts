/** What the page shows of one second: rates and quantiles, made from two looks at the counters. Pure. */
import type { Histogram, LoopStats, ServerStats } from '../../index.js'

/** One loop, or all together, over the time since the frame before. */
interface LoopFrame {
  readonly connections: number
  /** Per second, as are the next three. */
  readonly messagesIn: number
  readonly messagesOut: number
  readonly bytesIn: number
  readonly bytesOut: number
  /** Handler time in ms; `null` where no message was timed. */
  readonly p50: number | null
  readonly p99: number | null
  /** The part of its time that the thread ran, 0 to 1. */
  readonly utilisation: number
  /** How late timers of the thread were on average, in ms. */
  readonly delay: number
  /** Bytes that wait for slow peers. */
  readonly waiting: number
}

export interface Frame {
  /** Milliseconds since 1970. */
  readonly time: number
  readonly loops: readonly LoopFrame[]
  readonly total: LoopFrame
}

/** `seconds` lie between the two. */
export function frameOf(before: ServerStats, now: ServerStats, seconds: number, time: number): Frame {
  return {
    time,
    loops: now.loops.map((loop, i) => loopFrame(before.loops[i]!, loop, seconds)),
    total: loopFrame(before.total, now.total, seconds),
  }
}

function loopFrame(before: LoopStats, now: LoopStats, seconds: number): LoopFrame {
  const handlerTime = difference(before.handlerTime, now.handlerTime)
  const delay = difference(before.loopDelay, now.loopDelay)
  const active = now.activeMs - before.activeMs
  const idle = now.idleMs - before.idleMs
  return {
    connections: now.connections,
    messagesIn: (now.messagesIn - before.messagesIn) / seconds,
    messagesOut: (now.messagesOut - before.messagesOut) / seconds,
    bytesIn: (now.bytesIn - before.bytesIn) / seconds,
    bytesOut: (now.bytesOut - before.bytesOut) / seconds,
    p50: quantile(handlerTime, 0.5),
    p99: quantile(handlerTime, 0.99),
    utilisation: active + idle > 0 ? active / (active + idle) : 0,
    delay: delay.count > 0 ? delay.sum / delay.count : 0,
    waiting: now.writeBufferBytes,
  }
}

/** What came between the two. */
function difference(before: Histogram, now: Histogram): Histogram {
  return {
    bounds: now.bounds,
    counts: now.counts.map((count, i) => count - before.counts[i]!),
    count: now.count - before.count,
    sum: now.sum - before.sum,
  }
}

/**
 * The value below which the part `q` of all values is, on a straight line within its bucket, as Prometheus'
 * `histogram_quantile` has it; `null` where there are none.
 */
export function quantile({ bounds, counts, count }: Histogram, q: number): number | null {
  if (count <= 0) return null
  const rank = q * count
  let below = 0
  for (let i = 0; i < bounds.length; i++) {
    const inBucket = counts[i]!
    if (below + inBucket >= rank && inBucket > 0) {
      const from = i === 0 ? 0 : bounds[i - 1]!
      return from + (bounds[i]! - from) * ((rank - below) / inBucket)
    }
    below += inBucket
  }
  return bounds.at(-1)!
}
