/** The server's side of IIP: order, independence of channels, limits, streams, middleware. */
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { ErrorCode } from '../src/index.js'
import {
  type IipBody,
  IipFailure,
  IipRouter,
  type IipRouterOptions,
  type PathOptions,
} from '../src/plugins/iip/index.js'
import {
  endAll,
  FramePeer,
  frame,
  type IipHandler,
  iipClient,
  Lines,
  parseFrames,
  serveIip,
  startIip,
  until,
} from './iip-support.js'

afterEach(endAll)

const MIB = 1024 * 1024
const ECHO: IipHandler = { onMessage: (_c, _ctx, data) => data }
const quiet = { statistics: 'off' } as const

/** A promise and what settles it. */
function gate(): { open: () => void; passed: Promise<void> } {
  let open!: () => void
  const passed = new Promise<void>((resolve) => {
    open = resolve
  })
  return { open, passed }
}

describe('a plain handler under the protocol', () => {
  it('echoes, and finds path, query and channel in ctx', async () => {
    const seen: unknown[] = []
    const handler: IipHandler = {
      onMessage: (c, ctx, data) => {
        seen.push([ctx.path, ctx.query.getAll('a'), ctx.channel, ctx.connection === c, ctx.rawPath])
        return data
      },
    }
    const peer = await FramePeer.connect(await serveIip(handler), 2)
    await peer.send(1, '/%65cho/ä?a=1&a=2', 2, 'x')
    const [, , answer] = await peer.frames(3)
    expect(answer).toMatchObject({ status: 5, path: '/echo/ä', channel: 2 })
    expect(answer!.data.toString()).toBe('x')
    expect(seen).toEqual([['/echo/ä', ['1', '2'], 2, true, '/%65cho/ä?a=1&a=2']])
  })

  it('answers a channel in order and one at a time, while a slow one holds up no other', async () => {
    const slow = gate()
    let running = 0
    const handler: IipHandler = {
      onMessage: async (_c, ctx, data) => {
        if (ctx.channel === 1) {
          expect(++running).toBe(1)
          if (data.toString() === 'first') await slow.passed
          else await sleep(1)
          running--
        }
        return data
      },
    }
    const peer = await FramePeer.connect(await serveIip(handler), 2)
    for (const data of ['first', 'second', 'third']) await peer.send(1, '/p', 1, data)
    for (const data of ['a', 'b']) await peer.send(1, '/p', 2, data)
    const early = await peer.frames(4)
    expect(early.slice(2).map(({ channel, data }) => `${channel} ${data}`)).toEqual(['2 a', '2 b'])
    slow.open()
    const all = await peer.frames(7)
    expect(all.slice(4).map(({ channel, data }) => `${channel} ${data}`)).toEqual([
      '1 first',
      '1 second',
      '1 third',
    ])
  })

  it('answers for a handler that returns nothing, at once or later, or no bytes', async () => {
    const handler: IipHandler = {
      onMessage: (_c, ctx) => (ctx.path === '/now' ? undefined : ctx.path === '/later' ? sleep(1) : ''),
    }
    const peer = await FramePeer.connect(await serveIip(handler), 1)
    for (const path of ['/now', '/later', '/empty']) await peer.send(1, path, 1, 'x')
    const answers = (await peer.frames(4)).slice(1).map(({ data }) => data.toString())
    expect(answers).toEqual(Array(3).fill('{"code":101,"message":"handle no response"}'))
  })

  it('refuses to send what nobody asked for', async () => {
    let thrown: unknown
    const handler: IipHandler = {
      onMessage: (c, _ctx, data) => {
        try {
          c.send('unasked')
        } catch (error) {
          thrown = error
        }
        return data
      },
    }
    const peer = await FramePeer.connect(await serveIip(handler), 1)
    await peer.send(1, '/p', 1, 'x')
    expect((await peer.frames(2))[1]!.data.toString()).toBe('x')
    expect(thrown).toMatchObject({ code: 'ERR_RINGLOOP_STATE' })
  })

  it('answers everything before a half-closed connection ends, also what waits for its turn', async () => {
    const handler: IipHandler = {
      onMessage: async (_c, _ctx, data) => {
        await sleep(1)
        return data
      },
    }
    const peer = await FramePeer.connect(await serveIip(handler), 1)
    const requests = Array.from({ length: 50 }, (_, i) => frame(1, '/p', 1, `${i}`))
    peer.peer.socket.end(Buffer.concat(requests))
    const frames = parseFrames(await peer.peer.ended)
    expect(frames.slice(1).map(({ data }) => Number(data))).toEqual(requests.map((_, i) => i))
  })
})

