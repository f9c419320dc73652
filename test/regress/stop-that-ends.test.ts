// Servers that could not be stopped: threads that did not answer, handlers that never came to an end, a stop() from
// within onStart, a listener that could not be closed.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type EventLoop, type Handler, type Loop, Server, type ServerOptions } from 'ringloop'
import { afterEach, describe, expect, it } from 'vitest'
import { fixtureUrl } from '../support/child.js'
import { memoryLogger } from '../support/memory-logger.js'
import { connectRaw, type RawClient } from '../support/raw-client.js'
import { rounds, until, within } from '../support/wait.js'

const POLLERS = ['native', 'net'] as const
/** What a loop that does not answer may take: the server waits 5 s for it. */
const BOUND = 20_000
const LOCAL = '127.0.0.1:0'

const clients: RawClient[] = []
const folders: string[] = []

afterEach(() => {
  for (const client of clients.splice(0)) client.destroy()
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
})

async function connect(server: Server): Promise<RawClient> {
  const client = await connectRaw(server.address)
  clients.push(client)
  return client
}

function codeOf(promise: Promise<void>): Promise<string> {
  return promise.then(
    () => 'started',
    (error: { code: string }) => error.code,
  )
}

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as net.AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

async function refuses(port: number): Promise<boolean> {
  return connectRaw({ port }).then(
    (client) => {
      client.destroy()
      return false
    },
    () => true,
  )
}

/** How often onStart was called, has ended, and onStop was called, over all loops. */
function counters(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(12))
}

interface SlowStart {
  readonly counts: Int32Array
  readonly startMs: number | 'forever'
  readonly stopMs: number | 'forever'
  readonly stopInStart?: boolean
}

function slowServer(data: SlowStart, options: ServerOptions = {}): Server {
  return new Server(fixtureUrl('slow-start.mjs'), {
    address: LOCAL,
    numLoops: 2,
    logger: false,
    data,
    ...options,
  })
}

describe('stop resolves although', () => {
  it('a thread computes for ever: it is terminated, and that is logged', async () => {
    const logger = memoryLogger()
    const server = new Server(fixtureUrl('commands.mjs'), { address: LOCAL, numLoops: 2, logger })
    await within('the start', server.start())
    const client = await connect(server)
    client.write('spin 600000')
    await until('it computes', () => server.stats().total.connections === 1)
    await within('the stop', server.stop({ drain: 100 }), BOUND)
    await client.whenEnded()
    expect(logger.find('warn', 'terminated')).toHaveLength(1)
  })

  it('onStop never ends in a thread', async () => {
    const counts = counters()
    const server = slowServer({ counts, startMs: 0, stopMs: 'forever' })
    await within('the start', server.start())
    await within('the stop', server.stop(), BOUND)
    expect([...counts]).toEqual([2, 2, 2])
  })

  it('onStart never ends in a thread: start rejects', async () => {
    const counts = counters()
    const server = slowServer({ counts, startMs: 'forever', stopMs: 0 })
    const started = codeOf(server.start())
    await until('both have begun', () => counts[0] === 2)
    await within('the stop', server.stop(), BOUND)
    expect(await within('the start', started)).toBe('ERR_RINGLOOP_CLOSED')
    expect([...counts]).toEqual([2, 0, 0])
  })

  it('onStop never ends here', async () => {
    const handler: Handler = { onMessage: () => {}, onStop: () => new Promise<void>(() => {}) }
    const server = new Server(handler, { address: LOCAL, logger: false })
    await within('the start', server.start())
    const { port } = server.address
    await within('the stop', server.stop(), BOUND)
    expect(await refuses(port)).toBe(true)
  })

  for (const numLoops of ['here', 1, 2]) {
    for (const poller of POLLERS) {
      it(`its unix socket cannot be removed (${poller}, loops: ${numLoops})`, async () => {
        const folder = mkdtempSync(path.join(tmpdir(), 'ringloop-'))
        folders.push(folder)
        const file = path.join(folder, 's.sock')
        const options = { address: { path: file }, poller, logger: false } as const
        const server =
          numLoops === 'here'
            ? new Server({ onMessage: (_c, _ctx, data) => data }, options)
            : new Server(fixtureUrl('echo.mjs'), { ...options, numLoops: numLoops as number })
        await within('the start', server.start())
        const client = await connect(server)
        await client.echo('x')
        rmSync(file)
        mkdirSync(file)
        await within('the stop', server.stop({ drain: 100 }))
        await client.whenEnded()
        expect(server.stats().total.connections).toBe(0)
      })
    }
  }
})

