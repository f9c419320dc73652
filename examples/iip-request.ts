// One IIP request from the command line: HOST:PORT/path?query --data X --timeout 3s.   npm run example -- iip-request …
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { IipClient } from 'ringloop/iip'
import { fail, orFail } from './iip/or-fail.js'

const USAGE =
  'iip-request HOST:PORT/path?query [--data TEXT | --data-file FILE] [--timeout 3s] [--tls] [--insecure]'
const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000 }

function usage(why: string): never {
  console.error(`${why}\n${USAGE}`)
  process.exit(2)
}

const { values, positionals } = (() => {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        data: { type: 'string' },
        'data-file': { type: 'string' },
        timeout: { type: 'string', default: '3s' },
        tls: { type: 'boolean', default: false },
        insecure: { type: 'boolean', default: false },
      },
    })
  } catch (error) {
    return usage((error as Error).message)
  }
})()

function milliseconds(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)?$/.exec(text)
  return match === null
    ? usage(`--timeout must be like 3s or 500ms, not '${text}'`)
    : Math.ceil(Number(match[1]) * UNITS[match[2] ?? 's']!)
}

function read(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    return fail((error as Error).message)
  }
}

const target = /^([^/]+:\d+)(\/.*)$/.exec(positionals[0] ?? '')
if (target === null || positionals.length > 1) usage('give one HOST:PORT/path')
const timeout = milliseconds(values.timeout)
const file = values['data-file']
const data = file === undefined ? values.data : read(file)

const tls = values.tls && { tls: values.insecure ? { rejectUnauthorized: false } : (true as const) }
const client = new IipClient({
  address: target[1]!,
  connectTimeout: Math.max(1, timeout),
  logger: 'error',
  raw: true,
  ...tls,
})
const answer = await orFail(client.request(target[2]!, data, { timeout }))
process.stdout.write(process.stdout.isTTY ? `${answer}\n` : answer)
await client.close()
