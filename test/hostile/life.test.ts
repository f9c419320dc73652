/**
 * The life of a connection under people who mean no good or do not look: waiting to be let in, stalls, loops that go on
 * and on, arguments of `close`, and errors that cannot be printed.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { type HostedServer, notNumbers, SHAPES, type Total } from '../support/hosted-server.js'
import { connectRaw, type RawClient } from '../support/raw-client.js'
import { hostedScene } from '../support/scene.js'
import { until, within } from '../support/wait.js'

const MIB = 1024 * 1024
const LONG_MS = 30_000
/** So many servers that were hurt are enough for one test. */
const ENOUGH = 4

const { serve, client } = hostedScene()

/** One on each loop. */
async function onEachLoop(server: HostedServer, loops: number): Promise<RawClient[]> {
  const made: RawClient[] = []
  for (let i = 0; i < Math.max(1, loops); i++) made.push(await client(server))
  return made
}

async function expectAnswers(all: readonly RawClient[], text = 'hello\n'): Promise<void> {
  for (const each of all) expect(String(await within('an answer', each.echo(text)))).toBe(text)
}

const closedOf = (server: HostedServer): { code: string }[] => server.events<{ code: string }>('closed')

describe.each(SHAPES)('$name', (shape) => {
  describe('a promise of onConnect', () => {
    const letIn = (mode: string, ms: number, options: object = {}): Promise<HostedServer> =>
      serve('connecting.mjs', { ...shape, options: { ...options, data: { mode, ms } } })

    it('is awaited before the first packet, also where the client has ended its side', async () => {
      const server = await letIn('wait', 150)
      const all = await Promise.all(Array.from({ length: 20 }, () => client(server)))
      for (const each of all) each.socket.end('a\nb\n')
      for (const each of all) {
        await within('the end', each.whenEnded())
        expect(each.text).toBe('ready a\nready b\n')
      }
      await server.told('closed', 20)
      expect(server.events('ended')).toEqual(Array.from({ length: 20 }, () => ({ state: 'ready' })))
    })

    it('that never comes ends the connection after handshakeTimeout, with no packet', async () => {
      const server = await letIn('never', 0, { handshakeTimeout: 200 })
      const all = await Promise.all(Array.from({ length: 5 }, () => client(server)))
      for (const each of all) each.write('a\n')
      await server.told('closed', 5)
      expect(new Set(closedOf(server).map((reason) => reason.code))).toEqual(new Set(['handshake-timeout']))
      for (const each of all) await within('the end', each.whenEnded())
      expect(server.events('message')).toEqual([])
      expect(notNumbers(await server.total())).toEqual([])
    })

    it('that comes too late changes nothing', async () => {
      const server = await letIn('wait', 600, { handshakeTimeout: 150 })
      const one = await client(server)
      one.write('a\n')
      await server.told('connected')
      await within('the end', one.whenEnded())
      expect(closedOf(server)).toMatchObject([{ code: 'handshake-timeout' }])
      expect(server.events('message')).toEqual([])
      expect(one.text).toBe('')
    })

    it('that rejects ends the connection, with no packet', async () => {
      const server = await letIn('reject', 50)
      const one = await client(server)
      one.socket.end('a\n')
      await within('the end', one.whenEnded())
      expect(await server.told('closed')).toMatchObject([
        { code: 'handler-error', error: 'Error: not let in' },
      ])
      expect(server.events('message')).toEqual([])
    })

    it('does not keep a client that was reset, nor a server that stops', async () => {
      const server = await letIn('never', 0)
      const [gone, waiting] = [await client(server), await client(server)]
      await server.told('connecting', 2)
      gone.reset()
      expect(await server.told('closed', 1, 5000)).toHaveLength(1)
      expect(await server.total()).toMatchObject({ connections: 1 })
      await server.ask('stop', 0, 5000)
      await within('the end', waiting.whenEnded())
      expect(closedOf(server)).toMatchObject([{}, { code: 'server-stopped' }])
    })

    it('holds back who sends meanwhile, in bounded memory', async () => {
      const server = await letIn('never', 0, { handshakeTimeout: 2000 })
      const before = server.memory()
      const all = await Promise.all(Array.from({ length: 4 }, () => client(server)))
      for (const each of all) each.write(Buffer.alloc(64 * MIB, 'a\n'))
      await sleep(1000)
      expect(server.memory() - before).toBeLessThan(64 * MIB)
      expect(server.events('message')).toEqual([])
      await server.told('closed', 4)
    })
  })

  describe('close', () => {
    const TAKEN: Readonly<Record<string, object>> = {
      nothing: { code: 'closed' },
      closed: { code: 'closed' },
      idle: { code: 'idle' },
      'slow-consumer': { code: 'slow-consumer' },
      object: { code: 'closed', message: 'as you wish' },
      Error: { code: 'handler-error', error: 'Error: a fault' },
      'Error with a code': { code: 'handler-error', error: 'Error: an error of code ECONNRESET' },
      'Error with a close code': { code: 'handler-error', error: 'Error: an error of code idle' },
      'Error of another realm': { code: 'handler-error' },
      ProtocolError: { code: 'protocol-error', error: 'ProtocolError: a broken rule' },
    }
    const REFUSED = [
      'bye',
      'empty',
      'name of a member',
      'proto',
      'another case',
      'number',
      'true',
      'symbol',
      'object of another code',
      'object of a number',
      'empty object',
      'array',
      'function',
    ]

    it('takes a code, a reason or an Error, and counts it as what it is', async () => {
      const server = await serve('closing.mjs', shape)
      const wanted: Record<string, number> = {}
      for (const [name, reason] of Object.entries(TAKEN)) {
        const at = closedOf(server).length
        const one = await client(server)
        one.write(`close ${name}\n`)
        expect((await server.told('closed', at + 1))[at], name).toMatchObject(reason)
        const { code } = closedOf(server)[at]!
        wanted[code] = (wanted[code] ?? 0) + 1
      }
      await until('all are counted', async () => (await server.total()).connections === 0)
      const total = await server.total()
      expect(total.closed).toMatchObject(wanted)
      expect(Object.values(total.closed).reduce((a, b) => a + b)).toBe(Object.keys(TAKEN).length)
      expect(total).toMatchObject({ activeMs: 0, idleMs: 0, restarts: 0 })
      expect(notNumbers(total)).toEqual([])
    })

    it('throws for anything else, leaves the connection open, and counts nothing', async () => {
      const server = await serve('closing.mjs', shape)
      const all = await onEachLoop(server, shape.loops)
      const troubles: string[] = []
      for (const [i, name] of REFUSED.entries()) {
        const before = server.events('threw').length + server.events('returned').length
        let one = all[i % all.length]!
        if (one.closed || one.ended) one = await client(server)
        one.write(`close ${name}\n`)
        await until(
          'it is refused',
          () => server.events('threw').length + server.events('returned').length > before,
        )
        const threw = server.events<{ code?: string }>('threw').at(-1)
        if (server.events('returned').length > 0 || threw?.code !== 'ERR_RINGLOOP_OPTION') {
          troubles.push(`${name}: ${JSON.stringify(threw ?? 'taken')}`)
          break
        }
      }
      expect(troubles).toEqual([])
      await expectAnswers(all)
      const total = await server.total()
      expect(closedOf(server)).toEqual([])
      expect(total).toMatchObject({ connections: all.length, activeMs: 0, idleMs: 0, handlerErrors: 0 })
      expect(Object.values(total.closed).reduce((a, b) => a + b)).toBe(0)
    })
  })

  it('a stall longer than idleTime closes nobody whose bytes wait in the kernel', async () => {
    const server = await serve('busy.mjs', { ...shape, options: { idleTime: 1000 } })
    const all = await Promise.all(Array.from({ length: 10 }, () => client(server)))
    const spinners = await onEachLoop(server, shape.loops)
    await expectAnswers(all)
    for (const each of spinners) each.write('spin 2500\n')
    await sleep(300)
    // The loops are in the middle of it: these bytes are read only after the stall.
    const answers = all.map((each) => each.echo('still here\n'))
    expect((await within('the answers', Promise.all(answers))).map(String)).toEqual(
      all.map(() => 'still here\n'),
    )
    expect(closedOf(server)).toEqual([])
    await server.told('closed', all.length + spinners.length)
    expect(new Set(closedOf(server).map((reason) => reason.code))).toEqual(new Set(['idle']))
  })

  for (const command of ['flow', 'yield']) {
    it(`a handler that goes on and on, but waits as documented, does not hold the loop: ${command}`, async () => {
      const server = await serve('busy.mjs', shape)
      const all = await onEachLoop(server, shape.loops * 2)
      const busy = await client(server)
      const times: number[] = []
      busy.write(`${command} 1000\n`)
      while (server.events('ticked').length === 0) {
        const began = performance.now()
        await expectAnswers(all)
        times.push((performance.now() - began) / all.length)
      }
      const [{ ticks, of }] = (await server.told('ticked')) as [{ ticks: number; of: number }]
      expect(ticks, `ticks of ${of}`).toBeGreaterThan(of / 4)
      times.sort((a, b) => a - b)
      expect(times[Math.floor(times.length / 2)], 'median of the others in ms').toBeLessThan(50)
    })
  }

  it('a broadcast counts no connection whose own side has ended', async () => {
    const server = await serve('busy.mjs', { ...shape, options: { allowHalfOpen: true } })
    const [listener, ended, shut] = [await client(server), await client(server), await client(server)]
    ended.write('end\n')
    shut.write('shut\n')
    await Promise.all([ended.whenEnded(), shut.whenEnded()])
    const result = await server.ask('broadcast', { bytes: 10 })
    expect(result).toEqual({ sent: 1, dropped: 0, closed: 0 })
    expect((await listener.bytes(11)).toString()).toBe('..........\n')
    expect((await server.total()).connections).toBe(3)
  })

  it('a server ends by Symbol.asyncDispose as by stop', async () => {
    const server = await serve('busy.mjs', shape)
    const one = await client(server)
    await server.ask('dispose')
    await within('the end', one.whenEnded())
    expect(await server.told('closed')).toMatchObject([{ code: 'server-stopped' }])
    const late = await connectRaw(server).catch((error: NodeJS.ErrnoException) => error)
    expect((late as NodeJS.ErrnoException).code).toBe('ECONNREFUSED')
  })
})

