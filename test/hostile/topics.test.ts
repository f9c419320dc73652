/**
 * Topics over one loop and several, with real sockets: everything that is published reaches every subscriber once, in the
 * order of its publisher; a slow reader, a loop that dies or computes and a server that stops harm nobody else.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { type HostedServer, SHAPES } from '../support/hosted-server.js'
import type { RawClient } from '../support/raw-client.js'
import { hostedScene } from '../support/scene.js'
import { until } from '../support/wait.js'

const { serve, client } = hostedScene()
const MIB = 1024 * 1024

interface Result {
  readonly sent: number
  readonly dropped: number
  readonly closed: number
}

/** Says a line, and gives the first line that answers it by `word`. */
async function say(one: RawClient, line: string, word: string): Promise<string> {
  const from = one.text.length
  one.write(`${line}\n`)
  const answer = new RegExp(`^${word} (.*)\n`, 'm')
  await until(`'${line}' is answered`, () => answer.test(one.text.slice(from)) || one.closed)
  return answer.exec(one.text.slice(from))![1]!
}

async function publish(one: RawClient, line: string): Promise<Result> {
  return JSON.parse(await say(one, line, 'published'))
}

/** The lines that are no answers. */
function heard(one: RawClient): string[] {
  return one.text.split('\n').filter((line) => line.length > 0 && !/^[a-z]+ /.test(line))
}

/** As many clients as are wanted, the first half on the first loop where there are two. */
async function spread(server: HostedServer, count: number, loops: number): Promise<RawClient[]> {
  const byLoop: RawClient[][] = [[], []]
  const half = loops < 2 ? count : count / 2
  while (byLoop[0]!.length < half || (loops > 1 && byLoop[1]!.length < half)) {
    const one = await client(server)
    byLoop[Number(await say(one, 'loop', 'loop'))]!.push(one)
  }
  return loops < 2 ? byLoop[0]! : [...byLoop[0]!.slice(0, half), ...byLoop[1]!.slice(0, half)]
}

async function subscribe(clients: readonly RawClient[], topic: string): Promise<void> {
  for (const one of clients) expect(await say(one, `sub ${topic}`, 'subscribed')).toBe('true')
}

