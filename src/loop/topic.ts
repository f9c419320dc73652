/** One topic of a loop: who of its connections is subscribed, in the order in which they came. The loop's thread only. */
import type { BrokerPosition } from '../broker.js'
import type { AnyConnection } from '../connection/host.js'
import { Resumption } from './resumption.js'

export class Topic {
  readonly name: string
  readonly #subscribers = new Set<AnyConnection>()
  /** The same, while nobody comes or goes: a delivery keeps the one that it began with. */
  #list: readonly AnyConnection[] | undefined = undefined
  /** Those that catch up with the history. */
  #resumptions: Map<AnyConnection, Resumption> | undefined = undefined

  constructor(name: string) {
    this.name = name
  }

  get size(): number {
    return this.#subscribers.size
  }

  get list(): readonly AnyConnection[] {
    this.#list ??= [...this.#subscribers]
    return this.#list
  }

  add(c: AnyConnection): void {
    this.#subscribers.add(c)
    this.#list = undefined
  }

  /** `false` where it was not subscribed. */
  remove(c: AnyConnection): boolean {
    if (!this.#subscribers.delete(c)) return false
    this.#list = undefined
    this.#forget(c)
    return true
  }

  has(c: AnyConnection): boolean {
    return this.#subscribers.has(c)
  }

  /** Of a topic with history: until it has caught up `c` gets nothing by itself. */
  resume(c: AnyConnection): Resumption {
    const resumption = new Resumption()
    this.#resumptions ??= new Map()
    this.#resumptions.set(c, resumption)
    return resumption
  }

  isResuming(c: AnyConnection, resumption: Resumption): boolean {
    return this.#resumptions?.get(c) === resumption
  }

  /** Whether `c` gets what is at `position` now: where it is catching up, that is held back for it, or it has it already. */
  admits(c: AnyConnection, out: unknown, position: BrokerPosition): boolean {
    const resumption = this.#resumptions?.get(c)
    if (resumption === undefined) return true
    const place = resumption.place(position)
    if (place === 'hold') resumption.hold(out, position)
    else if (place === 'deliver') this.#forget(c)
    return place === 'deliver'
  }

  #forget(c: AnyConnection): void {
    this.#resumptions?.delete(c)
    if (this.#resumptions?.size === 0) this.#resumptions = undefined
  }

  /** Whether `c` of an earlier `list` is subscribed now. */
  stillHas(c: AnyConnection, list: readonly AnyConnection[]): boolean {
    return list === this.#list || this.#subscribers.has(c)
  }
}
