/** What a plugin may use is public: lint sees to it, and the plugins of this repository compile as those of a user do. */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'

const ROOT = path.resolve(import.meta.dirname, '..')
const PLUGINS = path.join(ROOT, 'src', 'plugins')
const BIOME = path.join(ROOT, 'node_modules', '@biomejs', 'biome', 'bin', 'biome')
const TSC = path.join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc')
/** Within the package, so that the code finds it by its name. */
const COPIES = path.join(ROOT, 'dist', 'plugins-of-a-user')

const plugins = readdirSync(PLUGINS)

const REFUSED = [
  "export { smallSlab } from '../../ringbuffer/slab.js'",
  "import { checkInteger } from '../../check-integer.js'; checkInteger('a', 1, 2)",
  "export type { EventLoop } from '../../loop/event-loop.js'",
  "export { HeadParser } from '../../http1/head.js'",
  "export { HttpProtocol } from '../http/index.js'",
  "export { smallSlab } from './../../ringbuffer/slab.js'",
  "export const log = await import('../../log.js')",
]
const ALLOWED = [
  "export { RingBuffer } from '../../index.js'",
  "export { HeadParser } from '../../http1/index.js'",
  "export { Sender } from './sender.js'",
  "export { HttpProtocol } from 'ringloop/http'",
  "export { once } from 'node:events'",
]

/** Those of the lines that the linter refuses in a plugin. */
function refused(lines: readonly string[]): string[] {
  const root = mkdtempSync(path.join(tmpdir(), 'ringloop-lint-'))
  try {
    const folder = path.join(root, 'src', 'plugins', 'one')
    mkdirSync(folder, { recursive: true })
    const config = JSON.parse(readFileSync(path.join(ROOT, 'biome.json'), 'utf8')) as object
    writeFileSync(path.join(root, 'biome.json'), JSON.stringify({ ...config, vcs: { enabled: false } }))
    for (const [i, line] of lines.entries()) writeFileSync(path.join(folder, `line-${i}.ts`), `${line}\n`)
    const args = [BIOME, 'lint', '--colors=off', '--only=style/noRestrictedImports', 'src']
    const { stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' })
    return lines.filter((_, i) => `${stdout}${stderr}`.includes(`line-${i}.ts:`))
  } finally {
    rmSync(root, { recursive: true })
  }
}

it('the linter refuses in a plugin what comes from behind index.ts, and nothing else', () => {
  expect(refused([...REFUSED, ...ALLOWED])).toEqual(REFUSED)
})

describe('a plugin', () => {
  it.each(plugins)('needs nothing that is hidden from users: %s', (plugin) => {
    const folder = path.join(COPIES, plugin)
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(COPIES, { recursive: true })
    cpSync(path.join(PLUGINS, plugin), folder, { recursive: true })
    for (const file of sourcesIn(folder)) {
      const text = readFileSync(file, 'utf8')
        .replaceAll("'../../index.js'", "'ringloop'")
        .replaceAll("'../../http1/index.js'", "'ringloop/http1'")
      writeFileSync(file, text)
    }
    const config = {
      extends: '../../../tsconfig.json',
      compilerOptions: { rootDir: '.', noEmit: true },
      include: ['*.ts'],
      exclude: [],
    }
    writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify(config))
    const { stdout } = spawnSync(process.execPath, [TSC, '-p', folder], { encoding: 'utf8' })
    expect(stdout).toBe('')
  })

  it.each(plugins)('hides no members of its public types: %s', (plugin) => {
    const hiding = sourcesIn(path.join(PLUGINS, plugin)).filter((file) =>
      readFileSync(file, 'utf8').includes('@internal'),
    )
    expect(hiding).toEqual([])
  })
})

function sourcesIn(folder: string): string[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.ts'))
    .map((file) => path.join(folder, file))
}
