/**
 * The package as npm would publish it, in a project of somebody else's: its types compile with every check on, whichever
 * way they are resolved, and it can be imported and required. Packs what `npm run build` has made.
 */
import { spawnSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const ROOT = path.resolve(import.meta.dirname, '..')
const TSC = path.join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc')
/** What `npm install ringloop @nats-io/transport-node @redis/client prom-client protobufjs` and `npm install -D @types/node` would bring beside it. */
const BESIDE = [
  '@nats-io/transport-node',
  '@redis/client',
  '@types/node',
  'denque',
  'pino',
  'prom-client',
  'protobufjs',
]

const { name, exports } = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as {
  name: string
  exports: Record<string, { types: string }>
}
const ENTRY_POINTS = Object.keys(exports).map((entry) => path.posix.join(name, entry))

let project = ''
const packageFolder = (): string => path.join(project, 'node_modules', name)

beforeAll(() => {
  project = mkdtempSync(path.join(tmpdir(), 'ringloop-package-'))
  const packed = run('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', project], ROOT)
  const [{ filename }] = JSON.parse(packed.stdout) as [{ filename: string }]
  mkdirSync(packageFolder(), { recursive: true })
  run('tar', ['-xzf', path.join(project, filename), '--strip-components=1', '-C', packageFolder()], project)
  for (const each of BESIDE) {
    const folder = path.join(project, 'node_modules', each)
    mkdirSync(path.dirname(folder), { recursive: true })
    symlinkSync(path.join(ROOT, 'node_modules', each), folder)
  }
})

afterAll(() => rmSync(project, { recursive: true, force: true }))

interface Ended {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

function run(command: string, args: readonly string[], cwd: string): Ended {
  return spawnSync(command, args, { cwd, encoding: 'utf8', shell: process.platform === 'win32' })
}

/** Compiles `files` in a folder of their own; what the compiler says. */
function compile(folder: string, files: Record<string, string>, compilerOptions: object): string {
  const where = path.join(project, folder)
  mkdirSync(where, { recursive: true })
  for (const [file, text] of Object.entries(files)) writeFileSync(path.join(where, file), text)
  const config = {
    compilerOptions: {
      target: 'es2022',
      lib: ['es2022'],
      types: ['node'],
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false,
      noEmit: true,
      ...compilerOptions,
    },
    include: ['*'],
  }
  writeFileSync(path.join(where, 'tsconfig.json'), JSON.stringify(config))
  const { status, stdout, stderr } = run(process.execPath, [TSC, '-p', where], where)
  return status === 0 ? '' : stdout + stderr
}

const MODULE = JSON.stringify({ type: 'module' })

function typeTests(): Record<string, string> {
  const folder = path.join(ROOT, 'test', 'types')
  return Object.fromEntries(
    readdirSync(folder).map((file) => [file, readFileSync(path.join(folder, file), 'utf8')]),
  )
}

describe('the published types', () => {
  it('compile in an ES module, with all that they are to accept and to refuse', () => {
    const files = { ...typeTests(), 'package.json': MODULE }
    expect(compile('esm', files, { module: 'nodenext' })).toBe('')
  })

  it('compile as a bundler resolves them', () => {
    const options = { module: 'preserve', moduleResolution: 'bundler' }
    expect(compile('bundler', { ...typeTests(), 'package.json': MODULE }, options)).toBe('')
  })

  it('compile in a CommonJS module, imported and required', () => {
    const imported = ENTRY_POINTS.map((entry, i) => `import * as m${i} from '${entry}'\nvoid m${i}\n`)
    const required = ENTRY_POINTS.map((entry, i) => `import m${i} = require('${entry}')\nvoid m${i}\n`)
    const program = `import ringloop = require('ringloop')
const server = new ringloop.Server({ onMessage: (c, ctx, data) => data })
void server.start()
// @ts-expect-error
void new ringloop.Server({ onMessage: () => 5 })
`
    const files = {
      'imported.cts': imported.join(''),
      'required.cts': required.join(''),
      'program.cts': program,
      'package.json': '{}',
    }
    expect(compile('commonjs', files, { module: 'nodenext' })).toBe('')
  })

  it('compile where the library of the language has everything', () => {
    const options = { module: 'nodenext', target: 'esnext', lib: ['esnext'] }
    expect(compile('esnext', { ...typeTests(), 'package.json': MODULE }, options)).toBe('')
  })

  it('name nothing of the machine, and nothing any', () => {
    const found = reachable(path.join(packageFolder(), exports['.']!.types))
    const machine = ['connection/tcp-connection', 'loop/event-loop', 'loop/transport']
    const files = found.map((file) => path.relative(path.join(packageFolder(), 'dist', 'src'), file))
    expect(files.filter((file) => machine.includes(file.replace('.d.ts', '')))).toEqual([])
    const odd = found.filter((file) => {
      const text = readFileSync(file, 'utf8')
      return /@internal/.test(text) || /\bany\b/.test(text.replaceAll(/\/\*[\s\S]*?\*\//g, ''))
    })
    expect(odd).toEqual([])
  })
})

/** The declarations that a program sees which imports `file`. */
function reachable(file: string, found: string[] = []): string[] {
  if (found.includes(file)) return found
  found.push(file)
  for (const [, name] of readFileSync(file, 'utf8').matchAll(/(?:from|import\()\s*'(\.[^']+)\.js'/g)) {
    reachable(path.resolve(path.dirname(file), `${name}.d.ts`), found)
  }
  return found
}

describe('the published program', () => {
  it('can be imported, every entry point of it', () => {
    const program = ENTRY_POINTS.map((entry) => `await import('${entry}')\n`).join('')
    expect(run(process.execPath, ['--input-type=module', '-e', program], project)).toMatchObject({
      status: 0,
      stderr: '',
    })
  })

  it.runIf('require_module' in process.features)('can be required, every entry point of it', () => {
    const program = ENTRY_POINTS.map((entry) => `require('${entry}')\n`).join('')
    const ended = run(process.execPath, ['--no-warnings', '-e', program], project)
    expect(ended).toMatchObject({ status: 0, stderr: '' })
  })
})
