import { type ModuleServerOptions, Server } from 'ringloop'
import { afterEach, describe, expect, it } from 'vitest'
import { type Child, fixture, fixtureUrl, startChild } from './support/child.js'
import { type MemoryLogger, memoryLogger } from './support/memory-logger.js'
import { connectRaw, type RawClient } from './support/raw-client.js'
import { until, within } from './support/wait.js'

const COMMANDS = fixtureUrl('commands.mjs')
const POLLERS = ['native', 'net'] as const

const servers: Server[] = []
const clients: RawClient[] = []
const children: Child[] = []

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  for (const child of children.splice(0)) child.kill()
  await Promise.all(servers.splice(0).map((server) => within('a server’s stop', server.stop())))
})

async function startServer(options: ModuleServerOptions): Promise<{ server: Server; logger: MemoryLogger }> {
  const logger = memoryLogger()
  const server = new Server(COMMANDS, { address: '127.0.0.1:0', logger, ...options })
  servers.push(server)
  await within('the start', server.start())
  return { server, logger }
}

async function connect(port: number): Promise<RawClient> {
  const client = await connectRaw({ port })
  clients.push(client)
  // Else a server that drains waits for this side.
  client.socket.on('end', () => client.socket.end())
  return client
}

/** Asks the script idle-server.mjs for a number: 'cpu' in ms, 'memory' in KiB. */
async function measure(child: Child, what: 'cpu' | 'memory'): Promise<number> {
  child.stdout = ''
  child.say(what)
  return Number(await child.line(what))
}

/** A new connection gets through although a loop may just be dying. */
async function echoes(port: number, text: string): Promise<boolean> {
  try {
    const client = await connect(port)
    const answer = await client.echo(text)
    client.destroy()
    return String(answer) === text
  } catch {
    return false
  }
}

describe('a loop that dies', () => {
  const kinds: [string, ModuleServerOptions][] = [
    ['native, 2 loops', { poller: 'native', numLoops: 2 }],
    ['native, 1 loop', { poller: 'native', numLoops: 1 }],
    ['native, reusePort, 2 loops', { poller: 'native', numLoops: 2, reusePort: true }],
    ['net, 2 loops', { poller: 'net', numLoops: 2 }],
    ['net, 1 loop', { poller: 'net', numLoops: 1 }],
  ]
  for (const [name, options] of kinds) {
    for (const how of ['crash', 'exit'] as const) {
      it(`${name}, by ${how}: it is reported and replaced, and the port goes on being served`, async () => {
        const { server, logger } = await startServer(options)
        const { port } = server.address
        for (const id of Array.from({ length: options.numLoops ?? 1 }, (_, i) => String(i))) {
          let victim: RawClient | undefined
          await until(`a connection is on loop ${id}`, async () => {
            const client = await connect(port)
            if ((await client.ask('loop')) !== id) return false
            victim = client
            return true
          })
          const before = logger.find('error', 'died').length
          victim!.write(how)
          await victim!.whenEnded()
          await until('it is reported', () => logger.find('error', 'died').length === before + 1)
          await until(`loop ${id} serves again on the port of server.address`, async () => {
            const client = await connect(port).catch(() => undefined)
            if (client === undefined) return false
            const answer = await client.ask('loop').catch(() => '')
            client.destroy()
            return answer === id
          })
        }
        expect(server.address.port).toBe(port)
        for (const client of clients.splice(0)) client.destroy()
        await until('no connection is counted', () => server.stats().total.connections === 0)
      })
    }
  }

  it('takes no other loop’s connections with it', async () => {
    const { server } = await startServer({ poller: 'native', numLoops: 2 })
    const [a, b] = [await connect(server.address.port), await connect(server.address.port)]
    const [loopA, loopB] = [await a.ask('loop'), await b.ask('loop')]
    expect(loopA).not.toBe(loopB)
    a.write('crash')
    await a.whenEnded()
    expect(String(await b.echo('alive'))).toBe('alive')
    await until('the dead one’s is no longer counted', () => server.stats().total.connections === 1)
  })

  it('connections that come while no loop is alive are served once one is', async () => {
    const { server, logger } = await startServer({ poller: 'native', numLoops: 1 })
    const victim = await connect(server.address.port)
    victim.write('crash')
    await until('it died', () => logger.find('error', 'died').length === 1)
    const waiting = await Promise.all([1, 2, 3].map(() => connect(server.address.port)))
    for (const client of waiting) expect(String(await client.echo('late'))).toBe('late')
    expect(server.stats().total.connections).toBe(3)
  })

  it('does not hold up a stop', async () => {
    const { server, logger } = await startServer({ poller: 'native', numLoops: 2 })
    const victim = await connect(server.address.port)
    victim.write('crash')
    await until('it died', () => logger.find('error', 'died').length === 1)
    await within('stop', server.stop({ drain: 100 }))
  })

  it('a busy loop does not keep stop from ending', async () => {
    const { server } = await startServer({ poller: 'native', numLoops: 2 })
    const client = await connect(server.address.port)
    client.write('spin 300')
    await within('stop', server.stop())
  })
})

