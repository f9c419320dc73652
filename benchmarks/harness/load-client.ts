/** The client process: the C load generator or its Node stand-in; both take and print the same. */
import { createHash } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { compileC } from './compile.js'
import { CACHE, script } from './paths.js'
import { type Listening, Program } from './processes.js'
import type { Case, Command, Exchange, Hello, Join } from './suite.js'

/** Longer than the client's own patience, so that its message is the one that is seen. */
const PATIENCE_MS = 30_000

/** What the client prints; latencies are of a round, that is of `pipeline` messages sent together. */
export interface LoadResult {
  readonly messages: number
  readonly seconds: number
  readonly msgPerSec: number
  readonly p50us: number
  readonly p99us: number
  readonly p999us: number
  readonly clientCpuUs: number
  readonly serverCpuUs: number
  /** Of all processes of the machine together, in the same window. */
  readonly machineCpuUs: number
  readonly errors: number
  readonly firstError: string
}

export interface LoadClient {
  readonly command: Command
  /** One line for the reader; says so when it is the slow stand-in. */
  readonly about: string
}

/** The C client where there is a compiler, else the one in Node. */
export function chooseClient(): LoadClient {
  const compiled = compileC('load')
  if (!('skip' in compiled)) return { command: compiled, about: 'C, one thread, epoll' }
  return {
    command: { file: process.execPath, args: [script('client')] },
    about: `Node (${compiled.skip}): slower than the servers, so trust CPU per message only`,
  }
}

/** Named by its content, so that two runs at a time do not overwrite each other's. */
function cacheFile(bytes: Uint8Array): string {
  mkdirSync(CACHE, { recursive: true })
  const file = join(CACHE, `${createHash('sha256').update(bytes).digest('hex').slice(0, 16)}.bin`)
  writeFileSync(file, bytes)
  return file
}

function exchangeArgs(exchange: Exchange): string[] {
  if ('bytes' in exchange) return ['--bytes', String(exchange.bytes)]
  const args = ['--request', cacheFile(exchange.request)]
  args.push('--counts-as', String(exchange.countsAs ?? 1))
  if ('expect' in exchange) args.push('--expect', cacheFile(exchange.expect))
  else args.push('--reply-bytes', String(exchange.replyBytes))
  return args
}

function helloArgs(hello: Hello | undefined): string[] {
  if (hello === undefined) return []
  const args = ['--hello', cacheFile(hello.send)]
  if ('until' in hello) args.push('--hello-until', Buffer.from(hello.until).toString('hex'))
  else args.push('--hello-bytes', String(hello.replyBytes))
  return args
}

function joinArgs(join: Join | undefined): string[] {
  if (join === undefined) return []
  const args = ['--join', cacheFile(join.send), '--join-until', Buffer.from(join.until).toString('hex')]
  return join.parts === undefined ? args : [...args, '--joins', String(join.parts)]
}

function startClient(client: LoadClient, server: Listening, what: Case, more: string[]): Program {
  const args = [
    ...client.command.args,
    ...['--host', server.host, '--port', server.port],
    ...(process.platform === 'linux' ? ['--pid', String(server.program.pid)] : []),
    ...['--pipeline', String(what.pipeline ?? 1)],
    ...exchangeArgs(what.exchange),
    ...helloArgs(what.hello),
    ...joinArgs(what.join),
    ...(what.fanOut === true ? ['--fan-out'] : []),
    ...(what.groups === undefined ? [] : ['--groups', String(what.groups)]),
    ...more,
  ]
  return new Program('the client', { file: client.command.file, args })
}

export interface LoadTime {
  readonly seconds: number
  readonly warmup: number
}

/** Drives one server through one case and resolves with what was counted in the window after the warm-up. */
export async function runLoad(
  client: LoadClient,
  server: Listening,
  what: Case,
  time: LoadTime,
): Promise<LoadResult> {
  const program = startClient(client, server, what, [
    ...['--connections', String(what.connections)],
    ...['--seconds', String(time.seconds), '--warmup', String(time.warmup)],
  ])
  try {
    return JSON.parse(await program.line((time.seconds + time.warmup) * 1000 + PATIENCE_MS)) as LoadResult
  } finally {
    await program.stop()
  }
}

/** Opens `count` connections that each exchange one message and then rest; they are held until `stop()`. */
export async function holdIdle(
  client: LoadClient,
  server: Listening,
  what: Case,
  count: number,
): Promise<Program> {
  const program = startClient(client, server, what, ['--connections', String(count), '--idle'])
  try {
    const { ready } = JSON.parse(await program.line(PATIENCE_MS)) as { ready: number }
    if (ready !== count) throw new Error(`the client holds ${ready} of ${count} connections`)
    return program
  } catch (error) {
    await program.stop()
    throw error
  }
}
