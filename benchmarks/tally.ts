/** What a client in Node counts, and the processor times of a server and of the machine meanwhile (Linux only). */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { LoadResult } from './harness/load-client.js'

/** The kernel's unit of process times in /proc, the same on every Linux that Node supports. */
const TICK_US = 10_000

type Failures = Pick<LoadResult, 'errors' | 'firstError'>

export class Tally {
  #latencies: number[] = []
  #messages = 0
  #errors = 0
  #firstError = ''

  /** An answer for so many messages has come, `ms` after they were sent. */
  answered(ms: number, messages: number): void {
    this.#latencies.push(ms)
    this.#messages += messages
  }

  failed(why: string): void {
    this.#errors++
    this.#firstError ||= why
  }

  /** Since the beginning, the warm-up included. */
  get failures(): Failures {
    return { errors: this.#errors, firstError: this.#firstError }
  }

  /** Resolves with what was counted in `seconds` after the warm-up. `pid` is the server's; of '0' nothing is read. */
  async window(warmup: number, seconds: number, pid: string): Promise<Omit<LoadResult, keyof Failures>> {
    await sleep(warmup * 1000)
    this.#latencies = []
    this.#messages = 0
    const machine = machineCpuUs(pid)
    const server = serverCpuUs(pid)
    const own = process.cpuUsage()
    const began = performance.now()
    await sleep(seconds * 1000)
    const took = (performance.now() - began) / 1000
    const spent = process.cpuUsage(own)
    const used = { serverCpuUs: serverCpuUs(pid) - server, machineCpuUs: machineCpuUs(pid) - machine }
    const messages = this.#messages
    this.#latencies.sort((a, b) => a - b)
    return {
      messages,
      seconds: took,
      msgPerSec: messages / took,
      p50us: this.#percentileUs(0.5),
      p99us: this.#percentileUs(0.99),
      p999us: this.#percentileUs(0.999),
      clientCpuUs: spent.user + spent.system,
      ...used,
    }
  }

  #percentileUs(share: number): number {
    return Math.round((this.#latencies[Math.floor(this.#latencies.length * share)] ?? 0) * 1e4) / 10
  }
}

/** Processor time that a process has had; 0 of the pid '0'. */
export function serverCpuUs(pid: string): number {
  if (pid === '0') return 0
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * TICK_US
}

/** Of all processes together; the kernel's idle and waiting times are the fourth and fifth figure. */
function machineCpuUs(pid: string): number {
  if (pid === '0') return 0
  const [, ...times] = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0]!.split(/\s+/)
  const [user, nice, system, , , irq, softirq, steal] = times.map(Number)
  return (user! + nice! + system! + irq! + softirq! + steal!) * TICK_US
}
