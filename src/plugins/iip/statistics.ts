/**
 * What an IIP server counts of its traffic, with the names and units of the Go implementation. Plain numbers, one set per
 * loop; `merge` sums those of several loops.
 */

/** Packets and bytes, as in the JSON of `/sys/server_count`. A whole packet is a request or response. */
export class Count {
  PacketsSent = 0
  PacketReceived = 0
  WholePacketSent = 0
  WholePacketReceived = 0
  BytesSent = 0
  BytesReceived = 0

  received(packets: number, bytes: number): void {
    this.PacketReceived += packets
    this.WholePacketReceived++
    this.BytesReceived += bytes
  }

  sent(packets: number, bytes: number, whole: number): void {
    this.PacketsSent += packets
    this.WholePacketSent += whole
    this.BytesSent += bytes
  }

  add(other: Count): void {
    this.PacketsSent += other.PacketsSent
    this.PacketReceived += other.PacketReceived
    this.WholePacketSent += other.WholePacketSent
    this.WholePacketReceived += other.WholePacketReceived
    this.BytesSent += other.BytesSent
    this.BytesReceived += other.BytesReceived
  }
}

/** Upper ends of the ranges of durations, in the unit of the path; the eighth range has none. */
const RANGE_ENDS = [100, 200, 300, 500, 700, 1000, 1500]
const RANGES = RANGE_ENDS.length + 1
/** Five minutes, and the second that has begun. */
const SECONDS = 301
const NS_PER_MS = 1e6

export type TimeUnit = 'nanosecond' | 'microsecond' | 'millisecond' | 'second'
const NANOSECONDS: Record<TimeUnit, number> = {
  nanosecond: 1,
  microsecond: 1e3,
  millisecond: 1e6,
  second: 1e9,
}

/** All of them, as an error names them. */
export const TIME_UNITS: string = Object.keys(NANOSECONDS)
  .map((unit) => `'${unit}'`)
  .join(', ')

export function isTimeUnit(text: unknown): text is TimeUnit {
  return typeof text === 'string' && Object.hasOwn(NANOSECONDS, text)
}

interface Range {
  Duration: number
  Count: number
}

interface TimeCount {
  readonly range_count: readonly Range[]
}

/** The JSON of `/sys/server_measure`: seconds from the oldest to the present one, durations in nanoseconds. */
export interface MeasureJson {
  readonly five_minute_requests: readonly number[]
  readonly five_minute_duration: readonly number[]
  readonly all_requests: number
  readonly all_duration: number
  readonly five_minute_timecount: readonly TimeCount[]
  readonly all_timecount: TimeCount
}

function newRanges(): Range[] {
  return Array.from({ length: RANGES }, () => ({ Duration: 0, Count: 0 }))
}

/** What happened in one second. */
class Second {
  at = -1
  requests = 0
  duration = 0
  ranges: Range[] = newRanges()

  restart(at: number): void {
    this.at = at
    this.requests = 0
    this.duration = 0
    for (const range of this.ranges) {
      range.Duration = 0
      range.Count = 0
    }
  }
}

/** How many requests there were and how long they took, of late and ever. A second's record is made when it is needed. */
export class Measure {
  readonly #unit: number
  readonly #seconds = new Array<Second | undefined>(SECONDS).fill(undefined)
  readonly #all: Range[] = newRanges()
  #requests = 0
  #duration = 0

  /** `unit` is that of the ranges. */
  constructor(unit: TimeUnit = 'millisecond') {
    this.#unit = NANOSECONDS[unit]
  }

  /** A request took `ms` milliseconds and has ended at `now`, in ms of a clock that all loops share. */
  add(ms: number, now: number): void {
    const duration = Math.round(ms * NS_PER_MS)
    const range = this.#range(duration)
    const second = this.#second(Math.floor(now / 1000))
    second.requests++
    second.duration += duration
    count(second.ranges[range]!, duration)
    this.#requests++
    this.#duration += duration
    count(this.#all[range]!, duration)
  }

  #range(duration: number): number {
    const value = Math.floor(duration / this.#unit)
    let range = 0
    while (range < RANGE_ENDS.length && value > RANGE_ENDS[range]!) range++
    return range
  }

  #second(at: number): Second {
    const index = at % SECONDS
    let second = this.#seconds[index]
    if (second === undefined) {
      second = new Second()
      this.#seconds[index] = second
    }
    if (second.at !== at) second.restart(at)
    return second
  }

  /** As of `now`, which may be a little later or earlier than the last `add`. */
  toJson(now: number): MeasureJson {
    const last = Math.floor(now / 1000)
    const seconds = Array.from({ length: SECONDS }, (_, i) => {
      const at = last - SECONDS + 1 + i
      const second = this.#seconds[at % SECONDS]
      return second?.at === at ? second : undefined
    })
    return {
      five_minute_requests: seconds.map((second) => second?.requests ?? 0),
      five_minute_duration: seconds.map((second) => second?.duration ?? 0),
      all_requests: this.#requests,
      all_duration: this.#duration,
      five_minute_timecount: seconds.map((second) => ({ range_count: second?.ranges ?? newRanges() })),
      all_timecount: { range_count: this.#all },
    }
  }
}

function count(range: Range, duration: number): void {
  range.Duration += duration
  range.Count++
}

/** Sums numbers of equal names, deeply; what only one of them has is taken over. */
export function merge<T>(a: T, b: T): T {
  if (typeof a === 'number' && typeof b === 'number') return (a + b) as T
  if (Array.isArray(a) && Array.isArray(b)) return a.map((each, i) => merge(each, b[i])) as T
  if (typeof a !== 'object' || a === null || typeof b !== 'object' || b === null) return a ?? b
  const sum = { ...a } as Record<string, unknown>
  for (const [key, value] of Object.entries(b)) sum[key] = key in sum ? merge(sum[key], value) : value
  return sum as T
}

/** The text of `/sys/statis` for one path or the server. */
export function measureText(measure: MeasureJson, unit: TimeUnit): string {
  const recent = measure.five_minute_timecount.reduce<TimeCount>(merge, { range_count: newRanges() })
  const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0)
  const requests = sum(measure.five_minute_requests)
  const average = (duration: number, of: number): number =>
    Math.floor(duration / Math.max(1, of) / NANOSECONDS[unit])
  const ranges = ({ range_count }: TimeCount): string => {
    const total = sum(range_count.map((range) => range.Count))
    const texts = range_count.map((range, i) => {
      const share = Math.floor((range.Count * 100) / Math.max(1, total))
      const name = i < RANGE_ENDS.length ? `range${i + 1}` : 'other'
      return `${name}(${range.Count},${share}%, average ${average(range.Duration, range.Count)})`
    })
    return texts.join(', ')
  }
  return [
    `5 minute requests     : ${requests}, average duration: ${average(sum(measure.five_minute_duration), requests)}`,
    `all requests          : ${measure.all_requests}, average duration: ${average(measure.all_duration, measure.all_requests)}`,
    `5 minute timecount    : ${ranges(recent)}`,
    `all timecount         : ${ranges(measure.all_timecount)}`,
    '',
  ].join('\n')
}