it('a server that is drained answers what has come, also what waits for its turn', async () => {
  const handler: IipHandler = {
    onMessage: async (_c, _ctx, data) => {
      await sleep(2)
      return data
    },
  }
  const server = await startIip(handler)
  const peer = await FramePeer.connect(server.address.port, 1)
  const requests = Array.from({ length: 30 }, (_, i) => frame(1, '/p', 1, `${i}`))
  await peer.peer.write(Buffer.concat(requests))
  await peer.frames(2)
  await server.stop({ drain: 10_000 })
  const answers = parseFrames(await peer.peer.ended).slice(1)
  expect(answers.map(({ data }) => Number(data))).toEqual(requests.map((_, i) => i))
})

describe('whatever the stream looks like', () => {
  const message = fc.record({
    channel: fc.integer({ min: 0, max: 4 }),
    sizes: fc.array(fc.oneof(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 90_000 })), {
      minLength: 1,
      maxLength: 4,
    }),
    slow: fc.boolean(),
  })

  it.each(['auto', 'net'] as const)(
    'any interleaving of channels and any cut gives the same answers (%s poller)',
    async (poller) => {
      const router = new IipRouter(quiet)
        .handle('/now', ({ data }) => data)
        .handle('/slow', async ({ data }) => {
          await sleep(1)
          return data
        })
      const port = await serveIip(router, {}, { poller })
      await fc.assert(
        fc.asyncProperty(
          fc.array(message, { minLength: 1, maxLength: 12 }),
          fc.array(fc.integer({ min: 1, max: 40_000 }), { maxLength: 20 }),
          fc.array(fc.nat(), { minLength: 1, maxLength: 30 }),
          async (messages, cuts, choices) => {
            const peer = await FramePeer.connect(port, 4)
            const wanted = Array.from({ length: 5 }, () => [] as string[])
            const queues = Array.from({ length: 5 }, () => [] as Buffer[])
            messages.forEach(({ channel, sizes, slow }, i) => {
              const parts = sizes.map((size) => Buffer.alloc(size, `${i}:${size};`))
              wanted[channel]!.push(Buffer.concat(parts).toString())
              parts.forEach((part, at) => {
                const last = at === parts.length - 1
                const status = at === 0 ? (last ? 1 : 0) : last ? 3 : 2
                queues[channel]!.push(frame(status, slow ? '/slow' : '/now', channel, part))
              })
            })
            const stream: Buffer[] = []
            for (let turn = 0; queues.some((queue) => queue.length > 0); turn++) {
              const open = queues.filter((queue) => queue.length > 0)
              stream.push(open[choices[turn % choices.length]! % open.length]!.shift()!)
            }
            let rest = Buffer.concat(stream)
            for (const cut of cuts) {
              await peer.peer.write(rest.subarray(0, cut))
              rest = rest.subarray(cut)
            }
            await peer.peer.write(rest)
            const answers = (await peer.frames(4 + messages.length)).slice(4)
            for (let channel = 0; channel < 5; channel++) {
              const got = answers
                .filter((each) => each.channel === channel)
                .map(({ data }) => data.toString())
              expect(got).toEqual(wanted[channel])
            }
            peer.peer.socket.destroy()
          },
        ),
        { numRuns: 40 },
      )
    },
  )

  it('nonsense closes its own connection at most', async () => {
    const port = await serveIip(ECHO, { requestTimeout: 0 })
    const good = await FramePeer.connect(port, 1)
    const valid = Buffer.concat([
      frame(1, '/sys/new_channel', 0, '{}'),
      frame(0, '/p', 0, 'a'),
      frame(3, '/p', 0, 'b'),
    ])
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 64 }),
        fc.array(fc.tuple(fc.nat(valid.length - 1), fc.nat(255)), { maxLength: 4 }),
        async (noise, changes) => {
          const bytes = Buffer.from(valid)
          for (const [at, value] of changes) bytes[at] = value
          const peer = await FramePeer.connect(port)
          peer.peer.socket.end(Buffer.concat([bytes, noise]))
          await peer.peer.ended
          const before = parseFrames(good.peer.bytes).length
          await good.send(1, '/p', 1, 'still here')
          expect((await good.frames(before + 1)).at(-1)!.data.toString()).toBe('still here')
        },
      ),
      { numRuns: 150 },
    )
  })

  it('takes and sends 40 MiB in packets of 16 MiB', async () => {
    const port = await serveIip(new IipRouter(quiet).handle('/echo', ({ data }) => data))
    const data = Buffer.alloc(40 * MIB)
    for (let at = 0; at < data.length; at += 4096) data.writeUInt32BE(at, at)
    const answer = await iipClient(port).request('/echo', data)
    expect(answer.equals(data)).toBe(true)
  })
})

