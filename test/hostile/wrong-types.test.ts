/**
 * A value of the wrong type at every place where bytes are wanted ends that connection alone, with a reason that names
 * what came: nothing spins, nobody else is hurt, and the counters are numbers still.
 */
import { afterEach, describe, expect, it } from 'vitest'
import { HostedServer, notNumbers, SHAPES, type Total } from '../support/hosted-server.js'
import { frames } from '../support/length-protocol.js'
import { connectRaw, type RawClient } from '../support/raw-client.js'
import { until, within } from '../support/wait.js'

type Shape = (typeof SHAPES)[number]

/** What is wrong wherever bytes are wanted, and a word for it that the reason must have. */
const WRONG: Readonly<Record<string, RegExp>> = {
  number: /number/,
  zero: /number/,
  NaN: /number|NaN/,
  true: /boolean/,
  false: /boolean/,
  bigint: /bigint/,
  symbol: /symbol/,
  function: /function/,
  null: /null/,
  object: /object/i,
  'null prototype': /object/i,
  Date: /Date|object/,
  Map: /Map|object/,
  'array-like': /object/i,
  'array of numbers': /number|array/i,
  'array with null': /null|array/i,
  'array with a string': /string|array/i,
  'array with a hole': /undefined|array/i,
  'nested array': /array/i,
  ArrayBuffer: /ArrayBuffer/,
  SharedArrayBuffer: /SharedArrayBuffer/,
  DataView: /DataView|object/,
  Uint16Array: /Uint16Array|object/,
  Float64Array: /Float64Array|object/,
  'boxed string': /String|object/,
  unprintable: /./,
  'revoked proxy': /./,
}
/** Also wrong where the bytes are to be as the wire wants them. */
const RAW: Readonly<Record<string, RegExp>> = { ...WRONG, undefined: /undefined/, string: /string/ }
const LENGTHS: Readonly<Record<string, RegExp>> = {
  undefined: /undefined/,
  NaN: /NaN|number/,
  '1.5': /1\.5|number|integer/,
  '-2': /-2|number|integer/,
  Infinity: /Infinity|number|integer/,
  'too much': /\d/,
  digits: /string/,
  null: /null/,
  true: /boolean/,
  bigint: /bigint/,
  object: /object/i,
  unprintable: /./,
}

const ENDS: Readonly<Record<string, typeof WRONG>> = {
  answer: WRONG,
  promise: WRONG,
  send: WRONG,
  end: WRONG,
  sendRaw: RAW,
  packet: RAW,
  'packet-later': RAW,
  'send-packet': WRONG,
  packetInto: LENGTHS,
}

const PATIENCE_MS = 2000
/** So many servers that were hurt are enough for one test. */
const ENOUGH = 4

const plain = (text: string): Uint8Array => Buffer.from(`${text}\n`)
const framed = (text: string): Uint8Array => frames(text)

/** A server, one bystander on each of its loops, and one attacker after the other. */
class Scene {
  readonly #shape: Shape
  readonly #protocol: string
  readonly #encode: (text: string) => Uint8Array
  readonly #clients: RawClient[] = []
  #server: HostedServer | undefined
  #before: Total | undefined

  constructor(shape: Shape, protocol: string, encode = plain) {
    this.#shape = shape
    this.#protocol = protocol
    this.#encode = encode
  }

  async #begin(): Promise<HostedServer> {
    const { poller, loops } = this.#shape
    const options = { data: { protocol: this.#protocol }, logger: false }
    const server = await HostedServer.start('wrong-types.mjs', { poller, loops, options })
    this.#server = server
    for (let i = 0; i < Math.max(1, loops); i++) this.#clients.push(await connectRaw(server))
    this.#before = await server.total()
    return server
  }

  end(): void {
    for (const client of this.#clients.splice(0)) client.destroy()
    this.#server?.kill()
    this.#server = undefined
  }

  async #bystanders(): Promise<void> {
    const hello = this.#encode('hello')
    for (const client of this.#clients) {
      const answer = await within('a bystander’s answer', client.echo(hello), PATIENCE_MS)
      expect(answer.equals(hello), 'the bystander’s own answer').toBe(true)
    }
  }

  /** What is wrong about what happened, or nothing. A server that is hurt is replaced. */
  async #trouble(name: string, happened: (server: HostedServer) => Promise<void>): Promise<string[]> {
    const server = this.#server ?? (await this.#begin())
    try {
      await happened(server)
      await this.#bystanders()
      const total = await server.ask<{ total: Total }>('stats', undefined, PATIENCE_MS)
      expect(notNumbers(total.total), 'counters').toEqual([])
      expect(total.total).toMatchObject({ writeBufferBytes: 0, activeMs: 0, idleMs: 0, restarts: 0 })
      expect(server.child.exited, server.child.stderr).toBe(false)
      return []
    } catch (error) {
      this.end()
      return [`${name}: ${(error as Error).message.split('\n', 1)[0]}`]
    }
  }

