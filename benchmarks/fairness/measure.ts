/**
 * One measurement: a server, a flood and a witness in a process each; what the witness saw. Everything that was started
 * has ended when it resolves or rejects.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ROOT } from '../harness/paths.js'
import { Program, startServer } from '../harness/processes.js'
import type { Command } from '../harness/suite.js'
import { serverCpuUs } from '../tally.js'
import type { Flood } from './floods.js'
import type { Testimony } from './witness.js'

export interface Round {
  readonly flood: Flood
  readonly poller: 'native' | 'net'
  /** Of the witness; the flood begins half a second earlier. */
  readonly seconds: number
  /** Default 1. */
  readonly loops?: number
}

export interface Figure extends Testimony {
  /** Processor time of the server to time on the clock: 1 is one core. */
  readonly serverCpu: number
}

const SWELL_MS = 500
const PATIENCE_MS = 15_000

/** The programs are the compiled ones, whoever asks. */
function program(name: string, args: readonly string[]): Command {
  return {
    file: process.execPath,
    args: [join(ROOT, 'dist', 'benchmarks', 'fairness', `${name}.js`), ...args],
  }
}

export async function measure({ flood, poller, seconds, loops = 1 }: Round): Promise<Figure> {
  const service = ['--service', flood.service]
  const { program: server, port } = await startServer(
    `${flood.service} on ${poller}`,
    program('server', [...service, '--poller', poller, '--loops', `${loops}`]),
  )
  const started = [server]
  try {
    const flooding = new Program(flood.name, program('flood', ['--flood', flood.name, '--port', port]))
    started.push(flooding)
    await flooding.line(PATIENCE_MS)
    await sleep(SWELL_MS)
    const pid = `${server.pid}`
    const before = serverCpuUs(pid)
    const began = performance.now()
    const witness = new Program(
      'the witness',
      program('witness', [...service, '--port', port, '--seconds', `${seconds}`]),
    )
    started.push(witness)
    const said = JSON.parse(await witness.line(seconds * 1000 + PATIENCE_MS)) as Testimony
    const serverCpu = (serverCpuUs(pid) - before) / 1000 / (performance.now() - began)
    return { ...said, serverCpu }
  } finally {
    await Promise.all(started.map((each) => each.stop()))
  }
}

/** A figure in one line. */
export function figureText({ requests, unanswered, errors, p50, p99, max, serverCpu }: Figure): string {
  const trouble = unanswered + errors > 0 ? `, ${unanswered} unanswered, ${errors} failed` : ''
  const ms = (value: number): string => `${value.toFixed(2)} ms`
  return `${requests} requests${trouble}, p50 ${ms(p50)}, p99 ${ms(p99)}, max ${ms(max)}, server ${Math.round(serverCpu * 100)} %`
}
