/** The addon once more, from a copy of its sources in a folder of its own, so that the one in use stays as it is. */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))

export class BuiltAddon {
  readonly #folder = mkdtempSync(path.join(tmpdir(), 'ringloop-addon-'))
  /** What RINGLOOP_NATIVE_ADDON is to be, once it is built. */
  readonly file: string = path.join(this.#folder, 'native', 'build', 'Release', 'ringloop.node')

  /** `args` are those of native/build.mjs. */
  build(args: readonly string[], env: Readonly<Record<string, string>> = {}): void {
    cpSync(path.join(root, 'native'), path.join(this.#folder, 'native'), {
      recursive: true,
      filter: (file) => !file.includes(`${path.sep}build${path.sep}`),
    })
    symlinkSync(path.join(root, 'node_modules'), path.join(this.#folder, 'node_modules'))
    const script = path.join(this.#folder, 'native', 'build.mjs')
    execFileSync(process.execPath, [script, '--force', ...args], {
      stdio: 'pipe',
      env: { ...process.env, ...env },
    })
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true })
  }
}
