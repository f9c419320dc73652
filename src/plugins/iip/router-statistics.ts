/**
 * What a router's loops have counted, and the `/sys/…` paths that tell it. Each loop counts for itself; a question is
 * put to all loops of the server over a `BroadcastChannel`, and their numbers are summed.
 */
import { BroadcastChannel } from 'node:worker_threads'
import type { Loop } from '../../index.js'
import { goJson } from './errors.js'
import { sessionOf } from './protocol.js'
import type { IipConnection, ServerRequest } from './request.js'
import {
  Count,
  isTimeUnit,
  Measure,
  type MeasureJson,
  measureText,
  merge,
  type TimeUnit,
} from './statistics.js'

/** A loop that is too busy, or gone, is not waited for longer than this. */
const ANSWER_MS = 2000

export const STATISTICS_PATHS: readonly string[] = [
  '/sys/server_count',
  '/sys/path_count',
  '/sys/server_measure',
  '/sys/path_measure',
  '/sys/statis',
  '/sys/connection_statis',
]

/** Of one path, and for the sum over all paths, on one loop. */
export class PathStatistics {
  readonly count: Count = new Count()
  readonly measure: Measure
  readonly #total: Measure

  constructor(unit: TimeUnit, total: Measure) {
    this.measure = new Measure(unit)
    this.#total = total
  }

  begin(request: ServerRequest): void {
    request.statistics = this
    request.startedAt = performance.now()
    if (request.packets > 0) this.count.received(request.packets, request.bytes)
  }

  answered(request: ServerRequest, packets: number, bytes: number): void {
    this.count.sent(packets, bytes, 1)
    const end = performance.now()
    const now = performance.timeOrigin + end
    this.measure.add(end - request.startedAt, now)
    this.#total.add(end - request.startedAt, now)
  }
}

interface PathNumbers {
  readonly count: Count
  readonly measure: MeasureJson
}

/** One loop's numbers, as they cross between threads. */
interface LoopNumbers {
  readonly count?: Count
  readonly measure?: MeasureJson
  readonly paths?: Record<string, PathNumbers>
  readonly connections?: Record<string, object>
}

type Part = keyof LoopNumbers

interface Question {
  readonly ask: number
  readonly from: number
  readonly parts: readonly Part[]
  readonly path: string | undefined
  readonly now: number
}

interface Answer {
  readonly answer: number
  readonly to: number
  readonly numbers: LoopNumbers
}

interface Pending {
  readonly numbers: LoopNumbers[]
  readonly wanted: number
  readonly done: () => void
}

export class RouterStatistics {
  readonly #total = new Measure()
  readonly #paths = new Map<string, PathStatistics>()
  readonly #connections = new Set<IipConnection>()
  /** Of connections that are closed. */
  readonly #past = new Count()
  readonly #pending = new Map<number, Pending>()
  #loop: Loop | undefined
  #bus: BroadcastChannel | undefined
  #questions = 0

