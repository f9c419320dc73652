// A loop that was not replaced: where no thread was to be had once, and where its own handler had stopped it. And a
// module's own messages, which were taken for ringloop's and ended the server's process.
import { type DeadLoop, type ModuleServerOptions, Server } from 'ringloop'
import { afterEach, describe, expect, it } from 'vitest'
import { type Child, fixture, fixtureUrl, startChild } from '../support/child.js'
import { memoryLogger } from '../support/memory-logger.js'
import { connectRaw, type RawClient } from '../support/raw-client.js'
import { until, within } from '../support/wait.js'

const clients: RawClient[] = []
const servers: Server[] = []
let child: Child | undefined

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  child?.kill()
  await Promise.all(servers.splice(0).map((server) => within('the stop', server.stop())))
})

async function start(module: string, options: ModuleServerOptions): Promise<Server> {
  const server = new Server(fixtureUrl(module), { address: '127.0.0.1:0', logger: false, ...options })
  servers.push(server)
  await within('the start', server.start())
  return server
}

async function connect(port: number): Promise<RawClient> {
  const client = await connectRaw({ port })
  clients.push(client)
  return client
}

describe('a loop for which no thread is to be had', () => {
  it('is tried again until there is one, and each try is told to onLoopDied', async () => {
    child = startChild(fixture('no-thread-for-a-while.mjs'))
    const port = Number(await child.line('listening'))
    const victim = await connect(port)
    victim.write('crash')
    await victim.whenEnded()
    expect(await (await connect(port)).ask('loop')).toBe('0')
    expect(child.stdout.split('\n').filter((line) => line.startsWith('died'))).toEqual([
      'died 0 50 a crash on demand',
      'died 0 100 no thread to be had',
      'died 0 200 no thread to be had',
      'died 0 400 no thread to be had',
    ])
    child.say('stop')
    expect(await child.exit()).toEqual({ code: 0, signal: null })
  })
})

describe('a loop that its own handler stops', () => {
  for (const options of [
    { poller: 'native', numLoops: 2 },
    { poller: 'net', numLoops: 2 },
    { poller: 'net', numLoops: 1 },
    { poller: 'native', numLoops: 1, reusePort: true },
  ] as const) {
    it(`is counted as dead and replaced: ${JSON.stringify(options)}`, async () => {
      const logger = memoryLogger()
      const dead: DeadLoop[] = []
      const server = await start('commands.mjs', {
        ...options,
        logger,
        onLoopDied: (loop) => dead.push(loop),
      })
      const { port } = server.address
      const victim = await connect(port)
      const id = await victim.ask('loop')
      victim.write('stop-loop')
      await victim.whenEnded()
      await until('that loop serves again', async () => {
        const client = await connectRaw({ port }).catch(() => undefined)
        const answer = client === undefined ? '' : await client.ask('loop').catch(() => '')
        client?.destroy()
        return answer === id && server.stats().loops[Number(id)]!.restarts === 1
      })
      expect(dead).toEqual([{ id: Number(id), error: expect.any(Error), restartIn: 50 }])
      expect(dead[0]!.error.message).toContain('loop.stop()')
      expect(logger.find('error', 'died')).toHaveLength(1)
    })
  }
})

describe('a module that posts by itself', () => {
  it('neither disturbs the server nor hears its messages', async () => {
    const logger = memoryLogger()
    const server = await start('posts.mjs', { numLoops: 2, logger })
    for (let i = 0; i < 4; i++) {
      const client = await connect(server.address.port)
      expect(await client.ask('post')).toBe('posted')
    }
    expect(await server.broadcast('x')).toMatchObject({ sent: 4 })
    expect(await (await connect(server.address.port)).ask('heard')).toBe('0')
    expect(server.stats().total).toMatchObject({ restarts: 0, connections: 5 })
    expect(logger.lines.filter(({ level }) => level !== 'debug')).toEqual([])
  })
})

