/** Where things lie: the compiled benchmarks run from dist/, their C sources stay in the repository. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

function findRoot(from: string): string {
  return existsSync(join(from, 'package.json')) ? from : findRoot(dirname(from))
}

const HERE: string = dirname(fileURLToPath(import.meta.url))

/** The package's folder. */
export const ROOT: string = findRoot(HERE)

/** Compiled C and the request bytes of the cases; never committed. */
export const CACHE: string = join(ROOT, 'node_modules', '.cache', 'ringloop-bench')

/** The compiled script of `benchmarks/NAME.ts`. */
export function script(name: string): string {
  return join(HERE, '..', `${name}.js`)
}
