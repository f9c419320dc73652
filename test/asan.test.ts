// The addon once more under AddressSanitizer, built into a folder of its own; see docs/design.md.
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { type Child, fixture, startChild } from './support/child.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(path.join(tmpdir(), 'ringloop-asan-'))
const children: Child[] = []

afterAll(() => {
  for (const child of children) child.kill()
  rmSync(folder, { recursive: true })
})

/** The path of libasan, or '' where the compiler has none. */
function libasan(): string {
  try {
    const file = execFileSync('gcc', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim()
    return path.isAbsolute(file) && existsSync(file) ? file : ''
  } catch {
    return ''
  }
}

/** Builds a copy of native/, so that the addon in use stays as it is. */
function build(): string {
  cpSync(path.join(root, 'native'), path.join(folder, 'native'), {
    recursive: true,
    filter: (file) => !file.includes(`${path.sep}build${path.sep}`),
  })
  symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'))
  execFileSync(
    process.execPath,
    [path.join(folder, 'native', 'build.mjs'), '--force', '--sanitize', 'address'],
    {
      stdio: 'pipe',
    },
  )
  return path.join(folder, 'native', 'build', 'Release', 'ringloop.node')
}

describe.skipIf(libasan() === '')('the addon under AddressSanitizer', () => {
  it('survives traffic, resets, hand-off, hostile calls and threads that end', async () => {
    const child = startChild(fixture('asan-scenario.mjs'), {
      env: {
        LD_PRELOAD: libasan(),
        ASAN_OPTIONS: 'detect_leaks=0:halt_on_error=1:abort_on_error=0:exitcode=99',
        RINGLOOP_NATIVE_ADDON: build(),
      },
    })
    children.push(child)
    const { code, signal } = await child.exit(50_000)
    expect(child.stderr).not.toContain('AddressSanitizer')
    expect({ code, signal, err: child.stderr }).toEqual({ code: 0, signal: null, err: '' })
    expect(child.stdout).toContain('done ')
  })
})
