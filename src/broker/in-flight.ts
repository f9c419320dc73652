/**
 * What was given to the broker and is not answered yet. How much that may be is bounded, and how long it may take: when the
 * engine has not answered for a while, whoever waits is told so and everything new is refused at once, until it answers
 * again. The server's thread only.
 */
import { ErrorCode, RingloopError } from '../errors.js'

/** Half of what a loop may be behind: an engine that is silent does not keep loops from each other. */
const MAX_IN_FLIGHT = 8_192
const MAX_BYTES_IN_FLIGHT = 32 * 1024 * 1024

interface Flight {
  readonly since: number
  readonly bytes: number
  /** It was rejected: one that is never answered is not to make everything after it silent. */
  isGivenUp: boolean
  reject(error: Error): void
}

export class InFlight {
  /** In the order in which they began. What nobody waits for any more stays until it is answered: it takes memory. */
  readonly #flights = new Set<Flight>()
  readonly #name: string
  readonly #timeout: number
  readonly #onStall: () => void
  #bytes = 0
  #isStalled = false
  #watch: NodeJS.Timeout | undefined

  /** `timeout` in ms. `onStall` is called when the engine does not answer. */
  constructor(name: string, timeout: number, onStall: () => void) {
    this.#name = name
    this.#timeout = timeout
    this.#onStall = onStall
  }

  /** As `give` settles; rejects with `ERR_RINGLOOP_BROKER`, at once or later, where too much or too old is on the way. */
  run<T>(bytes: number, give: () => Promise<T>): Promise<T> {
    if (this.#isStalled) return Promise.reject(this.#silent())
    if (this.#flights.size >= MAX_IN_FLIGHT || this.#bytes + bytes > MAX_BYTES_IN_FLIGHT) {
      return Promise.reject(
        new RingloopError(ErrorCode.BROKER, `too much is on its way to the broker ${this.#name}`),
      )
    }
    return new Promise((resolve, reject) => {
      const flight: Flight = { since: performance.now(), bytes, isGivenUp: false, reject }
      this.#flights.add(flight)
      this.#bytes += bytes
      this.#watch ??= setInterval(() => this.#look(), Math.ceil(this.#timeout / 4)).unref()
      started(give)
        .finally(() => this.#land(flight))
        .then(resolve, reject)
    })
  }

  #land(flight: Flight): void {
    this.#flights.delete(flight)
    this.#bytes -= flight.bytes
    this.#isStalled = false
    if (this.#flights.size === 0) this.#unwatch()
  }

  #look(): void {
    const awaited = [...this.#flights].filter(({ isGivenUp }) => !isGivenUp)
    const [oldest] = awaited
    if (this.#isStalled || oldest === undefined || performance.now() - oldest.since < this.#timeout) return
    this.#isStalled = true
    for (const flight of awaited) {
      flight.isGivenUp = true
      flight.reject(this.#silent())
    }
    this.#onStall()
  }

  #silent(): RingloopError {
    return new RingloopError(
      ErrorCode.BROKER,
      `the broker ${this.#name} has not answered within ${this.#timeout} ms`,
    )
  }

  /** Nobody waits any more for what is on its way. */
  stop(): void {
    this.#unwatch()
    const stopped = new RingloopError(ErrorCode.BROKER, `the broker ${this.#name} is being stopped`)
    for (const { reject } of this.#flights) reject(stopped)
  }

  #unwatch(): void {
    clearInterval(this.#watch)
    this.#watch = undefined
  }
}

/** As a promise, also where it throws. */
async function started<T>(give: () => Promise<T>): Promise<T> {
  return give()
}
