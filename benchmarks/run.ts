/**
 * Runs a suite and prints its tables; README.md says how to read them.
 *
 *   npm run bench -- [SUITE] [--rounds N] [--seconds S] [--warmup S] [--only A,B] [--case TEXT]
 *       [--peer NAME=COMMAND …] [--against REF] [--smoke] [--json FILE]
 */
import { writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { parseArgs } from 'node:util'
import { withEarlier } from './harness/earlier.js'
import { chooseClient } from './harness/load-client.js'
import { caseReport } from './harness/report.js'
import { type Entrant, type Row, runCase } from './harness/round.js'
import type { Case, Contender, Suite } from './harness/suite.js'
import { echo } from './suites/echo.js'
import { http } from './suites/http.js'
import { iip } from './suites/iip.js'
import { tls, wss } from './suites/tls.js'
import { topics } from './suites/topics.js'
import { websocket } from './suites/websocket.js'

const SUITES: readonly Suite[] = [echo, http, iip, tls, topics, websocket, wss]

function fail(message: string): never {
  console.error(message)
  process.exit(2)
}

const OPTIONS = {
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '2' },
  warmup: { type: 'string', default: '1' },
  only: { type: 'string' },
  case: { type: 'string' },
  smoke: { type: 'boolean', default: false },
  json: { type: 'string' },
  against: { type: 'string' },
  peer: { type: 'string', multiple: true },
} as const

function parse(): ReturnType<typeof parseArgs<{ allowPositionals: true; options: typeof OPTIONS }>> {
  try {
    return parseArgs({ allowPositionals: true, options: OPTIONS })
  } catch (error) {
    return fail((error as Error).message)
  }
}

const { values, positionals } = parse()

function positive(name: string, text: string): number {
  const value = Number(text)
  return value > 0 ? value : fail(`--${name} must be a number above 0, not ${text}`)
}

function chooseSuite(name: string): Suite {
  const suite = SUITES.find((s) => s.name === name)
  return suite ?? fail(`no suite ${name}; there are: ${SUITES.map((s) => s.name).join(', ')}`)
}

function chooseCases(suite: Suite): readonly Case[] {
  if (values.smoke) return suite.cases.slice(0, 1)
  const cases = suite.cases.filter((c) => c.name.includes(values.case ?? ''))
  return cases.length > 0 ? cases : fail(`no case has ${values.case} in its name`)
}

function chooseReferences(suite: Suite, entrants: readonly Entrant[]): readonly string[] {
  if (values.against === undefined) return [...peers.map((peer) => peer.name), ...suite.references]
  return entrants.map((e) => e.name).filter((name) => name.endsWith(`@${values.against}`))
}

function parsePeer(text: string): Contender {
  const at = text.indexOf('=')
  const [file, ...args] = text.slice(at + 1).split(' ')
  if (at < 1 || !file) return fail(`--peer must be NAME=COMMAND, not ${text}`)
  return { name: text.slice(0, at), prepare: () => ({ file, args }) }
}

function enter(contenders: readonly Contender[]): Entrant[] {
  const only = values.only?.split(',')
  const unknown = only?.find((name) => !contenders.some((c) => c.name === name))
  if (unknown !== undefined) {
    fail(`no contender ${unknown}; there are: ${contenders.map((c) => c.name).join(', ')}`)
  }
  const entrants: Entrant[] = []
  for (const contender of contenders) {
    if (only && !only.includes(contender.name)) continue
    const command = contender.prepare()
    if ('skip' in command) console.log(`${contender.name}: skipped: ${command.skip}`)
    else entrants.push({ ...contender, command })
  }
  if (values.against === undefined) return entrants
  try {
    return withEarlier(entrants, values.against)
  } catch (error) {
    return fail(`--against ${values.against}: ${(error as Error).message}`)
  }
}

const suite = chooseSuite(positionals[0] ?? 'echo')
const rounds = values.smoke ? 1 : positive('rounds', values.rounds)
const time = values.smoke
  ? { seconds: 1, warmup: 0.2 }
  : { seconds: positive('seconds', values.seconds), warmup: positive('warmup', values.warmup) }
const client = chooseClient()
const cores = cpus()
const machine = `${cores.length} x ${cores[0]?.model ?? 'unknown'}, ${process.platform} ${release()}`
const date = new Date().toISOString().slice(0, 10)

console.log(`${suite.name}: ${machine}, Node ${process.version}, ${date}`)
console.log(`client: ${client.about}; medians of ${rounds} x ${time.seconds} s\n`)
if (cores.length < 2) console.log('only one core: the client takes its time from the server\n')

const peers = (values.peer ?? []).map(parsePeer)
const entrants = enter([...peers, ...suite.contenders])
const references = chooseReferences(suite, entrants)
const results: { case: string; rows: Row[] }[] = []
for (const what of chooseCases(suite)) {
  // Memory hardly varies, and a settled heap takes its time.
  const rows = await runCase(client, entrants, what, what.idle ? 1 : rounds, time)
  results.push({ case: what.name, rows })
  console.log(caseReport(references, what, rows))
}

if (values.json !== undefined) {
  const about = {
    suite: suite.name,
    machine,
    node: process.version,
    date,
    client: client.about,
    rounds,
    ...time,
  }
  writeFileSync(values.json, `${JSON.stringify({ ...about, results }, null, 2)}\n`)
}
const broken = results.some(({ rows }) => rows.some((row) => row.failure !== undefined && !row.unavailable))
process.exitCode = broken ? 1 : 0
