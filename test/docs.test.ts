/** The documentation names what there is, and nothing else; and its code compiles and runs. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { CLOSE_CODES, ErrorCode } from '../src/errors.js'
import { endExamples, startProgram } from './example-process.js'

const ROOT = path.resolve(import.meta.dirname, '..')
const TSC = path.join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc')
/** Within the package, so that the code finds it by its name. */
const BLOCKS = path.join(ROOT, 'dist', 'docs')

const read = (...file: string[]): string => readFileSync(path.join(ROOT, ...file), 'utf8')
const api = read('docs', 'api.md')
const http1 = read('docs', 'http1.md')

const documents = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md'].concat(
  readdirSync(path.join(ROOT, 'docs'))
    .filter((file) => file.endsWith('.md'))
    .map((file) => `docs/${file}`),
)

/** The text under each heading `### name`. */
const sectionsOf = (text: string): Map<string, string> =>
  new Map(
    text
      .split(/^### /m)
      .slice(1)
      .map((section) => [section.split('\n', 1)[0]!.replaceAll('`', ''), section.split(/^## /m, 1)[0]!]),
  )
const sections = sectionsOf(api)

afterEach(endExamples)

/** Every name in an `export { … } from` of the file, types too, and where it comes from. */
function exportsOf(file: string): Map<string, string> {
  const lists = read(file).matchAll(/^export (?:type )?\{([^}]*)\} from '\.\/(.+)\.js'/gm)
  return new Map(
    [...lists].flatMap(([, list, from]) =>
      list!
        .split(',')
        .map((name) => name.trim().replace(/^type /, ''))
        .filter((name) => name !== '')
        .map((name): [string, string] => [name, from!]),
    ),
  )
}

/** The public members of each exported class and interface, as the compiler declares them. */
function membersOf(): Map<string, string[]> {
  const found = new Map<string, string[]>()
  for (const [name, file] of exportsOf('src/index.ts')) {
    const types = read('dist', 'src', `${file}.d.ts`)
    const declared = new RegExp(
      `^export (?:declare )?(?:abstract )?(?:class|interface) ${name}\\b[^\\n]*\\{\\n([\\s\\S]*?)^\\}`,
      'm',
    ).exec(types)
    if (declared === null) continue
    const members = declared[1]!.matchAll(/^ {4}(?:(?:static|readonly|get|set|abstract) )*(\w+)\??[(:<]/gm)
    found.set(name, [...new Set([...members].map((member) => member[1]!))])
  }
  return found
}

function codeBlocks(...file: string[]): string[] {
  return [...read(...file).matchAll(/^```ts\n([\s\S]*?)^```/gm)].map(([, code]) => code!)
}

/** Writes the blocks as modules and compiles them; what the compiler says. */
function compile(name: string, blocks: readonly string[]): string {
  const folder = path.join(BLOCKS, name)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  for (const [i, code] of blocks.entries()) {
    writeFileSync(path.join(folder, `block-${i + 1}.ts`), `${code}export {}\n`)
  }
  const config = {
    extends: '../../../tsconfig.json',
    compilerOptions: {
      rootDir: '.',
      outDir: '.',
      isolatedDeclarations: false,
      noUnusedLocals: false,
      noUnusedParameters: false,
    },
    include: ['*.ts'],
    exclude: [],
  }
  writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify(config))
  return spawnSync(process.execPath, [TSC, '-p', folder], {
    encoding: 'utf8',
  }).stdout
}

describe.each([
  ['docs/api.md', sections, 'src/index.ts'],
  ['docs/http1.md', sectionsOf(http1), 'src/http1/index.ts'],
])('%s', (_file, sections, index) => {
  it('has a heading for every export, and no other', () => {
    expect([...sections.keys()].sort()).toEqual([...exportsOf(index).keys()].sort())
  })

  it('names every public member of every exported class and interface under its heading', () => {
    const members = membersOf()
    const missing = [...sections].flatMap(([name, text]) =>
      (members.get(name) ?? [])
        .filter((member) => member !== 'constructor' && !new RegExp(`\\b${member}\\b`).test(text))
        .map((member) => `${name}.${member}`),
    )
    expect(missing).toEqual([])
  })
})

describe('docs/api.md', () => {
  it('has every error code in its table, and no other', () => {
    const listed = [...sections.get('ErrorCode')!.matchAll(/^\| `(\w+)` \| `(ERR_RINGLOOP_\w+)`/gm)]
    expect(listed.map(([, name, code]) => [name, code])).toEqual(Object.entries(ErrorCode))
  })

  it('has every close code in its table, and no other', () => {
    const listed = [...sections.get('CloseCode')!.matchAll(/^\| `([\w-]+)` \|/gm)]
    expect(listed.map(([, code]) => code)).toEqual([...CLOSE_CODES])
  })
})

describe('all documents', () => {
  it.each(documents)('%s names only error codes that exist', (file) => {
    const known = new Set<string>([
      ...Object.values(ErrorCode),
      'ERR_RINGLOOP_BUFFER_LIMIT',
      'ERR_RINGLOOP_BUFFER_UNDERFLOW',
    ])
    const named = [...read(file).matchAll(/ERR_RINGLOOP_\w+/g)].map(([code]) => code)
    expect(named.filter((code) => !known.has(code) && !sourceHas(code))).toEqual([])
  })

  it.each(documents)('%s links only to what is there', (file) => {
    const links = [...read(file).matchAll(/\]\((?!https?:|#|mailto:)([^)#]+)/g)].map(([, link]) => link!)
    const folder = path.join(ROOT, path.dirname(file))
    expect(links.filter((link) => !existsSync(path.join(folder, link)))).toEqual([])
  })

  it.each(documents)('%s names only scripts that package.json has', (file) => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
    const named = [...read(file).matchAll(/npm run (?:--silent )?([\w:-]+)/g)].map(([, name]) => name!)
    expect(named.filter((name) => scripts[name] === undefined)).toEqual([])
  })

  it.each(documents)('%s names only examples that exist', (file) => {
    const named = [...read(file).matchAll(/npm run example -- ([\w-]+)/g)].map(([, name]) => name!)
    expect(
      named.filter((name) => name !== 'NAME' && !existsSync(path.join(ROOT, 'examples', `${name}.ts`))),
    ).toEqual([])
  })
})

describe('the code in the documents', () => {
  it.each(documents.filter((file) => codeBlocks(file).length > 0))('%s compiles', (file) => {
    expect(compile(path.basename(file, '.md'), codeBlocks(file))).toBe('')
  })

  it('the first program of the README is ten lines long and echoes', async () => {
    const [code] = codeBlocks('README.md')
    expect(code!.split('\n').filter((line) => line.trim() !== '').length).toBeLessThanOrEqual(10)
    expect(code).toContain("address: ':1833'")
    expect(compile('first', [code!.replace(':1833', '127.0.0.1:0')])).toBe('')
    const program = await startProgram(path.join(BLOCKS, 'first', 'block-1.js'))
    const peer = await program.connect()
    await peer.write('hello')
    await peer.said(/^hello$/)
  })
})

/** Plugins have codes of their own. */
function sourceHas(code: string): boolean {
  return readdirSync(path.join(ROOT, 'src'), { recursive: true, encoding: 'utf8' }).some(
    (file) => file.endsWith('.ts') && read('src', file).includes(`'${code}'`),
  )
}
