/**
 * What all examples share: their flags, and the one line that says where they listen. Only for the main thread: a loop's
 * thread gets what it needs as `loop.data`.
 */
import { readFileSync } from 'node:fs'
import { type ParseArgsConfig, parseArgs } from 'node:util'
import { type Broker, type PollerOption, RingloopError, type ServerTlsOptions } from 'ringloop'

const BAD_FLAGS = 2
const FAILED = 1
const DRAIN_MS = 5_000
const MAX_PORT = 65_535
const POLLERS: readonly string[] = ['auto', 'native', 'net']

type Value = string | number | boolean

/** The flags that every example takes, and their defaults. */
const COMMON = { port: 1833, host: '127.0.0.1', loops: 1, poller: 'auto', cert: '', key: '' }

/** What an example that can run in several processes adds, for {@link brokerOf}. */
export const BROKER_FLAGS = { redis: '', nats: '' }

type Widened<T> = T extends number ? number : T extends boolean ? boolean : string

/** What was given on the command line, with the example's own flags beside the common ones. */
export type ExampleFlags<Own = unknown> = Omit<typeof COMMON, keyof Own> & {
  [K in keyof Own]: Widened<Own[K]>
} & {
  /** The common flags as the options of a server for a module. */
  readonly options: OneLoop & { readonly numLoops: number }
  /** The same for a handler object; with `--loops` above 1 that ends the process with one sentence and code 2. */
  oneLoop(): OneLoop
}

interface OneLoop {
  readonly address: { readonly host: string; readonly port: number }
  readonly poller: PollerOption
  /** With `--cert FILE --key FILE`. */
  readonly tls?: ServerTlsOptions
}

/**
 * Reads the command line. `own` adds flags and changes defaults: `exampleFlags({ max: 100, client: false })` adds
 * `--max N` and `--client`; a flag takes what its default is. A bad flag ends the process with one sentence and code 2.
 */
export function exampleFlags<Own extends Record<string, Value>>(own?: Own): ExampleFlags<Own> {
  const defaults: Record<string, Value> = { ...COMMON, ...own }
  try {
    const flags = readFlags(defaults)
    check(flags)
    const { host, port, loops, poller } = flags as typeof COMMON
    const one: OneLoop = { address: { host, port }, poller: poller as PollerOption, ...tlsOf(flags) }
    const oneLoop = (): OneLoop =>
      loops === 1 ? one : exit(BAD_FLAGS, `this example has one loop: --loops must be 1, not ${loops}`)
    return { ...flags, options: { ...one, numLoops: loops }, oneLoop } as unknown as ExampleFlags<Own>
  } catch (error) {
    return exit(BAD_FLAGS, `${(error as Error).message} (flags: ${usage(defaults)})`)
  }
}

function readFlags(defaults: Record<string, Value>): Record<string, Value> {
  const options: NonNullable<ParseArgsConfig['options']> = {}
  for (const [name, value] of Object.entries(defaults)) {
    options[name] = { type: typeof value === 'boolean' ? 'boolean' : 'string' }
  }
  const { values } = parseArgs({ options })
  const flags = { ...defaults }
  for (const [name, value] of Object.entries(values)) {
    flags[name] = typeof defaults[name] === 'number' ? integerOf(name, value as string) : (value as Value)
  }
  return flags
}

function integerOf(name: string, text: string): number {
  if (!/^\d+$/.test(text)) throw new Error(`--${name} must be an integer, not '${text}'`)
  return Number(text)
}

function check({ port, loops, poller }: Record<string, Value>): void {
  if ((port as number) > MAX_PORT) throw new Error(`--port must be at most ${MAX_PORT}, not ${port}`)
  if ((loops as number) < 1) throw new Error('--loops must be 1 or more')
  if (!POLLERS.includes(poller as string)) {
    throw new Error(`--poller must be one of ${POLLERS.join(', ')}, not '${poller}'`)
  }
}

function tlsOf({ cert, key }: Record<string, Value>): { readonly tls?: ServerTlsOptions } {
  if (cert === '' && key === '') return {}
  if (cert === '' || key === '') throw new Error('--cert and --key are given together')
  return { tls: { cert: readFileSync(cert as string, 'utf8'), key: readFileSync(key as string, 'utf8') } }
}

function usage(defaults: Record<string, Value>): string {
  const show = ([name, value]: [string, Value]): string =>
    typeof value === 'boolean' ? `--${name}` : `--${name} ${value === '' ? '…' : value}`
  return Object.entries(defaults).map(show).join(' ')
}

/**
 * The broker that `--redis URL` or `--nats URL` asks for; none without them. Only what is asked for is imported, since each
 * needs a package of its own. One that cannot be made ends the process with one sentence and code 2.
 */
export async function brokerOf({ redis, nats }: typeof BROKER_FLAGS): Promise<Broker | undefined> {
  if (redis !== '' && nats !== '') exit(BAD_FLAGS, 'take one of --redis and --nats')
  try {
    if (redis !== '') return new (await import('ringloop/redis')).RedisBroker({ url: redis })
    if (nats !== '') return new (await import('ringloop/nats')).NatsBroker({ servers: nats })
    return undefined
  } catch (error) {
    return exit(BAD_FLAGS, (error as Error).message)
  }
}

/** As much of a server as {@link serve} needs. */
interface Startable {
  readonly address: { toString(): string }
  start(): Promise<void>
  stop(options: { readonly drain: number }): Promise<void>
}

/**
 * Starts the server and says where it listens. SIGTERM or SIGINT lets open connections finish what they have, for 5
 * seconds at most, and ends the process with code 0; a server that does not start ends it with one sentence and code 1.
 */
export async function serve(server: Startable): Promise<void> {
  const end = (): void => void server.stop({ drain: DRAIN_MS }).then(() => process.exit(0))
  process.once('SIGTERM', end)
  process.once('SIGINT', end)
  await orExit(server.start())
  console.log(`listening on ${server.address}`)
}

/** Ends the process with one sentence and code 1 when it fails for a reason that is not a bug. */
export async function orExit<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    if (error instanceof RingloopError) exit(FAILED, error.message)
    throw error
  }
}

function exit(code: number, sentence: string): never {
  console.error(sentence)
  process.exit(code)
}
