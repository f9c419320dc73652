/** The key and certificate of the servers that speak TLS: made once with the `openssl` program, for this machine's use alone. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { CACHE } from './paths.js'

const PEM = join(CACHE, 'tls.pem')
const REQUEST = [
  'req',
  '-x509',
  '-newkey',
  'ec',
  '-pkeyopt',
  'ec_paramgen_curve:prime256v1',
  '-nodes',
  '-days',
  '3650',
]

/** Why there are none; `undefined` when they are there. */
export function makeCredentials(): string | undefined {
  if (existsSync(PEM)) return undefined
  mkdirSync(CACHE, { recursive: true })
  const fresh = `${PEM}.${process.pid}`
  const result = spawnSync('openssl', [
    ...REQUEST,
    '-subj',
    '/CN=localhost',
    '-keyout',
    fresh,
    '-out',
    `${fresh}.cert`,
  ])
  if (result.status !== 0) return 'there is no openssl program'
  const both = spawnSync('sh', ['-c', `cat ${fresh}.cert >> ${fresh}`])
  if (both.status !== 0) return 'the certificate cannot be written'
  renameSync(fresh, PEM)
  return undefined
}

/** For a server, after {@link makeCredentials}. */
export function credentials(): { readonly key: string; readonly cert: string } {
  const pem = readFileSync(PEM, 'utf8')
  return { key: pem, cert: pem }
}
