/** Runs an example by its name, with the flags behind it: `npm run example -- echo --port 0`. */
import { readdirSync, readFileSync } from 'node:fs'

const HERE = new URL('.', import.meta.url)
const NOT_EXAMPLES = ['run.js', 'flags.js']

/** Every example, and what the first line of its file says of it. */
function examples(): Map<string, string> {
  const files = readdirSync(HERE).filter((file) => file.endsWith('.js') && !NOT_EXAMPLES.includes(file))
  return new Map(files.map((file) => [file.slice(0, -'.js'.length), describe(file)]))
}

function describe(file: string): string {
  const [line = ''] = readFileSync(new URL(file, HERE), 'utf8').split('\n', 1)
  return line.replace(/^\/\/ */, '').replace(/ {3}.*/, '')
}

const name = process.argv[2]
const known = examples()
if (name !== undefined && known.has(name)) {
  process.argv.splice(2, 1)
  await import(new URL(`${name}.js`, HERE).href)
} else {
  const list = [...known].map(([each, what]) => `  ${each.padEnd(20)} ${what}`)
  console.error([`${name === undefined ? 'name' : `there is no '${name}': name`} one of`, ...list].join('\n'))
  process.exitCode = 2
}
