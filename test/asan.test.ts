// The addon once more under AddressSanitizer and UndefinedBehaviorSanitizer, built into a folder of its own.
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { BuiltAddon } from './support/built-addon.js'
import { Authority } from './support/certificates.js'
import { type Child, fixture, startChild } from './support/child.js'
import { sanitizerLibrary } from './support/sanitizers.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const addon = new BuiltAddon()
const children: Child[] = []
/** Both tests are slow, and the machine may be busy. */
const PATIENCE_MS = 240_000
const SUITES = ['test/native-poller.test.ts', 'test/native-tls-poller.test.ts']

const authority = new Authority()
const credentials = authority.issue()

afterAll(() => {
  authority.remove()
  for (const child of children) child.kill()
  addon.remove()
})

function start(script: string, args: readonly string[] = []): Child {
  const child = startChild(script, {
    args,
    env: {
      LD_PRELOAD: sanitizerLibrary('libasan'),
      ASAN_OPTIONS: 'detect_leaks=0:halt_on_error=1:abort_on_error=0:exitcode=99',
      UBSAN_OPTIONS: 'halt_on_error=1:exitcode=99',
      RINGLOOP_NATIVE_ADDON: addon.file,
      TLS_CREDENTIALS: JSON.stringify(credentials),
    },
  })
  children.push(child)
  return child
}

describe.skipIf(sanitizerLibrary('libasan') === '')('the addon under sanitizers', () => {
  beforeAll(() => addon.build(['--sanitize', 'address,undefined']), PATIENCE_MS)

  it(
    'survives traffic, resets, hand-off, hostile calls and threads that end',
    async () => {
      const child = start(fixture('asan-scenario.mjs'))
      const { code, signal } = await child.exit(PATIENCE_MS)
      expect({ code, signal, err: child.stderr }).toEqual({ code: 0, signal: null, err: '' })
      expect(child.stdout).toContain('done ')
    },
    PATIENCE_MS,
  )

  it(
    'passes the suites of the pollers',
    async () => {
      const vitest = path.join(root, 'node_modules', 'vitest', 'vitest.mjs')
      const child = start(vitest, ['run', '--root', root, ...SUITES])
      const { code } = await child.exit(PATIENCE_MS)
      const output = `${child.stdout}\n${child.stderr}`
      expect(output).not.toMatch(/AddressSanitizer|runtime error/)
      expect(code, output).toBe(0)
    },
    PATIENCE_MS,
  )
})
