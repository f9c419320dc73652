/**
 * What a suite is made of: contenders, which are servers to be started, and cases, which say what the client
 * does to each of them. A suite only describes; round.ts runs it.
 */

/** How a contender's server is started. It prints `listening on HOST:PORT` when ready and ends on SIGTERM. */
export interface Command {
  readonly file: string
  readonly args: readonly string[]
  /** Collects its garbage on SIGUSR2 and then prints `settled`; all of `servers/` do. */
  readonly settles?: boolean
}

/**
 * Exit code of a server or client that cannot run on this machine; its last line on standard error says why.
 */
export const EXIT_UNAVAILABLE = 3

/** Why a contender cannot take part on this machine: one line for the reader. */
export interface Skip {
  readonly skip: string
}

export interface Contender {
  readonly name: string
  /** What the client does to this one instead, where it speaks another protocol than the case describes. */
  readonly variant?: (what: Case) => Case
  /** Drives this one instead of the common client: takes the same arguments and prints the same line of JSON. */
  readonly client?: Command
  /** Called once per run, before the first round; compiles or looks for what the server needs. */
  prepare(): Command | Skip
}

/**
 * One message and its answer. `bytes`: the answer is the message itself, different bytes in every round.
 * `request`: fixed bytes, answered by exactly `expect`, or by any `replyBytes` bytes where an answer varies
 * (an HTTP date).
 */
export type Exchange =
  | { readonly bytes: number }
  | { readonly request: Uint8Array; readonly expect: Uint8Array; readonly countsAs?: number }
  | { readonly request: Uint8Array; readonly replyBytes: number; readonly countsAs?: number }

/**
 * Said once per connection before the first message; the answer ends with `until`, or is `replyBytes` long.
 */
export type Hello =
  | { readonly send: Uint8Array; readonly until: Uint8Array }
  | { readonly send: Uint8Array; readonly replyBytes: number }

/**
 * Said once per connection after its hello; the answer ends with `until`. With `parts` it is so many equal parts, which the
 * connections take in turn.
 */
export interface Join {
  readonly parts?: number
  readonly send: Uint8Array
  readonly until: Uint8Array
}

export interface Case {
  readonly name: string
  readonly connections: number
  /** Messages that a connection sends at once before it waits for all their answers; default 1. */
  readonly pipeline?: number
  readonly exchange: Exchange
  readonly hello?: Hello
  readonly join?: Join
  /** The first connection sends, and every connection gets the answer, which counts as a message each. */
  readonly fanOut?: boolean
  /**
   * With `fanOut`: the connections take turns in belonging to so many groups, and what is expected is so many equal parts, one
   * for each group. Default 1.
   */
  readonly groups?: number
  /** Measures memory per idle connection instead of speed. */
  readonly idle?: boolean
}

export interface Suite {
  readonly name: string
  /** The contenders whose ratio to every row is printed: the bar, and what users have today. */
  readonly references: readonly string[]
  readonly contenders: readonly Contender[]
  /** The first one is what `--smoke` runs. */
  readonly cases: readonly Case[]
}
