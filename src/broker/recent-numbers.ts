/** The last number of each of those that were last heard of; so many at most, the others are forgotten. The server's thread only. */
export class RecentNumbers {
  /** The youngest at the end. */
  readonly #byName = new Map<string, number>()
  readonly #max: number

  constructor(max: number) {
    this.#max = max
  }

  get(name: string): number | undefined {
    return this.#byName.get(name)
  }

  /** `name` is the youngest from now on. */
  set(name: string, number: number): void {
    this.#byName.delete(name)
    this.#byName.set(name, number)
    if (this.#byName.size > this.#max) this.#byName.delete(this.#byName.keys().next().value as string)
  }
}