describe('stop with drain over threads', () => {
  for (const poller of POLLERS) {
    it(`${poller}: pending answers are sent, then everything is closed`, async () => {
      const { server } = await startServer({ poller, numLoops: 2 })
      const list = await Promise.all([1, 2, 3, 4].map(() => connect(server.address.port)))
      for (const client of list) await client.echo('x')
      for (const client of list) client.write('slow 200')
      await until('all have asked', () => server.stats().total.messagesIn === 8)
      const started = performance.now()
      await within('stop', server.stop({ drain: 5000 }))
      expect(performance.now() - started).toBeLessThan(4000)
      for (const client of list) {
        await client.whenEnded()
        expect(client.text).toBe('xafter 200')
      }
    })

    it(`${poller}: an answer that never comes ends with the drain time`, async () => {
      const { server } = await startServer({ poller, numLoops: 2 })
      const client = await connect(server.address.port)
      client.write('slow 60000')
      await until('it has asked', () => server.stats().total.messagesIn === 1)
      await within('stop', server.stop({ drain: 200 }), 3000)
      await client.whenEnded()
    })
  }
})

describe('the end of the process', () => {
  for (const poller of POLLERS) {
    for (const args of [['--here'], ['--loops', '1'], ['--loops', '3']]) {
      it(`process.exit() with open sockets, ${poller} ${args.join(' ')}: that exit code, no abort`, async () => {
        const child = startChild(fixture('idle-server.mjs'), { args: ['--poller', poller, ...args] })
        children.push(child)
        const port = Number(await child.line('listening'))
        const list = await Promise.all(Array.from({ length: 8 }, () => connect(port)))
        for (const client of list) await client.echo('x')
        for (const client of list) client.write(Buffer.alloc(100_000))
        child.say('exit')
        expect(await child.exit()).toEqual({ code: 7, signal: null })
        expect(child.stderr).toBe('')
      })

      it(`a stopped server lets the process end, ${poller} ${args.join(' ')}`, async () => {
        const child = startChild(fixture('idle-server.mjs'), { args: ['--poller', poller, ...args] })
        children.push(child)
        const port = Number(await child.line('listening'))
        const client = await connect(port)
        await client.echo('x')
        child.say('stop')
        expect(await child.exit()).toEqual({ code: 0, signal: null })
      })
    }
  }

  it('threads start under node --input-type=module -e', async () => {
    const script = `
      import { Server } from 'ringloop'
      const server = new Server(${JSON.stringify(COMMANDS.pathname)}, { address: '127.0.0.1:0', numLoops: 2, logger: false })
      await server.start()
      console.log('listening ' + server.address.port)
      await server.stop()`
    const child = startChild(script, { execArgv: ['--input-type=module', '-e'] })
    children.push(child)
    expect(Number(await child.line('listening'))).toBeGreaterThan(0)
    expect(await child.exit()).toEqual({ code: 0, signal: null })
  })
})

describe('EMFILE', () => {
  for (const [poller, args] of [
    ['native', ['--here']],
    ['native', ['--loops', '2']],
    ['net', ['--here']],
    ['net', ['--loops', '2']],
  ] as const) {
    it(`${poller} ${args.join(' ')}: accepting pauses without spinning, and goes on when there is room`, async () => {
      const child = startChild(fixture('idle-server.mjs'), {
        args: ['--poller', poller, ...args],
        maxFiles: 90,
      })
      children.push(child)
      const port = Number(await child.line('listening'))
      const list = await Promise.all(Array.from({ length: 140 }, () => connect(port)))
      const served = new Set<RawClient>()
      for (const client of list) {
        client.write('hello')
        client.socket.once('data', () => served.add(client))
      }
      await until('some are served', () => served.size >= 5)
      const before = await measure(child, 'cpu')
      await new Promise((resolve) => setTimeout(resolve, 1000))
      expect((await measure(child, 'cpu')) - before, 'ms of CPU in about a second').toBeLessThan(500)
      expect(child.exited).toBe(false)
      for (const client of list) client.destroy()
      await until('a new connection is served', () => echoes(port, 'room again'), 15_000)
      expect(child.exited).toBe(false)
    })
  }
})

describe('a peer that sends and never reads', () => {
  for (const [poller, args] of [
    ['native', ['--here']],
    ['net', ['--here']],
    ['native', ['--loops', '1']],
  ] as const) {
    it(`${poller} ${args.join(' ')}: CPU near zero, memory bounded, others are served`, async () => {
      const child = startChild(fixture('idle-server.mjs'), { args: ['--poller', poller, ...args] })
      children.push(child)
      const port = Number(await child.line('listening'))
      const flood = Buffer.alloc(256 * 1024)
      const list = await Promise.all(
        Array.from({ length: 5 }, async () => {
          const client = await connectRaw({ port }, { paused: true })
          clients.push(client)
          const more = (): void => {
            if (!client.socket.destroyed) client.socket.write(flood, more)
          }
          more()
          return client
        }),
      )
      const sent = (): number =>
        list.reduce((sum, client) => sum + client.socket.bytesWritten - client.socket.writableLength, 0)
      let last = -1
      await until(
        'nobody takes any more',
        async () => {
          const now = sent()
          await new Promise((resolve) => setTimeout(resolve, 300))
          const stuck = now === last
          last = now
          return stuck
        },
        30_000,
      )
      const before = await measure(child, 'cpu')
      await new Promise((resolve) => setTimeout(resolve, 1000))
      expect((await measure(child, 'cpu')) - before, 'ms of CPU in about a second').toBeLessThan(250)
      expect((await measure(child, 'memory')) / 1024, 'MiB').toBeLessThan(200)
      expect(await echoes(port, 'served meanwhile')).toBe(true)
    })
  }
})
