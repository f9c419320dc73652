/**
 * Which loop gets the next connection. Pure: the acceptor asks on its own thread and gives what it knows of
 * the loops.
 */

/** What a strategy may look at. */
export interface LoopLoad {
  readonly id: number
  /** Open connections, including those just assigned. */
  readonly connections: number
  /** `false` while the loop's thread is being replaced. */
  readonly alive: boolean
}

/**
 * `round-robin`: one after the other · `least-connection`: the loop with the fewest connections, the first of
 * several · `source-hash`: the same address without its port goes to the same loop · a function: returns an
 * index into `loops`; `peerAddr` is `host:port`, or `''` for a unix socket. An index that is out of range or
 * of a dead loop moves on to the next living one; a throw is logged and that connection is placed by
 * round-robin.
 */
export type LoadBalance =
  | 'round-robin'
  | 'least-connection'
  | 'source-hash'
  | ((peerAddr: string, loops: readonly LoopLoad[]) => number)

/** A strategy at work. It may remember its last choice: one per listener. */
export interface Balancer {
  /** `true` when `pick` asks for the address; the acceptor need not look it up otherwise. */
  readonly needsAddress: boolean
  /** The index of the chosen loop, or -1 when none is alive. `peerAddr` is called at most once. */
  pick(loops: readonly LoopLoad[], peerAddr: () => string): number
}

/** `onError` gets what a user's function throws. */
export function createBalancer(strategy: LoadBalance, onError: (error: unknown) => void): Balancer {
  if (strategy === 'round-robin') return new RoundRobin()
  if (strategy === 'least-connection') return new LeastConnection()
  if (strategy === 'source-hash') return new SourceHash()
  return new UserChoice(strategy, onError)
}

class RoundRobin implements Balancer {
  readonly needsAddress = false
  #next = 0

  pick(loops: readonly LoopLoad[]): number {
    const index = nextAlive(loops, this.#next)
    if (index >= 0) this.#next = index + 1
    return index
  }
}

class LeastConnection implements Balancer {
  readonly needsAddress = false

  pick(loops: readonly LoopLoad[]): number {
    let index = -1
    let least = Number.POSITIVE_INFINITY
    for (let i = 0; i < loops.length; i++) {
      const { alive, connections } = loops[i]!
      if (alive && connections < least) {
        index = i
        least = connections
      }
    }
    return index
  }
}

class SourceHash implements Balancer {
  readonly needsAddress = true

  pick(loops: readonly LoopLoad[], peerAddr: () => string): number {
    return nextAlive(loops, fnv1a(hostOf(peerAddr())))
  }
}

class UserChoice implements Balancer {
  readonly needsAddress = true
  readonly #choose: (peerAddr: string, loops: readonly LoopLoad[]) => number
  readonly #onError: (error: unknown) => void
  readonly #fallback = new RoundRobin()

  constructor(
    choose: (peerAddr: string, loops: readonly LoopLoad[]) => number,
    onError: (error: unknown) => void,
  ) {
    this.#choose = choose
    this.#onError = onError
  }

  pick(loops: readonly LoopLoad[], peerAddr: () => string): number {
    try {
      const index = this.#choose(peerAddr(), loops)
      return nextAlive(loops, Number.isSafeInteger(index) && index >= 0 ? index : 0)
    } catch (error) {
      this.#onError(error)
      return this.#fallback.pick(loops)
    }
  }
}

/** `start` modulo the number of loops if that one is alive, else the next that is, else -1. */
function nextAlive(loops: readonly LoopLoad[], start: number): number {
  for (let i = 0; i < loops.length; i++) {
    const index = (start + i) % loops.length
    if (loops[index]!.alive) return index
  }
  return -1
}

/** `host:port` and `[host]:port` without the port. */
function hostOf(peerAddr: string): string {
  const colon = peerAddr.lastIndexOf(':')
  return colon < 0 ? peerAddr : peerAddr.slice(0, colon)
}

/**
 * FNV-1a, 32 bits (http://www.isthe.com/chongo/tech/comp/fnv/), over character codes: addresses are ASCII.
 */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return hash >>> 0
}