describe('limits', () => {
  it('refuse a path of 2049 bytes before its end has come', async () => {
    const peer = await FramePeer.connect(await serveIip(ECHO), 1)
    await peer.peer.write(Buffer.concat([Buffer.of(1), Buffer.alloc(2049, 'a')]))
    expect(parseFrames(await peer.peer.ended).length).toBe(1)
  })

  it('close on a request that is too long, in one packet or many, and say why', async () => {
    const whole = [frame(1, '/p', 1, Buffer.alloc(100_001)).subarray(0, 50)]
    const parts = [frame(0, '/p', 1, Buffer.alloc(60_000)), frame(2, '/p', 1, Buffer.alloc(60_000))]
    for (const bytes of [whole, parts]) {
      const log = new Lines()
      const port = await serveIip(ECHO, { maxRequestBytes: 100_000 }, { logger: log.logger })
      const client = await FramePeer.connect(port, 1)
      for (const each of bytes) await client.peer.write(each)
      await client.peer.ended
      expect(log.text).toMatch(/a request is longer than 100000 bytes/)
    }
  })

  it('refuse one channel too many with error 106, and the connection goes on', async () => {
    const peer = await FramePeer.connect(await serveIip(ECHO, { maxChannelsPerConn: 2 }), 3)
    expect(parseFrames(peer.peer.bytes)[2]!.data.toString()).toBe(
      '{"code":106,"message":"channel create limited"}',
    )
    await peer.send(1, '/sys/delete_channel', 1, '{}')
    await peer.send(1, '/sys/new_channel', 0, '{}')
    expect((await peer.frames(4))[3]!.data.toString()).toBe('{"code":0,"channel_id":1}')
  })

  it('reserve nothing for a length that is only claimed', async () => {
    const port = await serveIip(ECHO)
    const before = process.memoryUsage().arrayBuffers
    const peers = await Promise.all(Array.from({ length: 20 }, () => FramePeer.connect(port, 1)))
    const header = frame(1, '/p', 1, Buffer.alloc(16 * MIB)).subarray(0, 20)
    await Promise.all(peers.map((peer) => peer.peer.write(header)))
    await sleep(50)
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(160 * MIB)
  })

  it('close a connection whose unfinished requests take too much', async () => {
    const log = new Lines()
    const port = await serveIip(ECHO, { maxRequestBytes: MIB, maxHeldBytes: 2 * MIB }, { logger: log.logger })
    const peer = await FramePeer.connect(port, 4)
    for (let channel = 1; channel <= 4; channel++) await peer.send(0, '/p', channel, Buffer.alloc(MIB))
    await peer.peer.ended
    expect(log.text).toMatch(/unfinished requests take more than 2097152 bytes/)
  })

  it('close a connection whose request stands still, and no other', async () => {
    const log = new Lines()
    const port = await serveIip(ECHO, { requestTimeout: 100 }, { logger: log.logger })
    const [silent, header, unfinished] = [
      await FramePeer.connect(port, 1),
      await FramePeer.connect(port, 1),
      await FramePeer.connect(port, 2),
    ]
    await header.peer.write('\x01/half')
    await unfinished.send(0, '/p', 1, 'begun')
    const ticking = setInterval(() => void unfinished.send(1, '/p', 2, 'alive'), 20)
    await Promise.all([header.peer.ended, unfinished.peer.ended])
    clearInterval(ticking)
    await silent.send(1, '/p', 1, 'still here')
    expect((await silent.frames(2))[1]!.data.toString()).toBe('still here')
  })

  it('stop reading while requests that wait take too much, and answer all of them in the end', async () => {
    const hold = gate()
    let most = 0
    let running = 0
    const handler: IipHandler = {
      onMessage: async (c, _ctx, data) => {
        running++
        most = Math.max(most, c.readBufferLength)
        await hold.passed
        return data.subarray(0, 8)
      },
    }
    const peer = await FramePeer.connect(
      await serveIip(handler, { maxRequestBytes: 65_536, maxHeldBytes: 131_072 }),
      2,
    )
    const requests = Array.from({ length: 400 }, (_, i) =>
      frame(1, '/p', 1 + (i % 2), Buffer.alloc(20_000, `${i}`.padStart(8, '0'))),
    )
    void peer.peer.write(Buffer.concat(requests))
    await until(() => running === 2)
    await sleep(50)
    expect(running).toBe(2)
    hold.open()
    const answers = (await peer.frames(402)).slice(2)
    for (const channel of [1, 2]) {
      const got = answers.filter((each) => each.channel === channel).map(({ data }) => Number(data))
      expect(got).toEqual(Array.from({ length: 200 }, (_, i) => 2 * i + channel - 1))
    }
    expect(most).toBeLessThan(MIB)
  })

  it('stop reading while handlers have too much that they have not answered', async () => {
    const hold = gate()
    let running = 0
    const handler: IipHandler = {
      onMessage: async (_c, _ctx, data) => {
        running++
        await hold.passed
        return data.subarray(0, 8)
      },
    }
    const port = await serveIip(handler, { maxRequestBytes: 65_536, maxHeldBytes: 131_072 })
    const peer = await FramePeer.connect(port, 20)
    for (let channel = 1; channel <= 20; channel++) {
      void peer.send(1, '/p', channel, Buffer.alloc(60_000, `${channel}`.padStart(8, '0')))
    }
    await until(() => running >= 2)
    await sleep(50)
    expect(running).toBeLessThanOrEqual(3)
    hold.open()
    const answers = (await peer.frames(40)).slice(20)
    expect(answers.map(({ data }) => Number(data)).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 20 }, (_, i) => i + 1),
    )
  })
})

