/**
 * Which topics have subscribers in this process: the loops say when their first subscriber of a topic comes and when the
 * last one goes, and this says once a tick what has become wanted and what is not any more. The server's thread only.
 */
export class WantedTopics {
  /** How many loops want it. */
  readonly #loops = new Map<string, number>()
  readonly #byLoop = new Map<number, Set<string>>()
  /** As it was last told. */
  readonly #told = new Set<string>()
  readonly #changed = new Set<string>()
  readonly #tell: (wanted: string[], unwanted: string[]) => void

  constructor(tell: (wanted: string[], unwanted: string[]) => void) {
    this.#tell = tell
  }

  set(loop: number, topic: string, isWanted: boolean): void {
    const topics = this.#topicsOf(loop)
    if (topics.has(topic) === isWanted) return
    if (isWanted) topics.add(topic)
    else topics.delete(topic)
    this.#count(topic, isWanted ? 1 : -1)
  }

  #topicsOf(loop: number): Set<string> {
    let topics = this.#byLoop.get(loop)
    if (topics === undefined) {
      topics = new Set()
      this.#byLoop.set(loop, topics)
    }
    return topics
  }

  /** It has ended, and its subscribers with it. */
  loopGone(loop: number): void {
    for (const topic of this.#byLoop.get(loop) ?? []) this.#count(topic, -1)
    this.#byLoop.delete(loop)
  }

  #count(topic: string, difference: number): void {
    const loops = (this.#loops.get(topic) ?? 0) + difference
    if (loops === 0) this.#loops.delete(topic)
    else this.#loops.set(topic, loops)
    if (this.#changed.size === 0) process.nextTick(() => this.#flush())
    this.#changed.add(topic)
  }

  #flush(): void {
    const changed = [...this.#changed].filter((topic) => this.#loops.has(topic) !== this.#told.has(topic))
    this.#changed.clear()
    const wanted = changed.filter((topic) => this.#loops.has(topic))
    const unwanted = changed.filter((topic) => this.#told.has(topic))
    for (const topic of wanted) this.#told.add(topic)
    for (const topic of unwanted) this.#told.delete(topic)
    if (changed.length > 0) this.#tell(wanted, unwanted)
  }
}
