/**
 * Refuses options that nobody reads: a misspelt one would do nothing, silently. Keeps nothing; any thread. Called where
 * options are taken, never per message; nothing is allocated for options that are right.
 */
import { ErrorCode, RingloopError } from './errors.js'

/** The names of all options of a type, so that the compiler says when one is missing here or is there no more. */
export type OptionNames<T> = Readonly<Record<keyof T, true>>

/** So many letters may be wrong in a name that is taken for a misspelt one, and one more in a long one. */
const MAX_WRONG = 2
const LONG = 10

/**
 * Throws `ERR_RINGLOOP_OPTION` unless `options` is an object that has no other names than `known` has. `whose` names the
 * options in the sentence: `a server`, `connect`. A name whose value is `undefined` counts too. An instance of a class is
 * taken with whatever else it has: a module may export the class of a protocol, which is made with `new (loop)`.
 */
export function checkOptions(whose: string, options: unknown, known: Readonly<Record<string, true>>): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    const given = Array.isArray(options) ? 'an array' : kindOf(options)
    throw new RingloopError(ErrorCode.OPTION, `the options of ${whose} must be an object, not ${given}`)
  }
  if (!isPlain(options)) return
  for (const name in options) {
    if (Object.hasOwn(known, name) || !Object.hasOwn(options, name)) continue
    throw unknownOption(whose, name, Object.keys(known))
  }
}

function isPlain(options: object): boolean {
  const prototype = Object.getPrototypeOf(options)
  return prototype === Object.prototype || prototype === null
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return String(value)
  return typeof value === 'function' ? 'a function' : `the ${typeof value} '${String(value)}'`
}

function unknownOption(whose: string, name: string, known: readonly string[]): RingloopError {
  const meant = nearest(name, known)
  const hint =
    meant === undefined
      ? `; the options of ${whose} are ${[...known].sort().join(', ')}`
      : `: did you mean '${meant}'?`
  return new RingloopError(ErrorCode.OPTION, `unknown option '${name}'${hint}`)
}

/** The known name that differs least, where that is little; upper and lower case are one. */
function nearest(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  const most = name.length < LONG ? MAX_WRONG : MAX_WRONG + 1
  let least = Math.min(most, Math.floor(name.length / 2)) + 1
  for (const each of known) {
    const wrong = distance(name.toLowerCase(), each.toLowerCase())
    if (wrong < least) {
      best = each
      least = wrong
    }
  }
  return best
}

/** Letters to insert, delete, replace, or swap with their neighbour, to make `a` of `b`. */
function distance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      let cost = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, rows[i - 1]![j - 1]! + (same ? 0 : 1))
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, rows[i - 2]![j - 2]! + 1)
      }
      row.push(cost)
    }
    rows.push(row)
  }
  return rows[a.length]![b.length]!
}
