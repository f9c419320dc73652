// Builds the addon when it is missing or older than its sources. Never fails the build around it: where it cannot be
// built one line says so, and the `net` poller serves.   node native/build.mjs [--force] [--sanitize address]
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const here = path.dirname(fileURLToPath(import.meta.url))
const product = path.join(here, 'build', 'Release', 'ringloop.node')
const { values } = parseArgs({ options: { force: { type: 'boolean' }, sanitize: { type: 'string' } } })

function isFresh() {
  if (values.force || values.sanitize || !existsSync(product)) return false
  const built = statSync(product).mtimeMs
  const sources = readdirSync(here).filter((name) => /\.([ch]|gyp)$/.test(name))
  return sources.every((name) => statSync(path.join(here, name)).mtimeMs <= built)
}

// Node's own headers lie beside most installations: with them node-gyp has nothing to download.
function headers() {
  const prefix = path.resolve(process.execPath, '..', '..')
  return existsSync(path.join(prefix, 'include', 'node', 'node_api.h')) ? [`--nodedir=${prefix}`] : []
}

function build() {
  const require = createRequire(import.meta.url)
  const nodeGyp = path.join(path.dirname(require.resolve('node-gyp/package.json')), 'bin', 'node-gyp.js')
  // A newer compiler's new warning is to fail the check of a change, not a user's build.
  const strict = process.env.CI ? ['-Dwerror=1'] : []
  const sanitize = values.sanitize ? [`-Dsanitize=${values.sanitize}`] : []
  const args = [nodeGyp, 'rebuild', '-C', here, ...headers(), '--', ...strict, ...sanitize]
  return spawnSync(process.execPath, args, { encoding: 'utf8' })
}

function reason(result) {
  const output = `${result.stderr ?? ''}\n${result.stdout ?? ''}`
  const line = output.split('\n').find((text) => /error|not found|ERR!.*(find|ENO)/i.test(text))
  return (line ?? result.error?.message ?? 'unknown error').trim()
}

if (process.platform !== 'linux') {
  console.log(`ringloop: the native poller is for Linux; on ${process.platform} the net poller serves`)
} else if (!isFresh()) {
  const result = build()
  if (result.status !== 0) {
    console.log(`ringloop: the native poller was not built (${reason(result)}); the net poller serves`)
    if (values.force) process.exitCode = 1
  }
}
