/** How Node starts the thread of a loop: the options `execArgv` and `resourceLimits`, and what a thread inherits. */
import type { ResourceLimits } from 'node:worker_threads'
import { fail } from '../options.js'

export interface WorkerOptions {
  /** `undefined`: what the server's process was started with. */
  readonly execArgv: string[] | undefined
  readonly resourceLimits: ResourceLimits | undefined
}

const LIMITS: readonly string[] = [
  'maxYoungGenerationSizeMb',
  'maxOldGenerationSizeMb',
  'codeRangeSizeMb',
  'stackSizeMb',
] satisfies (keyof ResourceLimits)[]

/** Throws `ERR_RINGLOOP_OPTION`. Whether Node knows the flags of `execArgv` is seen when a thread starts. */
export function workerOptions(options: {
  readonly execArgv?: unknown
  readonly resourceLimits?: unknown
}): WorkerOptions {
  return { execArgv: checkExecArgv(options.execArgv), resourceLimits: checkLimits(options.resourceLimits) }
}

function checkExecArgv(value: unknown): string[] | undefined {
  if (value === undefined) return undefined
  if (!Array.isArray(value) || !value.every((each) => typeof each === 'string')) {
    fail("execArgv must be an array of strings, such as ['--enable-source-maps']")
  }
  return [...value]
}

function checkLimits(value: unknown): ResourceLimits | undefined {
  if (value === undefined) return undefined
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    fail('resourceLimits must be an object, such as { maxOldGenerationSizeMb: 512 }')
  }
  for (const [name, limit] of Object.entries(value)) {
    if (!LIMITS.includes(name)) fail(`resourceLimits has no ${name}: it has ${LIMITS.join(', ')}`)
    if (limit !== undefined && !(typeof limit === 'number' && limit > 0)) {
      fail(`resourceLimits.${name} must be a number above 0`)
    }
  }
  return { ...value }
}

const INPUT_TYPE = /^--input[-_]type\b/

/**
 * Whether a thread started with these options has `--input-type`, which Node refuses beside a file: it comes from a
 * server in a script that is given by `--eval` or on standard input. Everything else a thread inherits is accepted by
 * Node, but only as long as it is inherited and not passed on: process-wide flags (`--max-old-space-size`, `--title`)
 * are errors in a worker's `execArgv`.
 */
export function hasInputType({ execArgv }: WorkerOptions): boolean {
  const inherited = (process.env.NODE_OPTIONS ?? '').split(/\s+/)
  return [...(execArgv ?? process.execArgv), ...inherited].some((flag) => INPUT_TYPE.test(flag))
}
