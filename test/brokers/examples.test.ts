/** Examples of which several run side by side, over a real engine, as a user starts them. Skipped, and said so, where there is none. */
import { once } from 'node:events'
import { afterEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { nativeAvailable } from '../../src/loop/poller/native-poller.js'
import { type ExampleProcess, endExamples, runExample, startExample } from '../example-process.js'
import { ENGINES, type ExampleEngine } from '../support/example-engines.js'
import { until, within } from '../support/wait.js'

const POLLERS = nativeAvailable() === true ? ['native', 'net'] : ['net']
const SERVERS = POLLERS.flatMap((poller) => ['1', '2'].map((loops) => ({ poller, loops })))
const COUNT = 200

const engines: ExampleEngine[] = []

afterEach(async () => {
  await endExamples()
  await Promise.all(engines.splice(0).map(({ engine }) => engine.close()))
})

/** A WebSocket and what it has heard. */
class Listener {
  readonly heard: string[] = []
  readonly #socket: WebSocket

  private constructor(socket: WebSocket) {
    this.#socket = socket
    socket.on('message', (data: Buffer) => void this.heard.push(data.toString()))
  }

  static async connect({ port }: ExampleProcess): Promise<Listener> {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`)
    await within('the handshake', once(socket, 'open'))
    return new Listener(socket)
  }

  say(line: string): void {
    this.#socket.send(line)
  }

  /** What it has heard of `topic` that begins with `word`. */
  of(topic: string, word: string): string[] {
    const start = `${topic} ${word}`
    return this.heard.filter((text) => text.startsWith(start)).map((text) => text.slice(start.length))
  }
}

describe.each(ENGINES)('websocket-topics side by side over $name', (kind) => {
  it.each(SERVERS)(
    'publishes to the subscribers of all: $poller, $loops loop(s)',
    async ({ poller, loops }) => {
      const started = await kind.start()
      engines.push(started)
      const { engine, flags } = started
      const start = (): Promise<ExampleProcess> =>
        startExample('websocket-topics', '--poller', poller, '--loops', loops, ...flags)
      const examples = [await start(), await start()] as const
      const [here, there] = [await Listener.connect(examples[0]), await Listener.connect(examples[1])]
      const hearEachOther = (round: string): Promise<void> =>
        until('they hear each other', () => {
          here.say(`pub news ${round} here`)
          there.say(`pub news ${round} there`)
          return here.of('news', `${round} there`).length > 0 && there.of('news', `${round} here`).length > 0
        })
      here.say('sub news')
      there.say('sub news')
      await hearEachOther('first')
      for (let i = 0; i < COUNT; i++) {
        here.say(`pub news a${i}`)
        there.say(`pub news b${i}`)
      }
      const numbers = Array.from({ length: COUNT }, (_, i) => `${i}`)
      for (const listener of [here, there]) {
        for (const word of ['a', 'b']) {
          await until('all have come', () => listener.of('news', word).length >= COUNT)
          expect(listener.of('news', word)).toEqual(numbers)
        }
      }

      await engine.kill()
      here.say('pub news alone')
      await until('those who are here hear it', () => here.of('news', 'alone').length === 1)
      await Promise.all(examples.map((example) => example.printed('stderr', /is away/)))
      await engine.restart()
      await hearEachOther('second')
      expect(there.of('news', 'alone')).toEqual([])
      for (const example of examples) expect((await example.stop()).code).toBe(0)
    },
  )
})

describe('the flags of a broker', () => {
  it.each([
    [['--redis', 'redis://a', '--nats', 'nats://b'], 2, /^take one of --redis and --nats$/],
    [['--redis', 'http://a'], 2, /RedisBroker cannot be used/],
    [['--nats', 'nats://a:x'], 2, /NatsBroker/],
    [['--redis', 'redis://127.0.0.1:1'], 1, /^the broker redis did not start: /],
    [['--nats', 'nats://127.0.0.1:1'], 1, /^the broker nats did not start: /],
  ])('%j end with one sentence and code %i where they cannot be used', async (flags, code, sentence) => {
    const ended = await runExample('websocket-topics', '--port', '0', ...flags)
    expect(ended.stderr.trimEnd()).toMatch(sentence)
    expect(ended.stderr.trimEnd().split('\n')).toHaveLength(1)
    expect(ended.stdout).toBe('')
    expect(ended.code).toBe(code)
  })
})
