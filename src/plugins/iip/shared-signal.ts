/**
 * Abort signals that many calls share: each signal gets one listener, however many wait for it. Keeps a signal only as
 * long as somebody waits. Any thread; each has its own.
 */

/** Told, from within `abort()`, that its signal is aborted. */
export interface Abortable {
  aborted(signal: AbortSignal): void
}

class SharedSignal {
  readonly #signal: AbortSignal
  readonly #waiting = new Set<Abortable>()
  readonly #onAbort = (): void => {
    shared.delete(this.#signal)
    for (const each of this.#waiting) each.aborted(this.#signal)
  }

  constructor(signal: AbortSignal) {
    this.#signal = signal
    signal.addEventListener('abort', this.#onAbort, { once: true })
  }

  add(who: Abortable): void {
    this.#waiting.add(who)
  }

  remove(who: Abortable): void {
    if (!this.#waiting.delete(who) || this.#waiting.size > 0) return
    this.#signal.removeEventListener('abort', this.#onAbort)
    shared.delete(this.#signal)
  }
}

const shared = new WeakMap<AbortSignal, SharedSignal>()

/** `who` hears of the abort, unless {@link unwatchSignal} comes first. The signal is not aborted yet. */
export function watchSignal(signal: AbortSignal, who: Abortable): void {
  let watched = shared.get(signal)
  if (watched === undefined) {
    watched = new SharedSignal(signal)
    shared.set(signal, watched)
  }
  watched.add(who)
}

export function unwatchSignal(signal: AbortSignal, who: Abortable): void {
  shared.get(signal)?.remove(who)
}