describe.each([
  ...SHAPES.map((shape) => ({ ...shape, badLogger: false })),
  { name: 'native, a logger that throws', poller: 'native' as const, loops: 0, badLogger: true },
  { name: 'net, a logger that throws', poller: 'net' as const, loops: 0, badLogger: true },
])('$name: what cannot be printed', (shape) => {
  const ENDING = ['message', 'reject', 'later', 'packet', 'unPacket', 'connect', 'connect-reject']
  const ENDING_LATER = ['drain', 'drain-reject', 'end']
  const LOGGED = ['close', 'close-reject', 'sent', 'timer', 'task']
  const VALUES = [
    'Error',
    'symbol message',
    'object message',
    'symbol name',
    'getters',
    'cause of itself',
    'refusing proxy',
    'error with a refusing cause',
    'revoked proxy',
    'null prototype',
    'throwing toString',
    'symbol',
    'undefined',
    'null',
    'bigint',
  ]

  /** What went wrong, or nothing. */
  async function throwIt(server: HostedServer, where: string, value: string): Promise<void> {
    const before = closedOf(server).length
    const one = await client(server)
    one.write(`${where} ${value}\n`)
    if (where === 'end') one.socket.end()
    if (where.startsWith('connect')) {
      await one.bytes(4)
      // One of them comes to the same loop.
      await Promise.all([client(server), client(server)])
    }
    if (!LOGGED.includes(where) || where.startsWith('close')) {
      const reason = (await server.told<{ code: string }>('closed', before + 1, LONG_MS / 2))[before]
      expect(reason?.code).toBe(where.startsWith('close') ? 'closed' : 'handler-error')
    } else await one.bytes(4)
  }

  for (const where of [...ENDING, ...ENDING_LATER, ...LOGGED]) {
    it(
      `hurts nobody else, thrown from ${where}`,
      async () => {
        let server: HostedServer | undefined
        let bystanders: RawClient[] = []
        const troubles: string[] = []
        for (const value of VALUES) {
          if (troubles.length >= ENOUGH) break
          if (server === undefined) {
            server = await serve('throwing.mjs', {
              ...shape,
              options: { allowHalfOpen: true, lowWaterMark: 1024 },
            })
            bystanders = await onEachLoop(server, shape.loops)
          }
          try {
            await throwIt(server, where, value)
            await expectAnswers(bystanders)
            expect(server.child.exited, server.child.stderr).toBe(false)
            const total: Total = await server.total()
            expect(notNumbers(total)).toEqual([])
            expect(total.restarts, 'loops started again').toBe(0)
          } catch (error) {
            troubles.push(`${value}: ${(error as Error).message.split('\n', 1)[0]}`)
            server.kill()
            server = undefined
          }
        }
        expect(troubles).toEqual([])
      },
      3 * LONG_MS,
    )
  }
})
