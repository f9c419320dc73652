/** One topic of a loop: who of its connections is subscribed, in the order in which they came. The loop's thread only. */
import type { AnyConnection } from '../connection/host.js'

export class Topic {
  readonly name: string
  readonly #subscribers = new Set<AnyConnection>()
  /** The same, while nobody comes or goes: a delivery keeps the one that it began with. */
  #list: readonly AnyConnection[] | undefined = undefined

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
    return true
  }

  /** Whether `c` of an earlier `list` is subscribed now. */
  stillHas(c: AnyConnection, list: readonly AnyConnection[]): boolean {
    return list === this.#list || this.#subscribers.has(c)
  }
}
