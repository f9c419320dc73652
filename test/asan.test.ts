// The addon once more under AddressSanitizer and UndefinedBehaviorSanitizer, built into a folder of its own.
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Child, fixture, startChild } from './support/child.js'
import { sanitizerLibrary } from './support/sanitizers.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(path.join(tmpdir(), 'ringloop-asan-'))
const addon = path.join(folder, 'native', 'build', 'Release', 'ringloop.node')
const children: Child[] = []
/** Both tests are slow, and the machine may be busy. */
const PATIENCE_MS = 240_000

afterAll(() => {
  for (const child of children) child.kill()
  rmSync(folder, { recursive: true })
})

/** Builds a copy of native/, so that the addon in use stays as it is. */
function build(): void {
  cpSync(path.join(root, 'native'), path.join(folder, 'native'), {
    recursive: true,
    filter: (file) => !file.includes(`${path.sep}build${path.sep}`),
  })
  symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'))
  execFileSync(
    process.execPath,
    [path.join(folder, 'native', 'build.mjs'), '--force', '--sanitize', 'address,undefined'],
    {
      stdio: 'pipe',
    },
  )
}

function start(script: string, args: readonly string[] = []): Child {
  const child = startChild(script, {
    args,
    env: {
      LD_PRELOAD: sanitizerLibrary('libasan'),
      ASAN_OPTIONS: 'detect_leaks=0:halt_on_error=1:abort_on_error=0:exitcode=99',
      UBSAN_OPTIONS: 'halt_on_error=1:exitcode=99',
      RINGLOOP_NATIVE_ADDON: addon,
    },
  })
  children.push(child)
  return child
}

describe.skipIf(sanitizerLibrary('libasan') === '')('the addon under sanitizers', () => {
  beforeAll(build, PATIENCE_MS)

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
    'passes the suite of the pollers',
    async () => {
      const vitest = path.join(root, 'node_modules', 'vitest', 'vitest.mjs')
      const child = start(vitest, ['run', '--root', root, 'test/native-poller.test.ts'])
      const { code } = await child.exit(PATIENCE_MS)
      const output = `${child.stdout}\n${child.stderr}`
      expect(output).not.toMatch(/AddressSanitizer|runtime error/)
      expect(code, output).toBe(0)
    },
    PATIENCE_MS,
  )
})
