/** Which sanitizers the compiler of this machine has. */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'

/** The path of the library, or '' where the compiler has none. */
export function sanitizerLibrary(name: 'libasan' | 'libtsan'): string {
  try {
    const file = execFileSync('gcc', [`-print-file-name=${name}.so`], { encoding: 'utf8' }).trim()
    return path.isAbsolute(file) && existsSync(file) ? file : ''
  } catch {
    return ''
  }
}
