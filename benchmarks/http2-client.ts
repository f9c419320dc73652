/**
 * Drives an HTTP/2 server: `--connections` sessions, each with `--pipeline` streams on their way, closed loop. The C client
 * cannot: stream ids and header tables change with every request. It needs more processor time than its server, so the
 * requests/s are its own; the server's processor time per request holds.
 */
import { readFileSync } from 'node:fs'
import { type ClientHttp2Session, connect } from 'node:http2'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'

/** The kernel's unit of process times in /proc, the same on every Linux that Node supports. */
const TICK_US = 10_000

const { values } = parseArgs({
  options: {
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string' },
    connections: { type: 'string', default: '1' },
    pipeline: { type: 'string', default: '1' },
    seconds: { type: 'string', default: '2' },
    warmup: { type: 'string', default: '1' },
    pid: { type: 'string', default: '0' },
    bytes: { type: 'string', default: '100' },
  },
})

const body = Buffer.alloc(Number(values.bytes), 'x')
let latencies: number[] = []
let messages = 0
let errors = 0
let firstError = ''
let stopping = false

function exchange(session: ClientHttp2Session): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':method': 'POST', ':path': '/echo' }, { endStream: false })
    let got = 0
    stream.on('data', (chunk: Buffer) => {
      got += chunk.length
    })
    stream.on('error', reject)
    stream.on('end', () => (got === body.length ? resolve() : reject(new Error(`${got} bytes came back`))))
    stream.end(body)
  })
}

async function run(session: ClientHttp2Session): Promise<void> {
  while (!stopping) {
    const began = performance.now()
    try {
      await exchange(session)
    } catch (error) {
      errors++
      firstError ||= (error as Error).message
      return
    }
    latencies.push(performance.now() - began)
    messages++
  }
}

function serverCpuUs(): number {
  if (values.pid === '0') return 0
  const text = readFileSync(`/proc/${values.pid}/stat`, 'utf8')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * TICK_US
}

function machineCpuUs(): number {
  if (values.pid === '0') return 0
  const [, ...times] = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0]!.split(/\s+/)
  const [user, nice, system, , , irq, softirq, steal] = times.map(Number)
  return (user! + nice! + system! + irq! + softirq! + steal!) * TICK_US
}

const sessions = Array.from({ length: Number(values.connections) }, () =>
  connect(`http://${values.host}:${values.port}`),
)
const runs = sessions.flatMap((session) =>
  Array.from({ length: Number(values.pipeline) }, () => run(session)),
)
await sleep(Number(values.warmup) * 1000)
latencies = []
messages = 0
const [machine, server, own, began] = [machineCpuUs(), serverCpuUs(), process.cpuUsage(), performance.now()]
await sleep(Number(values.seconds) * 1000)
const seconds = (performance.now() - began) / 1000
const spent = process.cpuUsage(own)
const used = { serverCpuUs: serverCpuUs() - server, machineCpuUs: machineCpuUs() - machine }
const counted = messages
latencies.sort((a, b) => a - b)
const percentileUs = (share: number): number =>
  Math.round((latencies[Math.floor(latencies.length * share)] ?? 0) * 1e4) / 10
const times = { p50us: percentileUs(0.5), p99us: percentileUs(0.99), p999us: percentileUs(0.999) }
stopping = true
await Promise.all(runs)
const rate = {
  messages: counted,
  seconds,
  msgPerSec: counted / seconds,
  clientCpuUs: spent.user + spent.system,
}
console.log(JSON.stringify({ ...rate, ...times, ...used, errors, firstError }))
process.exit(0)