describe.each(SHAPES)('$name', ({ poller, loops }) => {
  const start = (options: Readonly<Record<string, unknown>> = {}): Promise<HostedServer> =>
    serve('topics.mjs', { poller, loops, options })

  it('a connection, a loop and the server publish to every loop', async () => {
    const server = await start()
    const [a, b, c, d] = (await spread(server, 4, loops)) as [RawClient, RawClient, RawClient, RawClient]
    await subscribe([a, b, c], 't')
    expect(await server.ask('subscribers', 't')).toBe(3)
    const here = loops < 2 ? 3 : 2
    expect(await say(a, 'count t', 'count')).toBe(`${here}`)
    expect(await publish(a, 'pub t one')).toEqual({ sent: 2, dropped: 0, closed: 0 })
    expect(await publish(d, 'pub t two')).toEqual({ sent: 3, dropped: 0, closed: 0 })
    expect(await server.ask('publish', { topic: 't', out: 'three' })).toMatchObject({ sent: 3 })
    expect(await server.ask('publish', { topic: 'nobody', out: 'x' })).toMatchObject({ sent: 0 })
    for (const one of [b, c]) await until('all are here', () => heard(one).length === 3)
    await until('all are here', () => heard(a).length === 2)
    expect([a, b, c, d].map(heard)).toEqual([
      ['two', 'three'],
      ['one', 'two', 'three'],
      ['one', 'two', 'three'],
      [],
    ])
    await server.stop()
    expect(await server.events('closed')).toHaveLength(4)
  })

  it.each(['burst', 'mixed'])(
    'each publisher’s order holds on every loop, and nothing is lost or comes twice: %s',
    async (how) => {
      const COUNT = 500
      const server = await start()
      const clients = await spread(server, 4, loops)
      await subscribe(clients, 't')
      for (const one of clients) one.write(`${how} t ${COUNT}\n`)
      await server.ask('publishAll', { topic: 't', count: COUNT })
      const others = clients.length * COUNT
      for (const one of clients) {
        await until('all are here', () => heard(one).length === others)
        const next = new Map<string, number>()
        for (const line of heard(one)) {
          const [publisher, number] = line.split(':') as [string, string]
          expect(Number(number)).toBe(next.get(publisher) ?? 0)
          next.set(publisher, Number(number) + 1)
        }
        expect([...next.values()]).toEqual(clients.map(() => COUNT))
      }
    },
  )

  it('a subscriber that never reads is left out or closed, the others get everything', async () => {
    const server = await start({ highWaterMark: 64 * 1024, closeTimeout: 500 })
    const [slow, quick, publisher] = (await spread(server, 4, loops)) as [RawClient, RawClient, RawClient]
    await subscribe([slow, quick], 't')
    slow.socket.pause()
    const before = server.memory()
    let dropped = 0
    let sent = 0
    while (dropped < 50) {
      const result = await publish(publisher, `fill t ${64 * 1024}`)
      expect(result.sent + result.dropped).toBe(2)
      dropped += result.dropped
      sent += 1
    }
    expect(server.memory() - before).toBeLessThan(200 * MIB)
    expect((await server.total()).slowConsumerDrops).toBe(dropped)
    await until('the quick one has them all', () => quick.length >= sent * 64 * 1024)
    expect(await publish(publisher, 'close t x')).toEqual({ sent: 1, dropped: 1, closed: 1 })
    const [closed] = await server.told('closed')
    expect(closed).toEqual({ code: 'slow-consumer', topics: ['t'] })
    expect(await server.ask('subscribers', 't')).toBe(1)
  })

  it('who leaves by itself or by a reset leaves its topics, and an onClose that throws does not matter', async () => {
    const server = await start()
    const clients = await spread(server, 4, loops)
    await subscribe(clients, 't')
    expect(await say(clients[0]!, 'throws', 'will')).toBe('throw')
    clients[0]!.reset()
    clients[3]!.reset()
    await server.told('closed', 2)
    await until('they have left', async () => (await server.ask('subscribers', 't')) === 2)
    for (const one of [clients[1]!, clients[2]!]) {
      await until('it hears of both', () => one.text.split('left').length === 3)
    }
  })

  it('10,000 topics of one connection go with it', async () => {
    const server = await start()
    const [many] = await spread(server, 2, loops)
    const names = Array.from({ length: 10_000 }, (_, i) => `sub topic-${i}\n`)
    many!.write(names.join(''))
    await until('all are subscribed', () => many!.text.split('true').length === 10_001)
    expect(await server.ask('subscribers', 'topic-9999')).toBe(1)
    many!.destroy()
    await until('they are gone', async () => (await server.ask('subscribers', 'topic-9999')) === 0)
  })

  it('a bad name and an option that nobody reads are refused with their codes', async () => {
    const server = await start()
    await expect(server.ask('publish', { topic: '', out: 'x' })).rejects.toThrow(/must not be empty/)
    await expect(server.ask('subscribers', 'a\nb')).rejects.toThrow(/control characters/)
    await expect(server.ask('publish', { topic: 't', out: 'x', slwo: 1 })).rejects.toThrow(/slow/)
  })

  it('a publication that cannot be sent and that nobody awaits ends nothing', async () => {
    const server = await start()
    const [a, b] = (await spread(server, 2, loops)) as [RawClient, RawClient]
    await subscribe([b], 'other')
    a.write('function t\n')
    await server.ask('publishUncloneable', 'other')
    await until('it is logged', () => server.child.stderr.length > 0 || loops === 0)
    expect(await publish(a, 'pub other still')).toMatchObject({ sent: 1 })
  })

  it('publishing while the server stops ends', async () => {
    const server = await start()
    const clients = await spread(server, 2, loops)
    await subscribe(clients, 't')
    clients[0]!.write('burst t 1000\n')
    const stopping = server.ask('stop', 100)
    expect(await server.ask('publish', { topic: 't', out: 'late' })).toMatchObject({ sent: 0 })
    expect(await server.ask('subscribers', 't')).toBe(0)
    await stopping
  })
})