describe('a router', () => {
  /** The answer to a request on channel 0. */
  async function ask(port: number, path: string): Promise<string> {
    const peer = await FramePeer.connect(port)
    await peer.send(1, path, 0, 'x')
    const [answer] = await peer.frames(1)
    peer.peer.socket.destroy()
    return answer!.data.toString()
  }

  function failing(options: IipRouterOptions = {}): IipRouter {
    return new IipRouter({ ...quiet, ...options })
      .handle('/fault', () => Promise.reject(new TypeError('secret')))
      .handle('/fault-at-once', () => {
        throw new TypeError('secret')
      })
      .stream('/stream', async function* () {
        yield await Promise.reject(new TypeError('secret'))
      })
  }
  const FAULTS = ['/fault', '/fault-at-once', '/stream']

  it.each(FAULTS)('keeps the text of a fault for the log: %s', async (path) => {
    const log = new Lines()
    const port = await serveIip(failing(), {}, { logger: log.logger })
    expect(await ask(port, path)).toBe('{"code":-1,"message":"handler fail"}')
    expect(log.worth).toMatchObject([{ level: 'error', message: 'an IIP handler failed', fields: { path } }])
    expect(log.worth[0]!.fields).toMatchObject({ err: { message: 'secret', stack: expect.any(String) } })
  })

  it.each(FAULTS)('tells the text of a fault where it is to expose errors, as Go does: %s', async (path) => {
    const port = await serveIip(failing({ exposeErrors: true }))
    expect(await ask(port, path)).toBe('{"code":-1,"message":"handler fail:secret"}')
  })

  it('tells what a handler throws on purpose, and logs nothing', async () => {
    const log = new Lines()
    const router = new IipRouter(quiet)
      .handle('/go', () => {
        throw new IipFailure('no <such> thing')
      })
      .handle('/own', () => Promise.reject(new IipFailure('no <such> thing', { code: 404 })))
    const port = await serveIip(router, {}, { logger: log.logger })
    expect(await ask(port, '/go')).toBe('{"code":-1,"message":"handler fail:no \\u003csuch\\u003e thing"}')
    expect(await ask(port, '/own')).toBe('{"code":404,"message":"no \\u003csuch\\u003e thing"}')
    expect(log.worth).toEqual([])
  })

  it('logs no handler that gives up when its peer has ended, and answers those that do not', async () => {
    const log = new Lines()
    const gone = (signal: AbortSignal): Promise<void> =>
      new Promise((resolve) => signal.addEventListener('abort', () => resolve()))
    const router = new IipRouter(quiet)
      .handle('/gives-up', async ({ signal }) => {
        await gone(signal)
        signal.throwIfAborted()
      })
      .handle('/aborts', ({ signal }) => sleep(60_000, 'late', { signal }))
      .handle('/fails', async ({ signal }) => {
        await gone(signal)
        throw new IipFailure('too late', { code: 7 })
      })
      .handle('/faulty', async ({ signal }) => {
        await gone(signal)
        throw new TypeError('oh')
      })
    const port = await serveIip(router, {}, { logger: log.logger })
    const peer = await FramePeer.connect(port, 4)
    const paths = ['/gives-up', '/aborts', '/fails', '/faulty']
    for (const [i, path] of paths.entries()) await peer.send(1, path, i + 1, 'x')
    peer.peer.socket.end()
    const frames = parseFrames(await peer.peer.ended).slice(4)
    const answers = new Map(frames.map(({ path, data }) => [path, `${data}`]))
    const failed = '{"code":-1,"message":"handler fail"}'
    expect(paths.map((path) => answers.get(path))).toEqual([
      failed,
      failed,
      '{"code":7,"message":"too late"}',
      failed,
    ])
    expect(log.worth).toMatchObject([{ level: 'error', fields: { path: '/faulty' } }])
  })

  it.each([0, 1.5, '1', Number.NaN, null])('refuses the code %s of a failure', (code) => {
    const make = (): IipFailure => new IipFailure('x', { code: code as number })
    expect(make).toThrow(expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }))
  })

  it.each([
    ['a path that no request asks for', () => new IipRouter().handle('/x?a=1', () => '')],
    ['a path that is not decoded', () => new IipRouter().stream('/%41', () => '')],
    ['a path that is no string', () => new IipRouter().handle(5 as never, () => '')],
    ['middleware that is no function', () => new IipRouter().use(5 as never)],
    ['a handler that is no function', () => new IipRouter().handle('/x', {} as never)],
    ['exposeErrors that is neither true nor false', () => new IipRouter({ exposeErrors: 1 as never })],
  ])('refuses %s', (_what, make) => {
    expect(make).toThrow(expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }))
  })

  it.each([
    ['/odd', 'number'],
    ['/odd-stream', 'object'],
  ])('answers for a handler that gives what cannot be sent: %s', async (path, kind) => {
    const log = new Lines()
    const router = new IipRouter(quiet)
      .handle('/odd', () => 42 as never)
      .stream('/odd-stream', async function* () {
        yield {} as never
      })
    const port = await serveIip(router, {}, { logger: log.logger })
    expect(await ask(port, path)).toBe('{"code":-1,"message":"handler fail"}')
    const err = { message: `a handler must give bytes or a string, not ${kind}` }
    expect(log.worth).toMatchObject([{ fields: { err } }])
  })

  it('sends what a streaming handler returns', async () => {
    const router = new IipRouter(quiet).stream('/text', () => 'no chunks')
    expect(await ask(await serveIip(router), '/text')).toBe('no chunks')
  })

  it('runs middleware around handlers, outermost first, with values of the request', async () => {
    const order: string[] = []
    const router = new IipRouter(quiet)
      .use(async (request, next) => {
        order.push('in 1')
        request.set('user', 'ada')
        const answer = await next()
        order.push('out 1')
        return `[${answer}]`
      })
      .use((request, next) => {
        order.push('in 2')
        return request.path === '/closed' ? 'not you' : next()
      })
      .handle('/who', (request) => `${request.get('user')}`)
      .handle('/closed', () => 'never')
    const client = iipClient(await serveIip(router))
    expect((await client.request('/who')).toString()).toBe('[ada]')
    expect(order).toEqual(['in 1', 'in 2', 'out 1'])
    expect((await client.request('/closed')).toString()).toBe('[not you]')
  })

  it('adds, replaces and removes handlers while it runs', async () => {
    const router = new IipRouter(quiet).handle('/a', () => '1')
    const port = await serveIip(router)
    const client = iipClient(port)
    expect((await client.request('/a')).toString()).toBe('1')
    router.handle('/a', () => '2')
    expect((await client.request('/a')).toString()).toBe('2')
    expect([router.remove('/a'), router.remove('/a')]).toEqual([true, false])
    expect(await ask(port, '/a')).toBe('{"code":102,"message":"handle error"}')
  })

  it.each(['new_channel', 'delete_channel', 'drain'])(
    'refuses the path of the protocol itself: %s',
    (name) => {
      expect(() => new IipRouter().handle(`/sys/${name}`, () => '')).toThrow(/no handler for the path/)
    },
  )

  it.each([
    ['with a NUL', '/a\0', {}, /cannot hold a NUL/],
    ['too long', `/${'a'.repeat(2048)}`, {}, /1 to 2048 bytes/],
    ['too long in UTF-8', `/${'é'.repeat(1024)}`, {}, /1 to 2048 bytes/],
    ['with an unknown unit', '/a', { timeUnit: 'hour' }, /timeUnit must be 'nanosecond', .* not 'hour'/],
    ['with a number as its unit', '/a', { timeUnit: 5 }, /timeUnit must be 'nanosecond', .* not '5'/],
  ])('refuses a path %s', (_what, asked, options, message) => {
    for (const statistics of ['on', 'off'] as const) {
      const refused = expect.objectContaining({
        code: ErrorCode.OPTION,
        message: expect.stringMatching(message),
      })
      const router = new IipRouter({ statistics })
      expect(() => router.handle(asked, () => '', options as PathOptions)).toThrow(refused)
      expect(() => router.stream(asked, () => '', options as PathOptions)).toThrow(refused)
    }
    new IipRouter().handle(`/${'a'.repeat(2047)}`, () => '')
  })

  it('counts no request that waits for the drain', async () => {
    const router = new IipRouter({ statistics: 'on' }).handle('/echo', ({ data }) => data)
    const server = await startIip(router)
    const peer = await FramePeer.connect(server.address.port, 1)
    await peer.send(1, '/sys/drain', 1, '{}')
    await peer.send(1, '/echo', 0, 'x')
    await peer.frames(2)
    const stopped = server.stop({ drain: 60_000 })
    await peer.frames(3)
    await peer.send(1, '/sys/server_measure', 0, '{}')
    const measured = (await peer.frames(4)).at(-1)!
    expect(JSON.parse(`${measured.data}`)).toMatchObject({ all_requests: 1 })
    peer.peer.socket.end()
    await stopped
  })
})

