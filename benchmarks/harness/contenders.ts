/** Contenders that several suites share. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT, script } from './paths.js'
import type { Command, Contender, Skip } from './suite.js'

/** The server `benchmarks/servers/FILE.ts`, in a Node of its own that may collect its garbage on demand. */
export function nodeServer(name: string, file: string): Contender {
  const command = { file: process.execPath, args: ['--expose-gc', script(`servers/${file}`)], settles: true }
  return { name, prepare: () => command }
}

/** The server `examples/FILE.ts`. */
export function exampleServer(name: string, file: string, ...flags: string[]): Contender {
  const args = [join(ROOT, 'dist', 'examples', `${file}.js`), '--port', '0', ...flags]
  return { name, prepare: () => ({ file: process.execPath, args }) }
}

/** The server `benchmarks/servers/FILE.ts` in Bun, which is no dependency: skipped where there is none. */
export function bunServer(name: string, file: string): Contender {
  return { name, prepare: () => prepareBun(file) }
}

function prepareBun(server: string): Command | Skip {
  const installed = join(ROOT, 'node_modules', '.bin', 'bun')
  const file = existsSync(installed) ? installed : 'bun'
  const { error } = spawnSync(file, ['--version'])
  if (error !== undefined) return { skip: 'there is no bun on the PATH' }
  return { file, args: [script(`servers/${server}`)], settles: true }
}
