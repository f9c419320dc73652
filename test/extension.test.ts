import { type ExtendedServer, type Extension, type Handler, Server } from 'ringloop'
import { afterEach, describe, expect, it } from 'vitest'
import { memoryLogger } from './support/memory-logger.js'
import { connectRaw } from './support/raw-client.js'

const LOOP = new URL('./fixtures/echo.mjs', import.meta.url)
const HERE: Handler = { onMessage: (_c, _ctx, data) => data }

const servers: Server[] = []

afterEach(() => Promise.all(servers.splice(0).map((server) => server.stop())))

function make(source: URL | Handler = HERE, logger = memoryLogger()): Server {
  const server = new Server(source, { address: '127.0.0.1:0', numLoops: 1, logger })
  servers.push(server)
  return server
}

/** Notes when it is started and stopped. */
function noting(name: string, log: string[], more: Partial<Extension> = {}): Extension {
  return {
    name,
    start: () => void log.push(`${name} starts`),
    stop: () => void log.push(`${name} stops`),
    ...more,
  }
}

describe.each([
  ['one loop here', HERE],
  ['a loop in a thread', LOOP],
])('extensions of a server with %s', (_name, source) => {
  it('are started when the loops serve, in their order, and stopped when the loops have ended', async () => {
    const log: string[] = []
    let seen: ExtendedServer | undefined
    const server = make(source)
    const asks: Extension = {
      name: 'asks',
      async start(given) {
        seen = given
        const client = await connectRaw({ port: given.address.port })
        log.push(String(await client.echo('hello')))
        client.destroy()
      },
      async stop() {
        await expect(connectRaw({ port: seen!.address.port })).rejects.toThrow()
        log.push('asks stops')
      },
    }
    expect(server.use(noting('first', log)).use(asks)).toBe(server)
    await server.start()
    expect(log).toEqual(['first starts', 'hello'])
    expect(String(seen!.address)).toBe(String(server.address))
    expect(seen!.stats().loops).toHaveLength(1)
    expect(seen!.logger).toBe(server.logger)
    await server.stop()
    expect(log.slice(2).sort()).toEqual(['asks stops', 'first stops'])
  })

  it('fail the start when one does not start: the others and the loops are stopped', async () => {
    const log: string[] = []
    let port = 0
    const fails: Extension = noting('fails', log, {
      start(given) {
        port = given.address.port
        throw new Error('not today')
      },
    })
    const server = make(source).use(noting('before', log)).use(fails).use(noting('after', log))
    await expect(server.start()).rejects.toThrow('not today')
    expect(log).toEqual(['before starts', 'before stops'])
    expect(() => server.address).toThrow(expect.objectContaining({ code: 'ERR_RINGLOOP_STATE' }))
    await expect(connectRaw({ port })).rejects.toThrow()
    await server.stop()
    expect(log).toHaveLength(2)
  })

  it('are not started once the server is stopped', async () => {
    const log: string[] = []
    const server = make(source)
    let stopped: Promise<void> | undefined
    const stops: Extension = noting('stops', log, {
      start() {
        stopped = server.stop()
      },
    })
    server.use(stops).use(noting('after', log))
    await expect(server.start()).rejects.toMatchObject({ code: 'ERR_RINGLOOP_CLOSED' })
    await stopped
    expect(log).toEqual(['stops stops'])
  })

  it('do not keep a start from failing, even if one does not stop', async () => {
    const log: string[] = []
    const server = make(source)
      .use(noting('stuck', log, { stop: () => new Promise(() => {}) }))
      .use(noting('fails', log, { start: () => Promise.reject(new Error('not today')) }))
    await expect(server.start()).rejects.toThrow('not today')
  }, 30_000)

  it('are all stopped, even if one of them throws', async () => {
    const log: string[] = []
    const logger = memoryLogger()
    const throws = (): never => {
      throw new Error('stuck')
    }
    const rejects = async (): Promise<never> => throws()
    const server = make(source, logger)
      .use(noting('a', log))
      .use(noting('b', log, { stop: throws }))
      .use(noting('c', log, { stop: rejects }))
      .use(noting('d', log))
    await server.start()
    await server.stop()
    expect(log.slice(4).sort()).toEqual(['a stops', 'd stops'])
    expect(logger.find('error', 'stuck').map(({ fields }) => fields)).toEqual([
      expect.objectContaining({ extension: 'b' }),
      expect.objectContaining({ extension: 'c' }),
    ])
  })

  it('have the loops watched where one of them asks for it', async () => {
    const idle = make(source).use(noting('a', []))
    const watched = make(source)
      .use(noting('a', []))
      .use(noting('b', [], { watchLoops: true }))
    await Promise.all([idle.start(), watched.start()])
    await expect.poll(() => watched.stats().total.loopDelay.count).toBeGreaterThan(1)
    expect(idle.stats().total.loopDelay.count).toBe(0)
  })
})

describe('server.use', () => {
  it('is refused once the server was started or stopped', async () => {
    const started = make()
    const starting = started.start()
    const state = expect.objectContaining({ code: 'ERR_RINGLOOP_STATE' })
    expect(() => started.use(noting('late', []))).toThrow(state)
    await starting
    expect(() => started.use(noting('late', []))).toThrow(state)
    const stopped = make()
    await stopped.stop()
    expect(() => stopped.use(noting('late', []))).toThrow(state)
  })

  it('takes each extension once, and nothing else', () => {
    const server = make()
    const one = noting('one', [])
    server.use(one)
    expect(() => server.use(one)).toThrow(expect.objectContaining({ code: 'ERR_RINGLOOP_STATE' }))
    const option = expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' })
    for (const wrong of [undefined, null, 5, {}, { name: 'x', start() {} }, { ...one, name: 1 }]) {
      expect(() => server.use(wrong as never), String(wrong)).toThrow(option)
    }
  })

  it('stops nothing that was not started', async () => {
    const log: string[] = []
    const server = make().use(noting('a', log))
    await server.stop()
    expect(log).toEqual([])
  })
})