describe('a streaming handler', () => {
  it('refuses a second reader, and the first one gets the body', async () => {
    const router = new IipRouter(quiet).stream('/twice', async ({ body }) => {
      const first = body.bytes()
      const second = await body.bytes().catch((error) => error.code)
      return `${second} ${await first}`
    })
    const client = iipClient(await serveIip(router))
    expect((await client.request('/twice', 'all of it')).toString()).toBe('ERR_RINGLOOP_STATE all of it')
  })

  it.each([
    ['read to its end', async (body: IipBody) => void (await body.bytes())],
    ['left', async (body: IipBody) => void (await body.return())],
  ])('is told when it iterates over a body that was %s', async (_what, readFirst) => {
    const router = new IipRouter(quiet).stream('/again', async ({ body }) => {
      await readFirst(body)
      const failures: string[] = []
      for (let i = 0; i < 2; i++) await body.bytes().catch((error) => failures.push(error.code))
      return failures.join(' ')
    })
    const client = iipClient(await serveIip(router))
    expect(String(await client.request('/again', 'x'))).toBe('ERR_RINGLOOP_STATE ERR_RINGLOOP_STATE')
  })

  it('that answers early ends whoever still reads the body', async () => {
    let ended = false
    const router = new IipRouter(quiet).stream('/early', ({ body }) => {
      void body.bytes().then(() => {
        ended = true
      })
      return 'enough'
    })
    const peer = await FramePeer.connect(await serveIip(router), 1)
    await peer.send(0, '/early', 1, 'one ')
    expect((await peer.frames(2))[1]).toMatchObject({ status: 5, path: '/early' })
    await until(() => ended)
  })

  it('gets chunks before the request is whole, and sends chunks before it ends', async () => {
    const router = new IipRouter(quiet).stream('/upper', async function* ({ body }) {
      yield 'begun '
      for await (const chunk of body) yield chunk.toString().toUpperCase()
      yield ' ended'
    })
    const peer = await FramePeer.connect(await serveIip(router), 1)
    await peer.send(0, '/upper', 1, 'one ')
    expect((await peer.frames(2))[1]).toMatchObject({ status: 4, path: '/upper', channel: 1 })
    await peer.send(2, '/upper', 1, 'two ')
    await peer.send(3, '/upper', 1, 'three')
    await until(() => parseFrames(peer.peer.bytes).at(-1)!.status === 7)
    const frames = parseFrames(peer.peer.bytes).slice(1)
    expect(frames.map(({ data }) => data.toString()).join('')).toBe('begun ONE TWO THREE ended')
    expect(frames.slice(1, -1).every(({ status }) => status === 6)).toBe(true)
  })

  it('may answer without having read all of it; the next request on the channel is not disturbed', async () => {
    const router = new IipRouter(quiet)
      .stream('/first', async ({ body }) => {
        for await (const chunk of body) return `got ${chunk.length > 0}`
        return 'nothing'
      })
      .handle('/next', () => 'next')
    const client = iipClient(await serveIip(router), { maxConnections: 1, maxChannelsPerConn: 1 })
    const answers = await Promise.all([
      client.request('/first', Buffer.alloc(30 * MIB)),
      client.request('/next'),
    ])
    expect(answers.map(String)).toEqual(['got true', 'next'])
  })

  it('passes 100 MiB through without much of it being on its way', async () => {
    const router = new IipRouter(quiet).stream('/echo', async function* ({ body }) {
      yield* body
    })
    const client = iipClient(await serveIip(router))
    let made = 0
    async function* source(): AsyncGenerator<Buffer> {
      for (; made < 400; made++) yield Buffer.alloc(MIB / 4, made)
    }
    let length = 0
    let peak = 0
    for await (const chunk of client.stream('/echo', source())) {
      expect(chunk[0]).toBe(Math.floor(length / (MIB / 4)) & 0xff)
      length += chunk.length
      peak = Math.max(peak, (made * MIB) / 4 - length)
    }
    expect(length).toBe(100 * MIB)
    expect(peak).toBeLessThan(40 * MIB)
  })

  it('closes the connection when it fails after its first chunk', async () => {
    const router = new IipRouter(quiet).stream('/fails', async function* () {
      yield 'one'
      yield 'two'
      throw new Error('no more')
    })
    const client = iipClient(await serveIip(router))
    await expect(client.request('/fails')).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED' })
  })

  it('learns that the connection ended before the request', async () => {
    const failed = gate()
    const router = new IipRouter(quiet).stream('/in', async ({ body }) => {
      try {
        await body.bytes()
      } catch {
        failed.open()
      }
    })
    const peer = await FramePeer.connect(await serveIip(router), 1)
    await peer.send(0, '/in', 1, 'one')
    await sleep(10)
    peer.peer.socket.destroy()
    await failed.passed
  })

  it('is held to its own limit', async () => {
    const router = new IipRouter(quiet).stream('/in', async ({ body }) => `${(await body.bytes()).length}`, {
      maxBytes: 1000,
    })
    const client = iipClient(await serveIip(router))
    expect((await client.request('/in', Buffer.alloc(1000))).toString()).toBe('1000')
    await expect(client.request('/in', Buffer.alloc(1001))).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED' })
  })
})