describe('onLoopDied', () => {
  it('is told the exit code, and what was thrown', async () => {
    const dead: DeadLoop[] = []
    const server = await start('commands.mjs', { numLoops: 1, onLoopDied: (loop) => dead.push(loop) })
    for (const command of ['exit', 'crash']) {
      const client = await connect(server.address.port)
      client.write(command)
      await client.whenEnded()
    }
    await until('both are told', () => dead.length === 2)
    expect(dead.map(({ id, error }) => [id, error.message])).toEqual([
      [0, 'its thread ended with exit code 3'],
      [0, 'a crash on demand'],
    ])
  })

  it('may throw, and may stop the server', async () => {
    const logger = memoryLogger()
    let stopped: Promise<void> | undefined
    const server = await start('commands.mjs', {
      numLoops: 1,
      logger,
      onLoopDied: () => {
        stopped = server.stop()
        throw new Error('a bad listener')
      },
    })
    const client = await connect(server.address.port)
    client.write('crash')
    await until('it was called', () => stopped !== undefined)
    await within('the stop', stopped!)
    expect(logger.find('error', 'a bad listener')).toHaveLength(1)
    expect(server.stats().total.restarts).toBe(1)
  })
})

describe('onLoopDied that is async', () => {
  it('may reject', async () => {
    const logger = memoryLogger()
    const onLoopDied = async (): Promise<never> => {
      throw new Error('an async bad listener')
    }
    const server = await start('commands.mjs', { numLoops: 1, logger, onLoopDied })
    const client = await connect(server.address.port)
    client.write('crash')
    await until('it is logged', () => logger.find('error', 'an async bad listener').length === 1)
    await until('the loop serves again', () => server.stats().total.restarts === 1)
  })
})

describe('a loop in a thread that cannot listen', () => {
  for (const poller of ['native', 'net'] as const) {
    it(`has its onStop after its onStart: ${poller}`, async () => {
      const first = await start('commands.mjs', { numLoops: 1 })
      const logger = memoryLogger()
      const address = String(first.address)
      const options = { address, numLoops: 1, poller, reusePort: poller === 'native', logger }
      await expect(start('tells-start-and-stop.mjs', options)).rejects.toMatchObject({
        code: 'ERR_RINGLOOP_ADDRESS_IN_USE',
      })
      const told = logger.lines.map(({ message }) => message).filter((line) => line.startsWith('told'))
      expect(told).toEqual(['told of the start', 'told of the stop'])
    })
  }
})

describe('options of the threads', () => {
  it('execArgv replaces what the process was started with', async () => {
    const execArgv = ['--conditions', 'development', '--no-warnings']
    const server = await start('commands.mjs', { numLoops: 1, execArgv })
    expect(await (await connect(server.address.port)).ask('flags')).toBe(execArgv.join(' '))
  })

  it('execArgv that a thread cannot have is refused by start', async () => {
    await expect(start('commands.mjs', { numLoops: 2, execArgv: ['--title=x'] })).rejects.toMatchObject({
      code: 'ERR_RINGLOOP_OPTION',
      message: expect.stringMatching(/execArgv.*--title/),
    })
  })

  it('a loop that exceeds resourceLimits dies alone and is replaced', async () => {
    const dead: DeadLoop[] = []
    const server = await start('commands.mjs', {
      numLoops: 1,
      resourceLimits: { maxOldGenerationSizeMb: 64 },
      onLoopDied: (loop) => dead.push(loop),
    })
    const client = await connect(server.address.port)
    client.write('fill')
    await client.whenEnded()
    await until('it is told', () => dead.length === 1)
    expect(dead[0]!.error).toMatchObject({ code: 'ERR_WORKER_OUT_OF_MEMORY' })
    expect(await (await connect(server.address.port)).ask('loop')).toBe('0')
  })

  it('with a handler object they are refused', async () => {
    for (const options of [{ execArgv: [] }, { resourceLimits: {} }]) {
      const server = new Server(
        { onMessage: () => {} },
        {
          address: '127.0.0.1:0',
          ...(options as object),
        },
      )
      await expect(server.start()).rejects.toMatchObject({ code: 'ERR_RINGLOOP_OPTION' })
    }
  })
})