  /** Asks with a connection of its own; resolves when it is over, or has told what it caught. */
  async #attack(
    server: HostedServer,
    line: string,
    word: string,
  ): Promise<{ told: unknown; client: RawClient }> {
    const before = server.events(word).length
    const client = await connectRaw(server)
    try {
      client.write(this.#encode(line))
      const told = (await server.told(word, before + 1, PATIENCE_MS))[before]
      return { told, client }
    } catch (error) {
      client.destroy()
      throw error
    }
  }

  closes(way: string, value: string, says: RegExp): Promise<string[]> {
    return this.#trouble(value, async (server) => {
      const { told, client } = await this.#attack(server, `${way} ${value}`, 'closed')
      const reason = told as { code: string; message: string; error?: string }
      await client.whenEnded()
      client.destroy()
      expect(reason.code).toBe('handler-error')
      expect(`${reason.message} ${reason.error}`, 'the reason').toMatch(says)
      await until(
        'only the bystanders are left',
        async () => (await server.total()).connections === this.#clients.length,
        PATIENCE_MS,
      )
      const total = await server.total()
      const ended = total.closed['handler-error']! - (this.#before?.closed['handler-error'] ?? 0)
      expect(ended, 'counted as handler-error').toBe(server.events('closed').length)
      expect(total.handlerErrors, 'handler errors').toBeGreaterThanOrEqual(ended)
    })
  }

  throws(way: string, value: string, says: RegExp): Promise<string[]> {
    return this.#trouble(value, async (server) => {
      const { told, client } = await this.#attack(server, `${way} ${value}`, 'caught')
      expect((told as { message?: string }).message ?? 'nothing was thrown').toMatch(says)
      const hello = this.#encode('hello')
      expect((await within('an answer', client.echo(hello), PATIENCE_MS)).length).toBe(hello.length)
      expect(server.events('closed'), 'it is open still').toEqual([])
      this.#clients.push(client)
    })
  }

  /** However it ends: nobody else may be hurt. */
  hurtsNobody(way: string, value: string): Promise<string[]> {
    return this.#trouble(value, async (server) => {
      const client = await connectRaw(server)
      client.write(this.#encode(`${way} ${value}`))
      await this.#bystanders()
      client.destroy()
      await until(
        'it is gone',
        async () => (await server.total()).connections === this.#clients.length,
        PATIENCE_MS,
      )
    })
  }
}

let scene: Scene | undefined

afterEach(() => scene?.end())

describe.each(SHAPES)('$name', (shape) => {
  for (const [way, values] of Object.entries(ENDS)) {
    it(`what is wrong ends that connection alone: ${way}`, { timeout: 180_000 }, async () => {
      scene = new Scene(shape, 'obedient')
      const troubles: string[] = []
      for (const [value, says] of Object.entries(values)) {
        if (troubles.length >= ENOUGH) break
        troubles.push(...(await scene.closes(way, value, says)))
      }
      expect(troubles).toEqual([])
    })
  }

  for (const way of ['send-caught', 'sendRaw-caught']) {
    it(`what is wrong is thrown to the caller, who may go on: ${way}`, { timeout: 180_000 }, async () => {
      scene = new Scene(shape, 'obedient')
      const troubles: string[] = []
      for (const [value, says] of Object.entries(way === 'send-caught' ? WRONG : RAW)) {
        if (value === 'unprintable' || troubles.length >= ENOUGH) continue
        troubles.push(...(await scene.throws(way, value, says)))
      }
      expect(troubles).toEqual([])
    })
  }

  for (const protocol of ['raw', 'line', 'length']) {
    it(`a wrong answer under the ready protocol: ${protocol}`, { timeout: 180_000 }, async () => {
      scene = new Scene(shape, protocol, protocol === 'length' ? framed : plain)
      const troubles: string[] = []
      for (const way of ['answer', 'promise', 'send']) {
        for (const value of ['number', 'true', 'null', 'object', 'array of numbers', 'ArrayBuffer']) {
          if (troubles.length >= ENOUGH) break
          const found = await scene.closes(way, value, WRONG[value]!)
          troubles.push(...found.map((each) => `${way}, ${each}`))
        }
      }
      expect(troubles).toEqual([])
    })
  }

  it('a wrong packet of unPacket, a wrong broadcast hurt nobody else', { timeout: 180_000 }, async () => {
    const troubles: string[] = []
    for (const [way, protocol] of [
      ['unPacket', 'obedient'],
      ['broadcast', 'obedient'],
      ['broadcast', 'packing'],
    ] as const) {
      scene?.end()
      scene = new Scene(shape, protocol)
      for (const value of Object.keys(WRONG)) {
        if (troubles.length >= ENOUGH) break
        const found = await scene.hurtsNobody(way, value)
        troubles.push(...found.map((each) => `${way}, ${protocol}, ${each}`))
      }
    }
    expect(troubles).toEqual([])
  })
})
