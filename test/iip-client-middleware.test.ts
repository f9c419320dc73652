/** What runs around the requests of an IIP client, and what is told of them. */
import { channel } from 'node:diagnostics_channel'
import { afterEach, describe, expect, it } from 'vitest'
import { type IipClient, type IipRequestTrace, IipRouter } from '../src/plugins/iip/index.js'
import { FrameServer } from './iip-frame-server.js'
import { atEnd, endAll, iipClient, serveIip } from './iip-support.js'
import { rounds } from './support/wait.js'

afterEach(endAll)

async function client(): Promise<IipClient> {
  const router = new IipRouter({ statistics: 'off' })
    .handle('/echo', ({ data }) => data)
    .handle('/who', ({ query }) => query.get('as') ?? 'nobody')
    .stream('/stream', async function* ({ body }) {
      yield* body
    })
  return iipClient(await serveIip(router), { raw: false })
}

describe('middleware', () => {
  it('runs around every request, outermost first, and may change it and its answer', async () => {
    const order: string[] = []
    const asking = (await client())
      .use(async (request, next) => {
        order.push(`outer ${request.path} ${request.streamed}`)
        request.path += '?as=ada'
        const answer = await next()
        order.push('outer end')
        return answer
      })
      .use(async ({ path }, next) => {
        order.push(`inner ${path}`)
        return Buffer.from(`${await next()}!`)
      })
    expect(String(await asking.request('/who'))).toBe('ada!')
    expect(order).toEqual(['outer /who false', 'inner /who?as=ada', 'outer end'])
    const own = await asking.channel()
    expect(String(await own.request('/who'))).toBe('ada!')
  })

  it('may answer itself, try again, and reject', async () => {
    const asking = await client()
    let tries = 0
    asking.use(async (request, next) => {
      if (request.path === '/cached') return Buffer.from('from the cache')
      if (request.path === '/no') throw new Error('not allowed')
      try {
        tries++
        return await next()
      } catch {
        request.path = '/echo'
        return next()
      }
    })
    expect(String(await asking.request('/cached'))).toBe('from the cache')
    await expect(asking.request('/no')).rejects.toThrow('not allowed')
    expect([String(await asking.request('/nothing', 'x')), tries, asking.pending]).toEqual(['x', 1, 0])
    const option = expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' })
    expect(() => asking.use(5 as never)).toThrow(option)
    const wrong = (await client()).use((() => 'text') as never)
    await expect(wrong.request('/echo')).rejects.toEqual(option)
  })

  it('runs around streams, and hears of their end', async () => {
    const asking = await client()
    const order: string[] = []
    asking.use(async (request, next) => {
      if (request.path === '/cached') return Buffer.from('from the cache')
      if (request.path === '/no') throw new Error('not allowed')
      if (request.path === '/twice') {
        request.path = '/stream'
        await next()
        return next()
      }
      request.path = '/stream'
      order.push(`${(await next()).length} bytes`)
      return Buffer.from('not looked at')
    })
    expect(String(await asking.stream('/any', 'a body').bytes())).toBe('a body')
    expect(order).toEqual(['0 bytes'])
    expect(String(await asking.stream('/cached').bytes())).toBe('from the cache')
    await expect(asking.stream('/no').next()).rejects.toThrow('not allowed')
    expect(String(await asking.stream('/twice', 'once').bytes())).toBe('once')
    expect(asking.pending).toBe(0)
  })

  it('of a stream that was left before it was sent sends nothing', async () => {
    const server = await FrameServer.start()
    const asking = iipClient(server.port).use(async (_, next) => {
      await rounds()
      return next()
    })
    await asking.stream('/left').return()
    expect(String(await asking.request('/echo', 'x'))).toBe('x')
    expect([server.connections[0]!.of('/left').length, asking.pending]).toEqual([0, 0])
  })
})

describe('the diagnostics channels', () => {
  it('tell of the start and the end, or the error, of each request with one object', async () => {
    const asking = await client()
    const seen: [string, IipRequestTrace][] = []
    for (const what of ['start', 'end', 'error']) {
      const note = (trace: unknown): void => void seen.push([what, trace as IipRequestTrace])
      channel(`ringloop:iip:request:${what}`).subscribe(note)
      atEnd(() => channel(`ringloop:iip:request:${what}`).unsubscribe(note))
    }
    await asking.request('/echo?a=1', 'x')
    await expect(asking.request('/nothing')).rejects.toThrow()
    await asking.stream('/stream', 'x').bytes()
    expect(seen.map(([what, { path, streamed }]) => [what, path, streamed])).toEqual([
      ['start', '/echo?a=1', false],
      ['end', '/echo?a=1', false],
      ['start', '/nothing', false],
      ['error', '/nothing', false],
      ['start', '/stream', true],
      ['end', '/stream', true],
    ])
    expect(seen[0]![1]).toBe(seen[1]![1])
    expect(seen[3]![1].error).toMatchObject({ code: 'ERR_IIP_REMOTE', remoteCode: 102 })
    expect(String(seen[0]![1].address)).toMatch(/^127\.0\.0\.1:\d+$/)
    expect(asking.pending).toBe(0)
  })
})
