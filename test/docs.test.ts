/** The documentation names what there is, and nothing else; and its code compiles and runs. */
import { spawnSync } from 'node:child_process'
import { createHash, scryptSync } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import { CLOSE_CODES, ErrorCode } from '../src/errors.js'
import { type ExampleProcess, endExamples, type Peer, startProgram } from './example-process.js'

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

describe('README.md', () => {
  const readme = read('README.md')

  it('lists every example, and no other', () => {
    const listed = [...readme.matchAll(/\]\(examples\/([\w-]+)\.ts\)/g)].map(([, name]) => name!)
    const found = readdirSync(path.join(ROOT, 'examples'))
      .filter((file) => file.endsWith('.ts') && !['run.ts', 'flags.ts'].includes(file))
      .map((file) => file.slice(0, -'.ts'.length))
    expect(listed.sort()).toEqual(found.sort())
  })

  it('lists every module that package.json exports', () => {
    const { exports } = JSON.parse(read('package.json')) as { exports: Record<string, unknown> }
    const missing = Object.keys(exports).filter((name) => !readme.includes(`\`ringloop${name.slice(1)}\``))
    expect(missing).toEqual([])
  })

  it('lists every callback of a handler, and what a connection has', () => {
    const [, handler] = /^\| `Handler`.*\|(.*)\|$/m.exec(readme)!
    const [, connection] = /^\| `Connection`.*?\|(.*)\|$/m.exec(readme)!
    const members = membersOf()
    const missing = (row: string, name: string): string[] =>
      members.get(name)!.filter((member) => !new RegExp(`\\b${member}\\b`).test(row))
    expect(missing(handler!, 'Handler')).toEqual([])
    expect(missing(connection!, 'Connection')).toEqual([])
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

describe('the half-open program of docs/api.md', () => {
  it('answers when the peer has ended its side', async () => {
    const code = codeBlocks('docs', 'api.md').find((block) => block.includes('allowHalfOpen'))!
    expect(compile('half-open', [code.replace(':1833', '127.0.0.1:0')])).toBe('')
    const program = await startProgram(path.join(BLOCKS, 'half-open', 'block-1.js'))
    const peer = await program.connect()
    await peer.write('hello')
    peer.socket.end()
    expect(String(await peer.ended)).toBe('5 bytes\n')
  })
})

describe('the programs of docs/protocols.md', () => {
  const FOLDER = 'protocols-programs'
  const programs = codeBlocks('docs', 'protocols.md').map((code) => code.replace("':1833'", "'127.0.0.1:0'"))

  beforeAll(() => {
    expect(compile(FOLDER, programs)).toBe('')
  })

  const fileOf = (what: string): string => {
    const found = programs.findIndex((code) => code.includes(what))
    return path.join(BLOCKS, FOLDER, `block-${found + 1}.js`)
  }
  const start = (className: string): Promise<ExampleProcess> => startProgram(fileOf(`class ${className} `))
  const connect = async (className: string): Promise<Peer> => (await start(className)).connect()

  const u32 = (...values: number[]): Buffer =>
    Buffer.concat(values.map((value) => Buffer.of(value >>> 24, value >>> 16, value >>> 8, value)))
  const u64 = (value: number): Buffer => u32(0, value)

  it('all end with a server that listens, but the last', () => {
    const served = programs.filter((code) => code.includes('await server.start()'))
    expect(served.length).toBe(programs.length - 1)
  })

  it('the smallest one sends packets back, and closes who announces too much', async () => {
    const peer = await connect('LengthPrefixed')
    const packets = Buffer.concat([u32(5), Buffer.from('hello'), u32(0)])
    await peer.write(packets)
    expect(await peer.received(packets.length)).toEqual(packets)
    await peer.write(u32(2 ** 31))
    await peer.ended
  })

  it('netstrings come in any pieces, and a length has its bound', async () => {
    const peer = await connect('Netstrings')
    for (const piece of ['5', ':he', 'llo', ',0:', ',3:a']) await peer.write(piece)
    await peer.said(/^5:hello,0:,$/)
    await peer.write('bc,')
    await peer.said(/,3:abc,$/)
    await peer.write('123456')
    await peer.ended
  })

  it('short frames are the same through packet and through packetInto', async () => {
    const peer = await connect('ShortFrames')
    const long = Buffer.alloc(0xffff, 'x')
    const frames = Buffer.concat([Buffer.of(0, 2), Buffer.from('ab'), Buffer.of(0xff, 0xff), long])
    await peer.write(frames)
    expect((await peer.received(frames.length)).equals(frames)).toBe(true)
  })

  it('the handshake comes first, and what follows in the same piece is not lost', async () => {
    const program = await start('Greeted')
    const peer = await program.connect()
    await peer.write('HELLO ada\none\n')
    await peer.said(/^WELCOME ada\nada said one\n$/)
    const stranger = await program.connect()
    await stranger.write('one\n')
    expect(String(await stranger.ended)).toBe('')
  })

  it('numbered answers overtake each other, and more questions than may be open are answered', async () => {
    const peer = await connect('Numbered')
    const question = (number: number, ms: string): Buffer =>
      Buffer.concat([u32(number, ms.length), Buffer.from(ms)])
    await peer.write(Buffer.concat([question(1, '300'), question(2, '1')]))
    await peer.said(/slept 1 ms[\s\S]*slept 300 ms/)
    const before = peer.bytes.length
    await peer.write(Buffer.concat(Array.from({ length: 250 }, (_, i) => question(i + 3, '1'))))
    await peer.received(before + 250 * (8 + 'slept 1 ms'.length))
  })

  it('deflated packets keep their order, the end of the peer too, and bad data ends the connection', async () => {
    const program = await start('Deflated')
    const peer = await program.connect()
    const texts = ['one', 'two'.repeat(10_000), '']
    const frames = texts.map((text) => deflateRawSync(text)).map((body) => [u32(body.length), body])
    await peer.write(Buffer.concat(frames.flat()))
    peer.socket.end()
    let bytes = await peer.ended
    for (const text of texts) {
      const end = 4 + bytes.readUInt32BE()
      expect(inflateRawSync(bytes.subarray(4, end)).toString()).toBe(text)
      bytes = bytes.subarray(end)
    }
    const bad = await program.connect()
    await bad.write(Buffer.concat([u32(3), Buffer.of(0xff, 0xff, 0xff)]))
    expect(await bad.ended).toHaveLength(0)
  })

  it('a feed is sent to its end although the peer has ended its side, and packets go on', async () => {
    const peer = await connect('Feeds')
    await peer.write('count\nping\n')
    peer.socket.end()
    expect(String(await peer.ended)).toBe('pong\n3\n2\n1\n')
  })

  it('the last word goes out whoever ends it', async () => {
    const program = await start('Polite')
    const peer = await program.connect()
    await peer.write('hello\nquit\nnobody hears this\n')
    expect(String(await peer.ended)).toBe('hello\nBYE closed\n')
    const other = await program.connect()
    await other.write('hello\n')
    other.socket.end()
    expect(String(await other.ended)).toBe('hello\nBYE peer-closed\n')
  })

  it('costly packets are all answered, in order', async () => {
    const peer = await connect('Keys')
    const lines = ['a', 'b', 'c', 'd']
    await peer.write(lines.map((line) => `${line}\n`).join(''))
    peer.socket.end()
    const keys = lines.map((line) => `${scryptSync(line, 'salt', 16, { N: 1024 }).toString('hex')}\n`)
    expect(String(await peer.ended)).toBe(keys.join(''))
  })

  it('who is silent gets pings', async () => {
    const peer = await connect('Pinging')
    await peer.said(/^PING\nPING\n/)
  })

  it('bodies are read while they come; half a one is an error of that connection', async () => {
    const program = await start('Uploads')
    const peer = await program.connect()
    const body = Buffer.alloc(1_000_000, 'body')
    await peer.write(Buffer.concat([u64(body.length), body, u64(0)]))
    peer.socket.end()
    const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
    const answers = String(await peer.ended).split('\n')
    expect(answers.sort()).toEqual(['', hashOf(Buffer.alloc(0)), hashOf(body)].sort())
    const half = await program.connect()
    await half.write(Buffer.concat([u64(100_000), Buffer.alloc(70_000)]))
    half.socket.end()
    expect(String(await half.ended)).toBe('')
  })

  it('the test by split invariance passes', () => {
    const { status, stderr } = spawnSync(process.execPath, [fileOf('however they are cut')], {
      encoding: 'utf8',
    })
    expect(stderr).toBe('')
    expect(status).toBe(0)
  })
})

/** Plugins have codes of their own. */
function sourceHas(code: string): boolean {
  return readdirSync(path.join(ROOT, 'src'), { recursive: true, encoding: 'utf8' }).some(
    (file) => file.endsWith('.ts') && read('src', file).includes(`'${code}'`),
  )
}
