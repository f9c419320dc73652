/**
 * The client whose answers are measured: one request at a time, a fresh connection each second (connecting counts into
 * the time of its first answer). Prints one line of JSON when the time is over.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { Service } from './floods.js'

/** What the witness prints; times in ms. A request that is unanswered in the end counts with its age. */
export interface Testimony {
  readonly requests: number
  readonly unanswered: number
  readonly connections: number
  readonly errors: number
  readonly p50: number
  readonly p99: number
  readonly max: number
}

interface Step {
  readonly send: Buffer
  answered(received: Buffer): boolean
}

const PAUSE_MS = 1
const FRESH_MS = 1000
/** How long the last request may take before it counts as unanswered. */
const GRACE_MS = 1000

function ends(send: string | Buffer, end: string): Step {
  return { send: Buffer.from(send), answered: (received) => received.toString('latin1').endsWith(end) }
}

const UPGRADE = [
  'GET / HTTP/1.1',
  'Host: witness',
  'Upgrade: websocket',
  'Connection: Upgrade',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  'Sec-WebSocket-Version: 13',
]

/** A text frame 'witness', masked with zeros. */
const FRAME: Buffer = Buffer.concat([Buffer.from([0x81, 0x87, 0, 0, 0, 0]), Buffer.from('witness')])

const ASKS: Readonly<Record<Service, { readonly hello?: Step; readonly ask: Step }>> = {
  lines: { ask: ends('witness\n', 'witness\n') },
  bytes: { ask: ends('witness\n', 'witness\n') },
  http: { ask: ends('GET / HTTP/1.1\r\nHost: witness\r\n\r\n', '\r\n\r\nwitness') },
  websocket: { hello: ends(`${UPGRADE.join('\r\n')}\r\n\r\n`, '\r\n\r\n'), ask: ends(FRAME, 'witness') },
}

const { values } = parseArgs({
  options: {
    service: { type: 'string', default: 'lines' },
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string' },
    seconds: { type: 'string', default: '3' },
  },
})
const { hello, ask } = ASKS[values.service as Service]
const times: number[] = []
let connections = 0
let errors = 0
let began = 0
let socket: Socket | undefined

function take(from: Socket, step: Step): Promise<void> {
  return new Promise((resolve, reject) => {
    let received: Buffer = Buffer.alloc(0)
    const settle = (error?: Error): void => {
      from.removeAllListeners('data').removeAllListeners('error').removeAllListeners('close')
      from.on('error', () => {})
      if (error === undefined) resolve()
      else reject(error)
    }
    from.on('data', (data: Buffer) => {
      received = Buffer.concat([received, data])
      if (step.answered(received)) settle()
    })
    from.on('error', settle)
    from.on('close', () => settle(new Error('closed by the server')))
    from.write(step.send)
  })
}

async function request(fresh: boolean): Promise<void> {
  if (fresh || socket === undefined) {
    socket?.destroy()
    socket = connect({ host: values.host, port: Number(values.port), noDelay: true })
    connections++
    await once(socket, 'connect')
    if (hello !== undefined) await take(socket, hello)
  }
  await take(socket, ask)
}

async function watch(until: number): Promise<void> {
  let connectedAt = Number.NEGATIVE_INFINITY
  while (performance.now() < until) {
    began = performance.now()
    const fresh = began - connectedAt > FRESH_MS
    if (fresh) connectedAt = began
    try {
      await request(fresh)
      times.push(performance.now() - began)
    } catch {
      errors++
      socket?.destroy()
      socket = undefined
    }
    began = 0
    await sleep(PAUSE_MS)
  }
}

process.stdin.on('end', () => process.exit(0)).resume()
const ms = Number(values.seconds) * 1000
await Promise.race([watch(performance.now() + ms), sleep(ms + GRACE_MS)])
const requests = times.length
const unanswered = began === 0 ? 0 : 1
if (unanswered > 0) times.push(performance.now() - began)
times.sort((a, b) => a - b)
const at = (share: number): number => times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0
const said: Testimony = {
  requests,
  unanswered,
  connections,
  errors,
  p50: at(0.5),
  p99: at(0.99),
  max: at(1),
}
console.log(JSON.stringify(said))
process.exit(0)
