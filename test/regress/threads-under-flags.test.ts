// Node's flags were passed on to the threads explicitly, where those of the whole process are errors: no loop started.
import { afterEach, describe, expect, it } from 'vitest'
import { type Child, fixture, fixtureUrl, startChild } from '../support/child.js'

let child: Child | undefined

afterEach(() => child?.kill())

interface Seen {
  readonly isMainThread: boolean
  readonly preloaded: string[]
  readonly gc: string
}

async function run(
  execArgv: string[],
  script = fixture('flags-server.mjs'),
  env: Record<string, string> = {},
): Promise<Seen> {
  child = startChild(script, { execArgv: ['--no-warnings', ...execArgv], env })
  const seen = JSON.parse(await child.line('loop')) as Seen
  expect(await child.exit()).toEqual({ code: 0, signal: null })
  expect(child.stderr).toBe('')
  return seen
}

describe('two loops in threads start and serve under', () => {
  for (const flag of [
    '--max-old-space-size=200',
    '--max-semi-space-size=16',
    '--stack-size=900',
    '--title=a server',
    '--use-openssl-ca',
    '--expose-gc',
    '--experimental-vm-modules',
    '--enable-source-maps',
  ]) {
    it(flag, async () => {
      expect((await run([flag])).isMainThread).toBe(false)
    })
  }

  it('several at once, with a value in an argument of its own', async () => {
    const seen = await run(['--title', 'a server', '--expose-gc', '--conditions', 'development'])
    expect(seen.gc).toBe('function')
  })

  it('NODE_OPTIONS', async () => {
    const options = `--max-old-space-size=200 --title=x --import ${fixtureUrl('preload.mjs')}`
    expect((await run([], undefined, { NODE_OPTIONS: options })).preloaded).toEqual(['import'])
  })

  it('--import and --require, which reach the threads', async () => {
    const seen = await run([
      '--require',
      fixture('preload.cjs'),
      '--import',
      fixture('preload.mjs'),
      '--expose-gc',
    ])
    expect(seen.preloaded).toEqual(['require', 'import'])
  })

  const inline = `await import(${JSON.stringify(fixtureUrl('flags-server.mjs').href)})`

  it('--input-type with --eval, and flags of both kinds beside them', async () => {
    const flags = ['--expose-gc', '--title=x', '--import', fixture('preload.mjs')]
    const seen = await run([...flags, '--input-type=module', '--eval'], inline)
    expect(seen).toMatchObject({ preloaded: ['import'], gc: 'function' })
  })

  it('--eval alone', async () => {
    await run(['--title=x', '--eval'], `import(${JSON.stringify(fixtureUrl('flags-server.mjs').href)})`)
  })

  it('--input-type in NODE_OPTIONS', async () => {
    await run(['--eval'], inline, { NODE_OPTIONS: '--input-type=module' })
  })
})
