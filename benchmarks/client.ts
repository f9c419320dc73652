/**
 * The stand-in for c/load.c where there is no C compiler: same arguments, same closed loop, same line of
 * JSON. Node is slower than the servers it drives, so its messages/s are its own; the servers' processor time
 * per message still holds.
 */
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { Tally } from './tally.js'

const SHIFTS = 4096
const PATIENCE_MS = 10_000

const { values } = parseArgs({
  options: {
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string' },
    connections: { type: 'string', default: '1' },
    pipeline: { type: 'string', default: '1' },
    seconds: { type: 'string', default: '3' },
    warmup: { type: 'string', default: '1' },
    pid: { type: 'string', default: '0' },
    bytes: { type: 'string' },
    request: { type: 'string' },
    'reply-bytes': { type: 'string', default: '0' },
    expect: { type: 'string' },
    'counts-as': { type: 'string', default: '1' },
    hello: { type: 'string' },
    'hello-until': { type: 'string' },
    'hello-bytes': { type: 'string', default: '0' },
    join: { type: 'string' },
    'join-until': { type: 'string', default: '' },
    joins: { type: 'string', default: '1' },
    'fan-out': { type: 'boolean', default: false },
    groups: { type: 'string', default: '1' },
    idle: { type: 'boolean', default: false },
  },
})

function repeat(bytes: Buffer, times: number): Buffer {
  return Buffer.concat(Array.from({ length: times }, () => bytes))
}

/** Longer than a round by SHIFTS: each round is a window into it, so a mixed up or stale answer shows. */
function pattern(length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length + SHIFTS)
  let state = 2463534242
  for (let i = 0; i < bytes.length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[i] = state >>> 8
  }
  return bytes
}

const pipeline = Number(values.pipeline)
const echoes = values.bytes !== undefined
const out = echoes
  ? pattern(Number(values.bytes) * pipeline)
  : repeat(readFileSync(values.request ?? ''), pipeline)
const repeated = values.expect === undefined ? undefined : repeat(readFileSync(values.expect), pipeline)
const expected = echoes ? out : repeated
const outLength = echoes ? out.length - SHIFTS : out.length
const groups = Number(values.groups)
const inLength = echoes ? outLength : (repeated?.length ?? Number(values['reply-bytes']) * pipeline) / groups
const messagesPerRound = pipeline * Number(values['counts-as'])

const tally = new Tally()
let stopping = false
/** With `--fan-out`: how many have not got all of this round. */
let waiting = 0

/** One connection; it owns its socket and destroys it on the first error. */
class Peer {
  readonly #socket: Socket
  readonly #index: number
  #rounds = 0
  #shift = 0
  #got = 0
  #began = 0
  #broken = false
  #onAnswer: () => void = () => {}

  private constructor(index: number, socket: Socket) {
    this.#index = index
    this.#shift = (index % groups) * inLength
    this.#socket = socket
  }

  static async open(index: number): Promise<Peer> {
    const socket = connect({ host: values.host, port: Number(values.port), noDelay: true })
    const peer = new Peer(index, socket)
    socket.on('error', (error) => peer.fail(error.message))
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve).once('error', reject)
    })
    if (values.hello !== undefined) {
      await greet(socket, readFileSync(values.hello), values['hello-until'], Number(values['hello-bytes']))
    }
    if (values.join !== undefined) {
      const said = partOf(readFileSync(values.join), index, Number(values.joins))
      await greet(socket, said, values['join-until'], 0)
    }
    socket.on('data', (data) => peer.#take(data))
    socket.on('end', () => peer.fail('the server closed the connection'))
    return peer
  }

  get waiting(): boolean {
    return this.#began !== 0 && !this.#broken
  }

  /** One that `sends` not only waits for what another one has sent. */
  begin(now: number, sends = true): void {
    this.#rounds++
    this.#got = 0
    this.#began = now
    if (!sends) return
    if (echoes) this.#shift = (this.#index * 131 + this.#rounds * 17) % SHIFTS
    this.#socket.write(out.subarray(this.#shift, this.#shift + outLength))
  }

  /** Sends one round and resolves with its answer. */
  exchange(): Promise<void> {
    return new Promise((resolve) => {
      this.#onAnswer = resolve
      this.begin(performance.now())
    })
  }

  fail(why: string): void {
    if (this.#broken || closing) return
    this.#broken = true
    tally.failed(why)
    this.#socket.destroy()
    this.#onAnswer()
  }

  #take(data: Buffer): void {
    const end = this.#got + data.length
    const from = this.#shift + this.#got
    if (end > inLength) {
      this.fail('more bytes came back than were expected')
    } else if (expected !== undefined && data.compare(expected, from, from + data.length) !== 0) {
      this.fail('the bytes that came back are wrong')
    } else {
      this.#got = end
      if (end === inLength) this.#answered()
    }
  }

  #answered(): void {
    const now = performance.now()
    tally.answered(now - this.#began, messagesPerRound)
    this.#began = 0
    this.#onAnswer()
    if (values['fan-out']) fanOut(now)
    else if (!stopping) this.begin(now)
  }
}

let closing = false

/** Of what all of them say, in so many parts. */
function partOf(bytes: Buffer, index: number, parts: number): Buffer {
  const length = bytes.length / parts
  return bytes.subarray((index % parts) * length, ((index % parts) + 1) * length)
}

/** With `--fan-out`: when all have what the first one has sent, it sends again. */
function fanOut(now: number): void {
  if (stopping || --waiting > 0) return
  waiting = peers.length
  for (const peer of peers) peer.begin(now, peer === peers[0])
}

/** Resolves when the greeting's answer is there; nothing may follow it before the first message. */
function greet(socket: Socket, hello: Buffer, untilHex = '', length = 0): Promise<void> {
  const until = Buffer.from(untilHex, 'hex')
  let answer: Buffer = Buffer.alloc(0)
  return new Promise((resolve) => {
    const take = (data: Buffer): void => {
      answer = Buffer.concat([answer, data])
      const done = until.length > 0 ? answer.indexOf(until) >= 0 : answer.length >= length
      if (!done) return
      socket.off('data', take)
      resolve()
    }
    socket.on('data', take)
    socket.write(hello)
  })
}

async function drain(peers: readonly Peer[]): Promise<void> {
  stopping = true
  const deadline = performance.now() + PATIENCE_MS
  while (peers.some((peer) => peer.waiting) && performance.now() < deadline) await sleep(5)
  for (const peer of peers) if (peer.waiting) peer.fail('an answer never came')
}

async function measure(peers: readonly Peer[]): Promise<void> {
  if (values['fan-out']) fanOut(performance.now())
  else for (const peer of peers) peer.begin(performance.now())
  const counted = await tally.window(Number(values.warmup), Number(values.seconds), values.pid)
  await drain(peers)
  console.log(JSON.stringify({ ...counted, ...tally.failures }))
}

async function hold(peers: readonly Peer[]): Promise<void> {
  stopping = true
  for (const peer of peers) await peer.exchange()
  const { errors, firstError } = tally.failures
  if (errors > 0) throw new Error(firstError)
  console.log(JSON.stringify({ ready: peers.length }))
  for await (const _ of process.stdin);
}

const peers: Peer[] = []
for (let i = 0; i < Number(values.connections); i++) peers.push(await Peer.open(i))
await (values.idle ? hold(peers) : measure(peers))
closing = true
process.exit(0)
