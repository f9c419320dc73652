/**
 * Drives an HTTP/2 server: `--connections` sessions, each with `--pipeline` streams on their way, closed loop. The C client
 * cannot: stream ids and header tables change with every request. It needs more processor time than its server, so the
 * requests/s are its own; the server's processor time per request holds.
 */
import { type ClientHttp2Session, connect } from 'node:http2'
import { parseArgs } from 'node:util'
import { Tally } from './tally.js'

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
const tally = new Tally()
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
      tally.failed((error as Error).message)
      return
    }
    tally.answered(performance.now() - began, 1)
  }
}

const sessions = Array.from({ length: Number(values.connections) }, () =>
  connect(`http://${values.host}:${values.port}`),
)
const runs = sessions.flatMap((session) =>
  Array.from({ length: Number(values.pipeline) }, () => run(session)),
)
const counted = await tally.window(Number(values.warmup), Number(values.seconds), values.pid)
stopping = true
await Promise.all(runs)
console.log(JSON.stringify({ ...counted, ...tally.failures }))
process.exit(0)
