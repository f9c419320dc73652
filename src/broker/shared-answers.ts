/**
 * Answers for many who ask the same: those who come back all at once, as after an outage. Whoever asks while it is being
 * asked gets the next answer, all of them the same one; what is answered is never older than the question. Its thread only.
 */
interface Running<Answer> {
  /** The one that is under way. */
  readonly now: Promise<Answer>
  /** The one after it, for those who have asked since. */
  next: Promise<Answer> | undefined
}

export class SharedAnswers<Answer> {
  readonly #running = new Map<string, Running<Answer>>()

  /** How many different ones are under way. */
  get size(): number {
    return this.#running.size
  }

  /** Settles as `ask` does, called now or later. What has the same `key` asks the same. */
  get(key: string, ask: () => Promise<Answer>): Promise<Answer> {
    const running = this.#running.get(key)
    if (running === undefined) return this.#begin(key, ask)
    const begin = (): Promise<Answer> => this.#begin(key, ask)
    running.next ??= running.now.then(begin, begin)
    return running.next
  }

  #begin(key: string, ask: () => Promise<Answer>): Promise<Answer> {
    const now = ask()
    const running: Running<Answer> = { now, next: undefined }
    this.#running.set(key, running)
    const end = (): void => {
      if (running.next === undefined) this.#running.delete(key)
    }
    now.then(end, end)
    return now
  }
}
