/**
 * An earlier commit, built in a folder of its own, so that its servers can run beside those of the working
 * tree.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ROOT } from './paths.js'
import type { Entrant } from './round.js'

const BUILT: string = join(ROOT, 'dist')
const ARCHIVE_LIMIT = 256 * 1024 * 1024

function must(folder: string, input: Buffer | undefined, file: string, ...args: string[]): Buffer {
  const options = { cwd: folder, maxBuffer: ARCHIVE_LIMIT, ...(input && { input }) }
  const result = spawnSync(file, args, options)
  if (result.error) throw result.error
  if (result.status === 0) return result.stdout
  throw new Error(`${file} ${args.join(' ')}: ${result.stderr}${result.stdout}`)
}

/**
 * Unpacks and builds `ref` with today's dependencies; the folder goes when this process ends. Throws if it
 * does not build.
 */
function build(ref: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'ringloop-bench-'))
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  must(folder, must(ROOT, undefined, 'git', 'archive', '--format=tar', ref), 'tar', '-x')
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  must(folder, undefined, 'npm', 'run', '--silent', 'build')
  return join(folder, 'dist')
}

/**
 * Each contender whose server is built from this package, twice: as it was at `ref`, then as it is now. The
 * others cannot differ and are left out.
 */
export function withEarlier(entrants: readonly Entrant[], ref: string): Entrant[] {
  const earlier = build(ref)
  return entrants
    .filter(({ command }) => command.args.some((arg) => arg.startsWith(BUILT)))
    .flatMap((entrant) => {
      const args = entrant.command.args.map((arg) => arg.replace(BUILT, earlier))
      return [{ ...entrant, name: `${entrant.name}@${ref}`, command: { ...entrant.command, args } }, entrant]
    })
}