describe.each(SHAPES.filter(({ loops }) => loops > 1))('$name', ({ poller, loops }) => {
  it('more at once than another loop may be behind is left out there and counted, in order for the rest', async () => {
    const COUNT = 40_000
    const server = await serve('topics.mjs', { poller, loops })
    const [here, publisher, there] = (await spread(server, 4, loops)) as [RawClient, RawClient, RawClient]
    await subscribe([here, there], 't')
    publisher.write(`burst t ${COUNT}\n`)
    await until('this loop has them all', () => heard(here).length === COUNT)
    await until('the other has what it was given', async () => {
      const { slowConsumerDrops } = await server.total()
      return slowConsumerDrops > 0 && heard(there).length + slowConsumerDrops === COUNT
    })
    const numbers = heard(there).map((line) => Number(line.split(':')[1]))
    expect(numbers.every((number, i) => i === 0 || number > numbers[i - 1]!)).toBe(true)
    // It may get them before the publisher has heard of it.
    await until('it has caught up', async () => (await publish(publisher, 'pub t still')).dropped === 0)
  })

  it('text and bytes reach another loop while the server’s thread computes', async () => {
    const server = await serve('topics.mjs', { poller, loops })
    const [publisher, , there] = (await spread(server, 4, loops)) as [RawClient, RawClient, RawClient]
    await subscribe([there], 't')
    let isBlocked = true
    const blocked = server.ask('block', 3000).then(() => {
      isBlocked = false
    })
    expect(await publish(publisher, 'pub t text')).toEqual({ sent: 1, dropped: 0, closed: 0 })
    expect(await publish(publisher, 'fill t 5')).toEqual({ sent: 1, dropped: 0, closed: 0 })
    await until('both are here', () => heard(there).length === 2)
    expect(heard(there)).toEqual(['text', '.....'])
    expect(isBlocked).toBe(true)
    await blocked
  })

  it('many publications that arrive at once take turns with the rest of the loop', async () => {
    const COUNT = 16_000
    const server = await serve('topics.mjs', { poller, loops })
    const subscriber = (await spread(server, 2, loops))[1]!
    await subscribe([subscriber], 't')
    subscriber.write('rounds\n')
    await server.ask('publishAll', { topic: 't', count: COUNT })
    await until('all are here', () => heard(subscriber).length === COUNT)
    await say(subscriber, 'quiet', 'quiet')
    const lines = subscriber.text.split('\n')
    const during = lines.slice(lines.indexOf('server:0'), lines.indexOf(`server:${COUNT - 1}`))
    const rounds = during.filter((line, i) => line === 'round it is' && during[i - 1] !== line)
    expect(rounds.length).toBeGreaterThan(4)
  })

  it('a loop that dies while others publish loses its subscribers only, and is replaced without any', async () => {
    const server = await serve('topics.mjs', { poller, loops })
    const [stays, publisher, dies] = (await spread(server, 4, loops)) as [RawClient, RawClient, RawClient]
    await subscribe([stays, dies], 't')
    publisher.write('burst t 200\n')
    dies.write('crash\n')
    publisher.write('burst t 200\n')
    await dies.whenEnded()
    await until('all are here', () => heard(stays).length === 400)
    await until('the loop is back', async () => (await server.total()).restarts === 1)
    expect(await publish(publisher, 'pub t after')).toEqual({ sent: 1, dropped: 0, closed: 0 })
    expect(await server.ask('subscribers', 't')).toBe(1)
    await until('there is one again', async () => {
      const one = await client(server)
      return (await say(one, 'loop', 'loop')) === '1' && (await say(one, 'sub t', 'subscribed')) === 'true'
    })
    expect(await publish(publisher, 'pub t again')).toEqual({ sent: 2, dropped: 0, closed: 0 })
  })
})

describe('a thread that does not end', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'ringloop-'))
  afterAll(() => rmSync(folder, { recursive: true }))

  async function publishesToStuck(poller: 'native' | 'net'): Promise<Result> {
    const fifo = path.join(folder, poller)
    execFileSync('mkfifo', [fifo])
    const server = await serve('topics.mjs', { poller, loops: 2 })
    const [stuck] = (await spread(server, 2, 2)) as [RawClient]
    await subscribe([stuck], 't')
    stuck.write(`stuck ${fifo}\n`)
    await server.told('stuck')
    return server.ask('publishAndStop', 't', 30_000)
  }

  it('and is left behind at the stop answers nothing, and publishing settles', async () => {
    const results = await Promise.all((['native', 'net'] as const).map(publishesToStuck))
    expect(results).toEqual(Array(2).fill({ sent: 0, dropped: 0, closed: 0 }))
  })
})
