/** Mailboxes, groups and letters among many threads, under the sanitizers for threads and for memory, leaks included. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { fixture } from './support/child.js'
import { sanitizerLibrary } from './support/sanitizers.js'

const native = fileURLToPath(new URL('../native/', import.meta.url))
const folder = mkdtempSync(path.join(tmpdir(), 'ringloop-threads-'))
afterAll(() => rmSync(folder, { recursive: true }))

const SANITIZERS = [
  { library: 'libtsan', flags: 'thread' },
  { library: 'libasan', flags: 'address,undefined' },
] as const

describe.each(SANITIZERS)('under $library', ({ library, flags }) => {
  it.skipIf(sanitizerLibrary(library) === '')(
    'letters arrive once and in order, and none is left behind, whoever ends meanwhile',
    { timeout: 120_000 },
    () => {
      const program = path.join(folder, library)
      const sources = ['mailbox.c', 'letter.c'].map((name) => path.join(native, name))
      execFileSync('gcc', [
        ...['-std=gnu11', '-D_GNU_SOURCE', '-O1', '-g', `-fsanitize=${flags}`, '-I', native],
        ...[fixture('mailbox-threads.c'), ...sources, '-pthread', '-o', program],
      ])
      const { status, stderr, stdout } = spawnSync(program, { encoding: 'utf8' })
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
      expect(stdout).toMatch(/^done \d+\n$/)
    },
  )
})