  add(path: string, unit: TimeUnit): PathStatistics {
    const statistics = new PathStatistics(unit, this.#total)
    this.#paths.set(path, statistics)
    return statistics
  }

  remove(path: string): void {
    this.#paths.delete(path)
  }

  start(loop: Loop): void {
    this.#loop = loop
    if (loop.numLoops === 1) return
    this.#bus = new BroadcastChannel(`ringloop-iip-${loop.serverId}`)
    this.#bus.unref()
    this.#bus.onmessage = (event) => this.#receive((event as { data: Question | Answer }).data)
  }

  stop(): void {
    this.#bus?.close()
    this.#bus = undefined
    for (const pending of this.#pending.values()) pending.done()
  }

  addConnection(c: IipConnection): void {
    this.#connections.add(c)
  }

  removeConnection(c: IipConnection): void {
    this.#connections.delete(c)
    this.#past.add(sessionOf(c).count)
  }

  /** What one of {@link STATISTICS_PATHS} answers; `undefined` for a path that no handler has. */
  async answer(path: string, data: Buffer): Promise<string | undefined> {
    switch (path) {
      case '/sys/server_count':
        return goJson((await this.#collect(['count'])).count)
      case '/sys/server_measure':
        return goJson((await this.#collect(['measure'])).measure)
      case '/sys/path_count':
        return json((await this.#ofPath(data.toString()))?.count)
      case '/sys/path_measure':
        return json((await this.#ofPath(data.toString()))?.measure)
      case '/sys/connection_statis':
        return goJson((await this.#collect(['connections'])).connections)
      default:
        return this.#text(data)
    }
  }

  async #ofPath(path: string): Promise<PathNumbers | undefined> {
    if (!this.#paths.has(path)) return undefined
    return (await this.#collect(['paths'], path)).paths?.[path]
  }

  async #text(data: Buffer): Promise<string> {
    const unit = timeUnit(data)
    const { count, measure, paths = {} } = await this.#collect(['count', 'measure', 'paths'])
    const parts = [`total count: ${goJson(count)}`, 'total measure:', measureText(measure!, unit)]
    for (const [path, numbers] of Object.entries(paths)) {
      parts.push(
        `${path} count: ${goJson(numbers.count)}`,
        `${path} measure:`,
        measureText(numbers.measure, unit),
      )
    }
    return parts.join('\n')
  }

  /** The sum over all loops. */
  async #collect(parts: readonly Part[], path?: string): Promise<LoopNumbers> {
    const now = performance.timeOrigin + performance.now()
    const own = this.#numbers(parts, path, now)
    const others = await this.#askOthers(parts, path, now)
    return others.reduce(merge, own)
  }

  async #askOthers(parts: readonly Part[], path: string | undefined, now: number): Promise<LoopNumbers[]> {
    const loop = this.#loop
    const bus = this.#bus
    if (loop === undefined || bus === undefined) return []
    const ask = ++this.#questions
    const numbers: LoopNumbers[] = []
    await new Promise<void>((done) => {
      const timer = loop.runAfter(ANSWER_MS, done)
      const finish = (): void => {
        timer.stop()
        done()
      }
      this.#pending.set(ask, { numbers, wanted: loop.numLoops - 1, done: finish })
      bus.postMessage({ ask, from: loop.id, parts, path, now } satisfies Question)
    })
    this.#pending.delete(ask)
    return numbers
  }

  #receive(message: Question | Answer): void {
    if ('ask' in message) {
      const numbers = this.#numbers(message.parts, message.path, message.now)
      this.#bus?.postMessage({ answer: message.ask, to: message.from, numbers } satisfies Answer)
      return
    }
    const pending = message.to === this.#loop?.id ? this.#pending.get(message.answer) : undefined
    if (pending === undefined) return
    pending.numbers.push(message.numbers)
    if (pending.numbers.length === pending.wanted) pending.done()
  }

  #numbers(parts: readonly Part[], path: string | undefined, now: number): LoopNumbers {
    return {
      ...(parts.includes('count') && { count: { ...this.#count() } as Count }),
      ...(parts.includes('measure') && { measure: this.#total.toJson(now) }),
      ...(parts.includes('paths') && { paths: this.#pathNumbers(path, now) }),
      ...(parts.includes('connections') && { connections: this.#connectionNumbers() }),
    }
  }

  #count(): Count {
    const sum = new Count()
    sum.add(this.#past)
    for (const c of this.#connections) sum.add(sessionOf(c).count)
    return sum
  }

  #pathNumbers(only: string | undefined, now: number): Record<string, PathNumbers> {
    const numbers: Record<string, PathNumbers> = {}
    for (const [path, { count, measure }] of this.#paths) {
      if (only !== undefined && path !== only) continue
      numbers[path] = { count: { ...count } as Count, measure: measure.toJson(now) }
    }
    return numbers
  }

  #connectionNumbers(): Record<string, object> {
    const numbers: Record<string, object> = {}
    for (const c of this.#connections) {
      const session = sessionOf(c)
      const channels = session.channels.map((channel) => [
        channel.id,
        { ReceiveQueue: channel.waiting, Count: { ...channel.count } },
      ])
      const about = { Channels: Object.fromEntries(channels), WriteQueue: c.writeBufferLength }
      numbers[c.peerAddr || `#${c.loop.id}.${c.id}`] = { ...about, Count: { ...session.count } }
    }
    return numbers
  }
}

function json(value: object | undefined): string | undefined {
  return value === undefined ? undefined : goJson(value)
}

function timeUnit(data: Buffer): TimeUnit {
  try {
    const { time_unit: unit } = JSON.parse(data.toString()) as { time_unit?: unknown }
    return isTimeUnit(unit) ? unit : 'microsecond'
  } catch {
    return 'microsecond'
  }
}
