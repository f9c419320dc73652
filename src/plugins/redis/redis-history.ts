/**
 * The messages that Redis keeps of topics. Each topic has two keys: its place, a hash of epoch and offset, and its messages, a
 * list with the newest first, each with its offset in front. (A stream would do, but takes 4 KiB for the first message of each
 * topic.) All that happens to them is done by two scripts, so that publishers on many machines see one order. The server's
 * thread only.
 */
import { createHash, randomBytes } from 'node:crypto'
import { RESP_TYPES } from '@redis/client'
import type { BrokerPosition, KeptMessage, KeptMessages } from '../../index.js'
import type { RedisClient } from './redis-client.js'
import type { RedisHistoryOptions } from './redis-options.js'

/**
 * So many bytes of messages a read gives at most, and so many reads are under way: Redis cuts off a subscriber for whom more
 * than 32 MiB wait, or 8 MiB for a minute, and the answers wait with the messages.
 */
const MAX_READ_BYTES = 2 * 1024 * 1024
const MAX_READS = 4

/** Keys: place, messages. Arguments: new epoch, ms for the place. A place that is lost makes what was kept worthless. */
const PLACE = `
local epoch, offset = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'offset'))
if not epoch then
  epoch, offset = ARGV[1], '0'
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', offset)
  redis.call('UNLINK', KEYS[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
`

/** Further arguments: channel, message, how many are kept, ms for the messages. Gives the place. */
const PUBLISH = `${PLACE}
offset = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'offset', 1))
local message = offset .. ':' .. ARGV[4]
redis.call('LPUSH', KEYS[2], message)
redis.call('LTRIM', KEYS[2], 0, ARGV[5] - 1)
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call('PUBLISH', ARGV[3], epoch .. ':' .. message)
return { epoch, offset }
`

/**
 * Further arguments: the epoch and the offset after which is read (an empty epoch: nothing is), the most bytes. Gives the place
 * and the messages.
 */
const READ = `${PLACE}
local kept, left, bytes = { epoch, offset }, tonumber(offset), tonumber(ARGV[5])
if ARGV[3] == '' then return kept end
if ARGV[3] == epoch and tonumber(ARGV[4]) <= left then left = left - ARGV[4] end
for from = 0, left - 1, 16 do
  local page = redis.call('LRANGE', KEYS[2], from, math.min(from + 16, left) - 1)
  for _, message in ipairs(page) do
    bytes = bytes - #message
    if bytes < 0 then return kept end
    kept[#kept + 1] = message
  end
  if #page < 16 then break end
end
return kept
`

class Script {
  readonly text: string
  readonly hash: string

  constructor(text: string) {
    this.text = text
    this.hash = createHash('sha1').update(text).digest('hex')
  }
}

const PUBLISH_SCRIPT = new Script(PUBLISH)
const READ_SCRIPT = new Script(READ)
const AS_BYTES = { typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer } }

export interface KeptInChannel {
  readonly position: BrokerPosition
  readonly bytes: Buffer
}

export class RedisHistory {
  readonly #client: RedisClient
  readonly #prefix: string
  readonly #settings: Required<RedisHistoryOptions>
  /** With a number behind it a new epoch for each call: Redis takes it where it has none. */
  readonly #epoch: string = randomBytes(9).toString('hex')
  #calls = 0
  #reads = 0
  readonly #waiting: (() => void)[] = []

  constructor(client: RedisClient, prefix: string, settings: Required<RedisHistoryOptions>) {
    this.#client = client
    this.#prefix = prefix
    this.#settings = settings
  }

  /** Gives Redis the scripts. */
  async load(): Promise<void> {
    await Promise.all(
      [PUBLISH_SCRIPT, READ_SCRIPT].map(({ text }) => this.#client.sendCommand(['SCRIPT', 'LOAD', text])),
    )
  }

  async publish(topic: string, bytes: Buffer): Promise<BrokerPosition> {
    const { size, ttl } = this.#settings
    const args = [this.#prefix + topic, bytes, `${size}`, `${ttl}`]
    const [epoch, offset] = await this.#run(PUBLISH_SCRIPT, topic, args)
    return { epoch: String(epoch), offset: Number(offset) }
  }

  async read(topic: string, since: BrokerPosition | undefined): Promise<KeptMessages> {
    if (this.#reads === MAX_READS) await new Promise<void>((go) => this.#waiting.push(go))
    else this.#reads++
    try {
      return await this.#read(topic, since)
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#reads--
      else next()
    }
  }

  async #read(topic: string, since: BrokerPosition | undefined): Promise<KeptMessages> {
    const args = [since?.epoch ?? '', `${since?.offset ?? 0}`, `${MAX_READ_BYTES}`]
    const [epoch, offset, ...kept] = await this.#run(READ_SCRIPT, topic, args)
    const position = { epoch: String(epoch), offset: Number(offset) }
    const messages = keptMessages(kept, position.offset)
    const isWhole = position.epoch === since?.epoch && position.offset - since.offset === messages.length
    return { position, messages, recovered: since === undefined || isWhole }
  }

  /** What the script of `publish` has put into a channel. `undefined` for what somebody else has. */
  static unwrap(bytes: Buffer): KeptInChannel | undefined {
    const match = WRAP.exec(bytes.toString('latin1', 0, MAX_WRAP))
    if (match === null) return undefined
    const offset = Number(match[2])
    if (!Number.isSafeInteger(offset)) return undefined
    return { position: { epoch: match[1]!, offset }, bytes: bytes.subarray(match[0].length) }
  }

  async #run(script: Script, topic: string, args: readonly (string | Buffer)[]): Promise<Buffer[]> {
    const { positionTtl, ttl } = this.#settings
    const keys = [`${this.#prefix}place:${topic}`, `${this.#prefix}kept:${topic}`]
    const epoch = `${this.#epoch}_${(this.#calls++).toString(36)}`
    const rest = ['2', ...keys, epoch, `${ttl + positionTtl}`, ...args]
    try {
      return await this.#client.sendCommand<Buffer[]>(['EVALSHA', script.hash, ...rest], AS_BYTES)
    } catch (error) {
      if (!(error as Error).message.startsWith('NOSCRIPT')) throw error
      return await this.#client.sendCommand<Buffer[]>(['EVAL', script.text, ...rest], AS_BYTES)
    }
  }
}

const WRAP = /^([A-Za-z0-9_]{1,64}):([1-9]\d{0,15}):/
const MAX_WRAP = 64 + 16 + 2

/** In order of their offsets; what lies behind a hole is as good as lost. */
function keptMessages(kept: readonly Buffer[], newest: number): KeptMessage[] {
  const messages: KeptMessage[] = []
  for (const message of kept) {
    const start = message.indexOf(':') + 1
    const offset = Number(message.toString('latin1', 0, start - 1))
    if (offset !== newest - messages.length) break
    messages.push({ offset, bytes: message.subarray(start) })
  }
  return messages.reverse()
}