describe('a loop that fails to start', () => {
  it('is reported although the onStart of another never ends', async () => {
    const server = new Server(fixtureUrl('one-fails.mjs'), { address: LOCAL, numLoops: 2, logger: false })
    expect(await within('the start', codeOf(server.start()), BOUND)).toBe('ERR_RINGLOOP_LOOP_START')
    await within('the stop', server.stop())
  })
})

describe('stop during start', () => {
  it('in threads: onStart ends, onStop follows it, and start rejects', async () => {
    const counts = counters()
    const server = slowServer({ counts, startMs: 300, stopMs: 0 })
    const started = codeOf(server.start())
    await until('both have begun', () => counts[0] === 2)
    await within('the stop', server.stop())
    expect(await within('the start', started)).toBe('ERR_RINGLOOP_CLOSED')
    expect([...counts]).toEqual([2, 2, 2])
  })

  it('in threads, before they run: start rejects', async () => {
    const counts = counters()
    const server = slowServer({ counts, startMs: 0, stopMs: 0 })
    const started = codeOf(server.start())
    await within('the stop', server.stop())
    expect(await within('the start', started)).toBe('ERR_RINGLOOP_CLOSED')
    expect(counts[1]).toBe(counts[2])
  })

  for (const poller of POLLERS) {
    it(`here (${poller}): start rejects at once, onStop follows onStart when that ends`, async () => {
      const calls: string[] = []
      let goOn: (() => void) | undefined
      const port = await freePort()
      const handler: Handler = {
        async onStart() {
          await new Promise<void>((resolve) => {
            goOn = resolve
          })
          calls.push('started')
        },
        onMessage: () => {},
        onStop: () => void calls.push('stopped'),
      }
      const server = new Server(handler, { address: { port, host: '127.0.0.1' }, poller, logger: false })
      const started = codeOf(server.start())
      await within('the stop', server.stop())
      expect(await within('the start', started)).toBe('ERR_RINGLOOP_CLOSED')
      goOn!()
      await until('both were called', () => calls.length === 2)
      expect(calls).toEqual(['started', 'stopped'])
      await rounds()
      expect(await refuses(port)).toBe(true)
    })
  }
})

describe('stop from within onStart', () => {
  for (const poller of POLLERS) {
    for (const awaited of [true, false]) {
      it(`of the server (${poller}${awaited ? ', awaited' : ''}): start rejects, nothing is left`, async () => {
        const port = await freePort()
        let stopped: Promise<void> | undefined
        let ends = 0
        const handler: Handler = {
          async onStart() {
            stopped = server.stop()
            if (awaited) await stopped
          },
          onMessage: () => {},
          onStop: () => void ends++,
        }
        const server = new Server(handler, { address: { port, host: '127.0.0.1' }, poller, logger: false })
        expect(await within('the start', codeOf(server.start()))).toBe('ERR_RINGLOOP_CLOSED')
        await within('the stop', stopped!)
        await until('onStop was called', () => ends > 0)
        await rounds(3)
        expect(ends).toBe(1)
        expect(await refuses(port)).toBe(true)
      })
    }

    it(`of the loop (${poller}): start rejects, nothing is left`, async () => {
      const port = await freePort()
      let ends = 0
      const handler: Handler = {
        onStart: async (loop: Loop) => loop.stop(),
        onMessage: () => {},
        onStop: () => void ends++,
      }
      const server = new Server(handler, { address: { port, host: '127.0.0.1' }, poller, logger: false })
      expect(await within('the start', codeOf(server.start()))).toBe('ERR_RINGLOOP_CLOSED')
      expect(ends).toBe(1)
      await within('the stop', server.stop())
      expect(await refuses(port)).toBe(true)
    })
  }

  it('of the loop, in a module: start rejects, every loop ends', async () => {
    const counts = counters()
    const server = slowServer({ counts, startMs: 0, stopMs: 0, stopInStart: true })
    expect(await within('the start', codeOf(server.start()))).toBe('ERR_RINGLOOP_CLOSED')
    await within('the stop', server.stop())
    expect(counts[1]).toBe(counts[2])
  })
})

describe('Symbol.asyncDispose', () => {
  it('stops the server', async () => {
    let loop: EventLoop | Loop | undefined
    const handler: Handler = {
      onStart: (each) => {
        loop = each
      },
      onMessage: () => {},
    }
    const server = new Server(handler, { address: LOCAL, logger: false })
    await server.start()
    const { port } = server.address
    await server[Symbol.asyncDispose]()
    expect(loop?.stopping).toBe(true)
    expect(await refuses(port)).toBe(true)
  })
})
