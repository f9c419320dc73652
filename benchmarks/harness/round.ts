/**
 * Rounds: in each, every contender is started afresh, driven and stopped, one after another. The order turns
 * round from round to round, so that a machine that slows down or speeds up favours nobody.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { holdIdle, type LoadClient, type LoadResult, type LoadTime, runLoad } from './load-client.js'
import { type Listening, startServer, Unavailable } from './processes.js'
import type { Case, Command, Contender } from './suite.js'

/** Connections that are held while memory is first read: code is compiled by then and caches are filled. */
const IDLE_WARMUP = 1_000
const SETTLE_MS = 15_000
/** For a server without garbage to collect: the kernel finishes what is under way. */
const CALM_MS = 200

export interface IdleResult {
  readonly connections: number
  readonly bytesPerConnection: number
}

export type RoundResult = LoadResult | IdleResult

export interface Entrant extends Pick<Contender, 'name' | 'variant' | 'client'> {
  readonly command: Command
}

/** What one contender did in one case. */
export interface Row {
  readonly name: string
  readonly rounds: RoundResult[]
  /** Why there are fewer rounds than asked for. */
  failure?: string
  /** The failure is only that it cannot run on this machine. */
  unavailable?: boolean
}

/** Resident memory that is the process's own; pages of its program file say nothing about connections. */
function ownMemory(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const kilobytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0)
  return (kilobytes('RssAnon') + kilobytes('RssShmem')) * 1024
}

async function settledMemory(server: Listening, command: Command): Promise<number> {
  if (command.settles) {
    server.program.signal('SIGUSR2')
    const line = await server.program.line(SETTLE_MS)
    if (line !== 'settled') throw new Error(`${server.program.name} said ${line} instead of settled`)
  } else {
    await sleep(CALM_MS)
  }
  return ownMemory(server.program.pid)
}

async function measureIdle(
  client: LoadClient,
  server: Listening,
  command: Command,
  what: Case,
): Promise<IdleResult> {
  const first = await holdIdle(client, server, what, IDLE_WARMUP)
  try {
    const before = await settledMemory(server, command)
    const rest = await holdIdle(client, server, what, what.connections)
    try {
      const after = await settledMemory(server, command)
      return { connections: what.connections, bytesPerConnection: (after - before) / what.connections }
    } finally {
      await rest.stop()
    }
  } finally {
    await first.stop()
  }
}

async function runOne(
  client: LoadClient,
  entrant: Entrant,
  what: Case,
  time: LoadTime,
): Promise<RoundResult> {
  const server = await startServer(entrant.name, entrant.command)
  try {
    const own = entrant.variant?.(what) ?? what
    const driver = entrant.client === undefined ? client : { ...client, command: entrant.client }
    if (own.idle) return await measureIdle(driver, server, entrant.command, own)
    const result = await runLoad(driver, server, own, time)
    if (result.errors > 0) throw new Error(`${result.errors} errors, the first: ${result.firstError}`)
    if (result.messages === 0) throw new Error('not one message came back')
    return result
  } finally {
    await server.program.stop()
  }
}

/** Runs all rounds of one case. A contender that fails gets no further round; the others go on. */
export async function runCase(
  client: LoadClient,
  entrants: readonly Entrant[],
  what: Case,
  rounds: number,
  time: LoadTime,
): Promise<Row[]> {
  const rows: Row[] = entrants.map(({ name }) => ({ name, rounds: [] }))
  for (let round = 0; round < rounds; round++) {
    const order = entrants.map((_, i) => (round % 2 === 0 ? i : entrants.length - 1 - i))
    for (const i of order) {
      const row = rows[i]!
      if (row.failure !== undefined) continue
      try {
        row.rounds.push(await runOne(client, entrants[i]!, what, time))
      } catch (error) {
        row.failure = (error as Error).message
        row.unavailable = error instanceof Unavailable
      }
    }
  }
  return rows
}
