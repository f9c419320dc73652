/** Contenders that several suites share. */
import { script } from './paths.js'
import type { Contender } from './suite.js'

/** The server `benchmarks/servers/FILE.ts`, in a Node of its own that may collect its garbage on demand. */
export function nodeServer(name: string, file: string): Contender {
  const command = { file: process.execPath, args: ['--expose-gc', script(`servers/${file}`)], settles: true }
  return { name, prepare: () => command }
}
