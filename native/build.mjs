// Builds the addon when it is missing or older than its sources. Never fails the build around it: where it cannot be
// built one line says so, and the `net` poller serves.   node native/build.mjs [--force] [--sanitize address]
// With --prebuild what was built is put where a package of this directory finds it on machines of this kind.
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readdirSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const here = path.dirname(fileURLToPath(import.meta.url))
const product = path.join(here, 'build', 'Release', 'ringloop.node')
const { values } = parseArgs({
  options: { force: { type: 'boolean' }, sanitize: { type: 'string' }, prebuild: { type: 'boolean' } },
})

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

function nodeGyp() {
  const require = createRequire(import.meta.url)
  return path.join(path.dirname(require.resolve('node-gyp/package.json')), 'bin', 'node-gyp.js')
}

function build() {
  // A newer compiler's new warning is to fail the check of a change, not a user's build.
  const strict = process.env.CI ? ['-Dwerror=1'] : []
  const sanitize = values.sanitize ? [`-Dsanitize=${values.sanitize}`] : []
  const args = [nodeGyp(), 'rebuild', '-C', here, ...headers(), '--', ...strict, ...sanitize]
  // `npm run --silent` would silence the reason.
  const env = { ...process.env, npm_config_loglevel: 'notice' }
  return spawnSync(process.execPath, args, { encoding: 'utf8', env })
}

/** The line that says most; undefined where it was built. */
function buildFailure() {
  try {
    const result = build()
    if (result.status === 0) return undefined
    const lines = `${result.stderr ?? ''}\n${result.stdout ?? ''}`.split('\n')
    const telling = lines.find((text) => /not found|No such file|Could not find/i.test(text))
    const line = telling ?? lines.find((text) => /error/i.test(text))
    return (line ?? result.error?.message ?? 'unknown error').replace(/^gyp ERR! /, '').trim()
  } catch (error) {
    return error.code === 'MODULE_NOT_FOUND' ? 'node-gyp is not installed' : error.message
  }
}

function prebuild() {
  const glibc = process.report.getReport().header.glibcVersionRuntime !== undefined
  const folder = path.join(here, 'prebuilds', `linux-${process.arch}${glibc ? '' : '-musl'}`)
  mkdirSync(folder, { recursive: true })
  copyFileSync(product, path.join(folder, 'ringloop.node'))
}

if (process.platform !== 'linux') {
  console.log(`ringloop: the native poller is for Linux; on ${process.platform} the net poller serves`)
} else {
  const failure = isFresh() ? undefined : buildFailure()
  if (failure !== undefined) {
    console.log(`ringloop: the native poller was not built (${failure}); the net poller serves`)
    if (values.force) process.exitCode = 1
  } else if (values.prebuild) {
    prebuild()
  }
}
