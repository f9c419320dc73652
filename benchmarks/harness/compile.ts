/** Compiles the C programs of benchmarks/c on demand, and again when the source is newer. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { CACHE, ROOT } from './paths.js'
import type { Command, Skip } from './suite.js'

const FLAGS = ['-O2', '-std=gnu11', '-Wall', '-Wextra', '-Werror']

function modified(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0
}

/** The program made from `benchmarks/c/NAME.c`, or why there is none. Throws when it does not compile. */
export function compileC(name: string): Command | Skip {
  return compile(name, name, [])
}

/** The load generator that speaks TLS. */
export function compileTlsClient(): Command | Skip {
  if (!existsSync('/usr/include/openssl/ssl.h')) return { skip: 'there is no libssl-dev' }
  return compile('load', 'load-tls', ['-DWITH_TLS', '-lssl', '-lcrypto'])
}

function compile(name: string, product: string, flags: readonly string[]): Command | Skip {
  if (process.platform !== 'linux') return { skip: `${name} needs Linux (epoll)` }
  const source = join(ROOT, 'benchmarks', 'c', `${name}.c`)
  const program = join(CACHE, product)
  if (modified(program) > modified(source)) return { file: program, args: [] }
  mkdirSync(CACHE, { recursive: true })
  const fresh = `${program}.${process.pid}`
  const compiler = process.env.CC ?? 'cc'
  const result = spawnSync(compiler, [...FLAGS, '-o', fresh, source, ...flags], { encoding: 'utf8' })
  if (result.error) return { skip: `no C compiler (${compiler}: ${result.error.message})` }
  if (result.status !== 0) throw new Error(`${name}.c does not compile:\n${result.stderr}`)
  renameSync(fresh, program) // another run may be using the old one
  return { file: program, args: [] }
}
