// IIP balancing client: three servers, one is killed in the middle, and no request is lost.   npm run example -- iip-load-balance
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { IipBalancer } from 'ringloop/iip'
import { exampleFlags } from './flags.js'

const SERVER = fileURLToPath(new URL('iip-echo-server.js', import.meta.url))
const AT_ONCE = 50

/** A server in a process of its own, and where it listens. */
async function start(): Promise<{ child: ChildProcess; address: string }> {
  const child = spawn(process.execPath, [SERVER, '--port', '0'], { stdio: ['ignore', 'pipe', 'inherit'] })
  for await (const line of createInterface({ input: child.stdout! })) {
    const address = line.split('listening on ')[1]
    if (address !== undefined) return { child, address }
  }
  throw new Error('a server did not start')
}

const { requests } = exampleFlags({ requests: 5000 })
const servers = await Promise.all([start(), start(), start()])
const balancer = new IipBalancer({
  servers: servers.map(({ address }) => `${address}#1`).join(','),
  logger: 'error',
})

let asked = 0
let answered = 0
let lost = 0
async function ask(): Promise<void> {
  while (asked < requests) {
    const text = `request ${asked++}`
    if (asked === Math.floor(requests / 2)) servers[1]!.child.kill('SIGKILL')
    // An echo may be done twice: that is what `safe` says.
    const answer = await balancer.request('/echo', text, { safe: true }).catch(() => undefined)
    if (answer?.toString() === text) answered++
    else lost++
  }
}
await Promise.all(Array.from({ length: AT_ONCE }, ask))

for (const { address, failures } of balancer.backends) console.log(`${address}: ${failures} failures`)
console.log(`${answered} answered, ${lost} lost`)
await balancer.close()
for (const { child } of servers) child.kill()
