/** Turns rounds into medians and medians into aligned text. */
import type { LoadResult } from './load-client.js'
import type { IdleResult, Row } from './round.js'
import type { Case } from './suite.js'

/** Share of one core from which a process counts as busy. */
const BUSY = 90
/** Share of one core that other processes may take before a row says so. */
const DISTURBED = 15

/** The medians of a contender's rounds. */
interface Summary {
  readonly name: string
  readonly msgPerSec: number
  readonly p50us: number
  readonly p99us: number
  readonly cpuPerMessage: number
  /** Messages per second of each round, and processor time per message of each round. */
  readonly rates: readonly number[]
  readonly costs: readonly number[]
  readonly serverPercent: number
  readonly clientPercent: number
  /** What other processes took meanwhile, in the worst round. */
  readonly othersPercent: number
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2
}

function othersPercent(r: LoadResult): number {
  return Math.max(0, (r.machineCpuUs - r.serverCpuUs - r.clientCpuUs) / r.seconds / 1e4)
}

function summarize(name: string, rounds: readonly LoadResult[]): Summary {
  const of = (pick: (r: LoadResult) => number): number => median(rounds.map(pick))
  const costs = rounds.map((r) => r.serverCpuUs / r.messages)
  return {
    name,
    msgPerSec: of((r) => r.msgPerSec),
    p50us: of((r) => r.p50us),
    p99us: of((r) => r.p99us),
    cpuPerMessage: median(costs),
    rates: rounds.map((r) => r.msgPerSec),
    costs,
    serverPercent: of((r) => r.serverCpuUs / r.seconds / 1e4),
    clientPercent: of((r) => r.clientCpuUs / r.seconds / 1e4),
    othersPercent: Math.max(...rounds.map(othersPercent)),
  }
}

function bottleneck(s: Summary): string {
  if (s.serverPercent >= BUSY) return ''
  if (s.clientPercent > BUSY) return 'the client was the bottleneck, not the server'
  return 'the server was not the bottleneck'
}

function notes(s: Summary): string {
  const disturbed =
    s.othersPercent > DISTURBED ? `disturbed by other processes (${s.othersPercent.toFixed(0)} %)` : ''
  return [bottleneck(s), disturbed].filter(Boolean).join('; ')
}

function aligned(lines: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const line of lines) {
    line.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length)
    })
  }
  const pad = (cell: string, i: number): string => {
    const last = i === widths.length - 1
    if (i === 0 || last) return last ? cell : cell.padEnd(widths[i]!)
    return cell.padStart(widths[i]!)
  }
  return lines.map((line) => `  ${line.map(pad).join('  ').trimEnd()}`).join('\n')
}

/**
 * The median of the ratios within each round: contenders of one round ran within seconds of each other, so a
 * machine that changes its speed between rounds does not blur it.
 */
function ratio(own: readonly number[], reference: readonly number[] | undefined): string {
  const pairs = own.flatMap((value, i) => (reference?.[i] === undefined ? [] : [value / reference[i]]))
  return pairs.length === 0 ? '-' : `${median(pairs).toFixed(2)}x`
}

function decimals(value: number): string {
  return value.toFixed(value < 10 ? 2 : 1)
}

function failures(rows: readonly Row[]): string[] {
  const failed = rows.filter((row) => row.failure !== undefined)
  return failed.map((row) => `  ${row.name}: ${row.unavailable ? 'skipped' : 'FAILED'}: ${row.failure}`)
}

function loadTable(references: readonly string[], rows: readonly Row[]): string {
  const summaries = rows
    .filter((row) => row.rounds.length > 0)
    .map((row) => summarize(row.name, row.rounds as LoadResult[]))
  const bars = references.map((name) => summaries.find((s) => s.name === name))
  const versus = references.map((name) => `/${name}`)
  const head = ['', 'msg/s', ...versus, 'p50 us', 'p99 us', 'CPU us/msg', ...versus, 'lowest', 'highest']
  const lines = [[...head, 'server %', 'client %', '']]
  for (const s of summaries) {
    lines.push([
      s.name,
      Math.round(s.msgPerSec).toLocaleString('en-US'),
      ...bars.map((r) => ratio(s.rates, r?.rates)),
      decimals(s.p50us),
      decimals(s.p99us),
      decimals(s.cpuPerMessage),
      ...bars.map((r) => ratio(s.costs, r?.costs)),
      decimals(Math.min(...s.costs)),
      decimals(Math.max(...s.costs)),
      s.serverPercent.toFixed(0),
      s.clientPercent.toFixed(0),
      notes(s),
    ])
  }
  return aligned(lines)
}

function idleTable(rows: readonly Row[]): string {
  const lines = [['', 'bytes/connection', 'lowest', 'highest', '']]
  for (const row of rows) {
    if (row.rounds.length === 0) continue
    const bytes = (row.rounds as IdleResult[]).map((r) => r.bytesPerConnection)
    const cells = [median(bytes), Math.min(...bytes), Math.max(...bytes)].map((b) => b.toFixed(0))
    lines.push([row.name, ...cells, ''])
  }
  return aligned(lines)
}

/** The text of one case, ready to print; `references` name the rows that the ratios refer to. */
export function caseReport(references: readonly string[], what: Case, rows: readonly Row[]): string {
  const table = what.idle ? idleTable(rows) : loadTable(references, rows)
  return [what.name, table, ...failures(rows), ''].join('\n')
}
