/** The client of IIP: pipelining, order, giving up, losing connections, and that every request settles exactly once. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { createSecureContext } from 'node:tls'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { EventLoop } from '../src/index.js'
import { type IipClient, IipError, IipRouter } from '../src/plugins/iip/index.js'
import { atEnd, endAll, frame, iipClient, parseFrames, serveIip, startIip, until } from './iip-support.js'

afterEach(endAll)

const MIB = 1024 * 1024
const quiet = { statistics: 'off' } as const

/** `/echo`, `/sleep?ms=` and `/order`, which says how many requests it has had. */
function router(): IipRouter {
  let requests = 0
  return new IipRouter(quiet)
    .handle('/echo', ({ data }) => data)
    .handle('/order', () => `${++requests}`)
    .handle('/channel', ({ channel }) => `${channel}`)
    .handle('/sleep', async ({ data, query }) => {
      await sleep(Number(query.get('ms')))
      return data
    })
}

/** A server of plain sockets; what they get is handed to `onData` with all that came before. */
async function serveRaw(
  onData: (socket: net.Socket, all: Buffer) => void,
): Promise<{ port: number; sockets: net.Socket[] }> {
  const sockets: net.Socket[] = []
  const server = net.createServer((socket) => {
    let all = Buffer.alloc(0)
    sockets.push(socket)
    socket
      .on('error', () => {})
      .on('data', (chunk) => {
        all = Buffer.concat([all, chunk])
        onData(socket, all)
      })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  atEnd(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { port: (server.address() as net.AddressInfo).port, sockets }
}

const CHANNEL_1 = frame(5, '/sys/new_channel', 0, '{"code":0,"channel_id":1}')

/** Gives channel 1 and then leaves the rest to `answer`, once for each request. */
async function serveScript(
  answer: (socket: net.Socket, data: string, index: number) => void,
): Promise<number> {
  const seen = new WeakMap<net.Socket, number>()
  const { port } = await serveRaw((socket, all) => {
    const frames = parseFrames(all)
    for (let i = seen.get(socket) ?? 0; i < frames.length; i++) {
      if (frames[i]!.path === '/sys/new_channel') socket.write(CHANNEL_1)
      else answer(socket, frames[i]!.data.toString(), i - 1)
    }
    seen.set(socket, frames.length)
  })
  return port
}

const one = { maxConnections: 1, maxChannelsPerConn: 1 } as const

describe('requests', () => {
  it('get their own answers, whichever channel and connection they take', async () => {
    const client = iipClient(await serveIip(router()), { maxConnections: 3, maxChannelsPerConn: 4 })
    const texts = Array.from({ length: 3000 }, (_, i) => `request ${i} ${'x'.repeat((i * 7) % 500)}`)
    const answers = await Promise.all(texts.map((text) => client.request('/echo', text)))
    expect(answers.map(String)).toEqual(texts)
    expect(client.connections).toBeLessThanOrEqual(3)
    expect(client.pending).toBe(0)
  })

  it('do not wait behind a slow one while there can be another channel', async () => {
    const client = iipClient(await serveIip(router()), { maxConnections: 1 })
    const slow = client.request('/sleep?ms=10000', 'slow', { timeout: 0 })
    void slow.catch(() => {})
    const fast = await Promise.all(Array.from({ length: 5 }, (_, i) => client.request('/echo', `${i}`)))
    expect(fast.map(String)).toEqual(['0', '1', '2', '3', '4'])
  })

  it('without data are sent as {}, and bad ones reject with ERR_RINGLOOP_OPTION', async () => {
    const client = iipClient(await serveIip(router()))
    expect((await client.request('/echo')).toString()).toBe('{}')
    const option = expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' })
    for (const bad of [
      '',
      '//echo',
      '?a=1',
      'x'.repeat(2049),
      '/a\0b',
      '/sys/delete_channel',
      '/sys/%6eew_channel?a',
    ]) {
      await expect(client.request(bad, 'x')).rejects.toEqual(option)
    }
    await expect(client.request('/echo', '')).rejects.toEqual(option)
  })

  it('of a type that cannot be sent, or with options that are none, reject at once and leave nothing', async () => {
    const client = iipClient(await serveIip(router()), one)
    const option = expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' })
    const iterable = (iterate: unknown): unknown => ({ [Symbol.asyncIterator]: iterate })
    const iterables = [iterable(5), iterable(() => ({})), iterable(() => undefined)]
    for (const data of [5, true, null, {}, ['x'], new ArrayBuffer(2), Symbol('x'), () => 'x', ...iterables]) {
      await expect(client.request('/echo', data as never, { timeout: 0 })).rejects.toEqual(option)
      await expect(client.stream('/echo', data as never, { timeout: 0 }).next()).rejects.toEqual(option)
    }
    for (const path of [5, null, undefined, Symbol('x'), Buffer.from('/echo')]) {
      await expect(client.request(path as never, 'x', { timeout: 0 })).rejects.toEqual(option)
    }
    async function* chunks(): AsyncGenerator<unknown> {
      yield 'x'
      yield 5
    }
    await expect(client.request('/echo', chunks() as never, { timeout: 0 })).rejects.toEqual(option)
    for (const options of [{ signal: {} }, { timeout: 'x' }, { waitForReady: 1 }, { raw: 'no' }, 5, null]) {
      await expect(client.request('/echo', 'x', options as never)).rejects.toEqual(option)
      await expect(client.channel(options as never)).rejects.toEqual(option)
    }
    expect(client.pending).toBe(0)
    expect((await client.request('/echo', 'after')).toString()).toBe('after')
  })

  it('of many MiB go both ways at once over one connection', async () => {
    const client = iipClient(await serveIip(router()), { maxConnections: 1 })
    const blocks = [35, 1, 20, 3].map((size, i) => Buffer.alloc(size * MIB + i, `${i}`))
    const answers = await Promise.all(blocks.map((block) => client.request('/echo', block)))
    expect(answers.every((answer, i) => answer.equals(blocks[i]!))).toBe(true)
  })

  it('of any size up to 40 MiB come back as they were, whole or as they come', async () => {
    const routes = router().stream('/stream', async function* ({ body }) {
      yield* body
    })
    const client = iipClient(await serveIip(routes))
    const echo = async (size: number, streamed: boolean): Promise<void> => {
      const data = Buffer.alloc(size, `${size};`)
      const answer = streamed
        ? await client.stream('/stream', data).bytes()
        : await client.request('/echo', data)
      expect(answer.equals(data)).toBe(true)
    }
    const size = fc
      .double({ min: 0, max: Math.log2(40 * MIB), noNaN: true })
      .map((bits) => Math.floor(2 ** bits))
    const requests = fc.array(fc.tuple(size, fc.boolean()), { minLength: 1, maxLength: 5 })
    await fc.assert(
      fc.asyncProperty(requests, async (sizes) => {
        await Promise.all(sizes.map(([each, streamed]) => echo(each, streamed)))
      }),
      { numRuns: 12 },
    )
  })

  it('may come as chunks, and a source that fails rejects its request', async () => {
    const client = iipClient(await serveIip(router()))
    async function* chunks(): AsyncGenerator<string> {
      for (const text of ['one ', '', 'two ', 'three']) {
        await sleep(1)
        yield text
      }
    }
    expect((await client.request('/echo', chunks())).toString()).toBe('one two three')
    async function* broken(): AsyncGenerator<string> {
      yield 'a'
      yield 'b'
      throw new Error('the disk is on fire')
    }
    await expect(client.request('/echo', broken())).rejects.toThrow('the disk is on fire')
    expect((await client.request('/echo', 'after')).toString()).toBe('after')
  })

  it('that are given up while their chunks are sent are never taken for whole', async () => {
    const seen: string[] = []
    const routes = router().handle('/seen', ({ data }) => {
      seen.push(data.toString())
      return data
    })
    const client = iipClient(await serveIip(routes), { ...one, minReconnectDelay: 1 })
    for (const begins of [1, 2]) {
      const controller = new AbortController()
      async function* source(): AsyncGenerator<string> {
        for (let i = 0; i < begins; i++) yield `part ${i}`
        await sleep(30)
        controller.abort(new Error('enough'))
        await sleep(30)
        yield 'more'
      }
      await expect(client.request('/seen', source(), { signal: controller.signal })).rejects.toThrow('enough')
      expect((await client.request('/seen', `after ${begins}`)).toString()).toBe(`after ${begins}`)
    }
    async function* empty(): AsyncGenerator<string> {
      yield ''
    }
    await expect(client.request('/seen', empty())).rejects.toMatchObject({ code: 'ERR_RINGLOOP_OPTION' })
    expect((await client.request('/seen', 'last')).toString()).toBe('last')
    expect(seen).toEqual(['after 1', 'after 2', 'last'])
    expect(client.connections).toBe(1)
  })

  it('reject when the answer is longer than is allowed, and the connection goes on', async () => {
    const client = iipClient(await serveIip(router()), { ...one, maxResponseBytes: 1000 })
    const answers = [
      client.request('/echo', Buffer.alloc(20 * MIB)),
      client.request('/echo', Buffer.alloc(1001)),
    ]
    for (const answer of answers)
      await expect(answer).rejects.toMatchObject({ code: 'ERR_IIP_TOO_LARGE', sent: true })
    expect((await client.request('/echo', Buffer.alloc(1000))).length).toBe(1000)
    expect(client.connections).toBe(1)
  })
})

describe('a channel of one’s own', () => {
  it('keeps the order of its requests, and nobody else uses it', async () => {
    const client = iipClient(await serveIip(router()), { maxConnections: 1, maxChannelsPerConn: 2 })
    const channel = await client.channel()
    const mine = Array.from({ length: 50 }, () => channel.request('/order'))
    const others = Array.from({ length: 20 }, () => client.request('/channel'))
    expect((await Promise.all(mine)).map(Number)).toEqual(mine.map((_, i) => i + 1))
    expect(new Set((await Promise.all(others)).map(Number)).has(channel.id)).toBe(false)
    channel.close()
    await expect(channel.request('/order')).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED', sent: false })
  })

  it('is waited for when all are taken, and given back by close', async () => {
    const client = iipClient(await serveIip(router()), one)
    const first = await client.channel()
    const second = client.channel()
    await expect(client.channel({ timeout: 50 })).rejects.toMatchObject({ code: 'ERR_IIP_TIMEOUT' })
    await expect(client.request('/echo', 'x', { timeout: 50 })).rejects.toMatchObject({ sent: false })
    first.close()
    expect((await (await second).request('/echo', 'mine')).toString()).toBe('mine')
  })
})

describe('a request that is given up', () => {
  it('is closed with the block that uses it', async () => {
    const port = await serveIip(router())
    const client = iipClient(port, one)
    expect((await client.request('/echo', 'x')).toString()).toBe('x')
    await client[Symbol.asyncDispose]()
    await expect(client.request('/echo', 'x')).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED' })
  })

  it('rejects after its timeout, and its late answer reaches nobody else', async () => {
    const late: (() => void)[] = []
    const port = await serveScript((socket, data) => {
      const answer = (): void => void socket.write(frame(5, '/p', 1, `answer to ${data}`))
      if (String(data) === 'first') late.push(answer)
      else if (late.length > 0) for (const each of [...late.splice(0), answer]) each()
      else answer()
    })
    const client = iipClient(port, one)
    // With a connection and a channel there it is sent at once.
    await client.request('/p', 'before')
    const first = client.request('/p', 'first', { timeout: 60 })
    await expect(first).rejects.toMatchObject({ code: 'ERR_IIP_TIMEOUT', sent: true })
    const second = client.request('/p', 'second')
    expect((await second).toString()).toBe('answer to second')
    expect((await client.request('/p', 'third')).toString()).toBe('answer to third')
  })

  it('rejects with the reason of its signal, before or after it was sent', async () => {
    const client = iipClient(await serveIip(router()), one)
    const already = client.request('/echo', 'x', { signal: AbortSignal.abort(new Error('never mind')) })
    await expect(already).rejects.toThrow('never mind')
    const controller = new AbortController()
    const running = client.request('/sleep?ms=100', 'x', { signal: controller.signal })
    const waiting = client.request('/echo', 'waits', { signal: controller.signal })
    await until(() => client.connections === 1)
    await sleep(20)
    controller.abort(new Error('changed my mind'))
    await expect(running).rejects.toThrow('changed my mind')
    await expect(waiting).rejects.toThrow('changed my mind')
    expect((await client.request('/echo', 'goes on')).toString()).toBe('goes on')
  })

  it('makes way for another connection when the server never answers', async () => {
    let asked = 0
    const port = await serveScript((socket, data) => {
      if (asked++ > 0) socket.write(frame(5, '/p', 1, data))
    })
    const client = iipClient(port, one)
    await expect(client.request('/p', 'lost', { timeout: 50 })).rejects.toMatchObject({
      code: 'ERR_IIP_TIMEOUT',
    })
    expect((await client.request('/p', 'found')).toString()).toBe('found')
  })

  it('may share its signal with many others: no warning, and all of them end', async () => {
    const client = iipClient(await serveIip(router()))
    const warnings: Error[] = []
    const note = (warning: Error): void => void warnings.push(warning)
    process.on('warning', note)
    atEnd(() => process.off('warning', note))
    const controller = new AbortController()
    const asked = Array.from({ length: 50 }, () =>
      client.request('/sleep?ms=60000', 'x', { signal: controller.signal, timeout: 0 }),
    )
    const answered = Promise.all(Array.from({ length: 50 }, () => client.request('/echo', 'x')))
    await turn()
    controller.abort(new Error('enough'))
    for (const each of asked) await expect(each).rejects.toThrow('enough')
    await answered
    await turn()
    expect([warnings, client.pending]).toEqual([[], 0])
  })

  it('leaves nothing behind on its signal', async () => {
    const client = iipClient(await serveIip(router()))
    const { signal } = new AbortController()
    let listeners = 0
    const add = signal.addEventListener.bind(signal)
    const remove = signal.removeEventListener.bind(signal)
    signal.addEventListener = (...args: Parameters<typeof add>) => {
      listeners++
      add(...args)
    }
    signal.removeEventListener = (...args: Parameters<typeof remove>) => {
      listeners--
      remove(...args)
    }
    await Promise.all(Array.from({ length: 20 }, () => client.request('/echo', 'x', { signal })))
    expect(listeners).toBe(0)
  })
})

describe('a connection that is lost', () => {
  it('rejects what was sent on it at once', async () => {
    const port = await serveScript((socket) => setTimeout(() => socket.destroy(), 20))
    const client = iipClient(port, { ...one, timeout: 60_000 })
    const since = performance.now()
    const answers = ['a', 'b', 'c'].map((data) => client.request('/p', data))
    for (const answer of answers)
      await expect(answer).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED', sent: true })
    expect(performance.now() - since).toBeLessThan(10_000)
  })

  it('is made again for the next request', async () => {
    const server = await startIip(router())
    const { port } = server.address
    const client = iipClient(port, { minReconnectDelay: 10 })
    expect((await client.request('/echo', 'one')).toString()).toBe('one')
    await server.stop()
    await until(() => client.connections === 0)
    await expect(client.request('/echo', 'two')).rejects.toMatchObject({
      code: 'ERR_IIP_CONNECT',
      sent: false,
    })
    await startIip(router(), {}, { address: `127.0.0.1:${port}` })
    expect((await client.request('/echo', 'three', { waitForReady: true })).toString()).toBe('three')
  })

  it('is not made again at once when the server closes it at once', async () => {
    let accepted = 0
    const server = net.createServer((socket) => {
      accepted++
      socket.on('error', () => {}).destroy()
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    atEnd(() => server.close())
    const client = iipClient((server.address() as net.AddressInfo).port, { ...one, minReconnectDelay: 40 })
    const end = performance.now() + 400
    while (performance.now() < end) {
      await expect(client.request('/p', 'x')).rejects.toThrow(IipError)
      await turn()
    }
    expect(accepted).toBeLessThan(8)
  })

  it('ends a stream that is being read', async () => {
    const port = await serveScript((socket) => {
      socket.write(frame(4, '/p', 1, 'a part'))
      setTimeout(() => socket.destroy(), 20)
    })
    const read = async (): Promise<void> => {
      for await (const chunk of iipClient(port).stream('/p', 'x')) expect(chunk.toString()).toBe('a part')
    }
    await expect(read()).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED' })
  })
})

describe('a streamed answer', () => {
  it('is not read faster than its reader reads', async () => {
    let made = 0
    const routes = router().stream('/much', async function* () {
      for (; made < 64; made++) yield Buffer.alloc(MIB, made)
    })
    const client = iipClient(await serveIip(routes))
    const body = client.stream('/much')
    await sleep(200)
    const early = made
    let length = 0
    for await (const chunk of body) length += chunk.length
    expect(length).toBe(64 * MIB)
    expect(early).toBeLessThan(32)
  })

  it('may be left early; the channel is used again after it', async () => {
    const routes = router().stream('/much', async function* () {
      for (let i = 0; i < 8; i++) yield Buffer.alloc(MIB, i)
    })
    const client = iipClient(await serveIip(routes), one)
    for await (const chunk of client.stream('/much')) {
      expect(chunk[0]).toBe(0)
      break
    }
    expect((await client.request('/echo', 'after')).toString()).toBe('after')
  })
})

describe('a client', () => {
  it('takes the address of a server as it is', async () => {
    const { address } = await startIip(router())
    const client = iipClient(0, { address })
    expect((await client.request('/echo', 'hello')).toString()).toBe('hello')
  })

  it('rejects everything once it is closed, and closes harmlessly twice', async () => {
    const client = iipClient(await serveIip(router()))
    const running = client.request('/sleep?ms=5000', 'x')
    const seen = running.catch((error) => error)
    await until(() => client.connections === 1)
    await client.close()
    await client.close()
    expect(await seen).toMatchObject({ code: 'ERR_IIP_CLOSED' })
    await expect(client.request('/echo', 'x')).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED', sent: false })
    await expect(client.channel()).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED' })
  })

  it('uses channel 0 where the server gives no channel', async () => {
    const client = iipClient(await serveIip(router(), { maxChannelsPerConn: 0 }))
    const answers = await Promise.all(['a', 'b'].map((text) => client.request('/echo', text)))
    expect(answers.map(String)).toEqual(['a', 'b'])
    expect((await client.request('/channel')).toString()).toBe('0')
  })

  it('runs on the loop of a server, inside a handler', async () => {
    const behind = await serveIip(router())
    let inner: IipClient | undefined
    const front = new IipRouter(quiet).handle('/front', async ({ data, connection }) => {
      inner ??= iipClient(behind, { loop: connection.loop })
      return `front ${await inner.request('/echo', data)}`
    })
    const client = iipClient(await serveIip(front))
    expect((await client.request('/front', 'x')).toString()).toBe('front x')
    await inner!.close()
  })

  it('refuses options that make no sense', () => {
    expect(() => iipClient(1, { maxConnections: 0 })).toThrow(/maxConnections must be an integer, 1 or more/)
    for (const bad of [
      { address: 'nowhere' },
      { address: 5 },
      { address: undefined },
      { raw: 'yes' },
      { waitForReady: 0 },
      { onDrain: true },
      { tls: 5 },
      { tls: false },
      { loop: {} },
      { loop: null },
    ]) {
      const option = expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' })
      expect(() => iipClient(1, bad as never)).toThrow(option)
    }
  })
})

describe('over TLS', () => {
  it('verifies the server’s certificate unless told otherwise', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'iip-tls-'))
    atEnd(() => rmSync(folder, { recursive: true }))
    const files = ['-keyout', `${folder}/key.pem`, '-out', `${folder}/cert.pem`]
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1']
    execFileSync(
      'openssl',
      ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', ...files, ...subject],
      {
        stdio: 'ignore',
      },
    )
    const [key, cert] = ['key.pem', 'cert.pem'].map((file) => readFileSync(path.join(folder, file)))
    const port = await serveIip(router(), {}, { tls: { key: key!, cert: cert! } })
    const wary = iipClient(port, { tls: true })
    await expect(wary.request('/echo', 'x')).rejects.toMatchObject({ code: 'ERR_IIP_CONNECT' })
    const knowing = iipClient(port, { tls: { secureContext: createSecureContext({ ca: cert! }) } })
    expect((await knowing.request('/echo', Buffer.alloc(3 * MIB, 'x'))).length).toBe(3 * MIB)
    const careless = iipClient(port, { tls: { rejectUnauthorized: false } })
    expect((await careless.request('/echo', 'x')).toString()).toBe('x')
  })
})

/** A proxy that cuts its connections after so many bytes towards the client, or towards the server. */
async function cuttingProxy(target: number, cuts: readonly number[], backwards: boolean): Promise<number> {
  let made = 0
  const server = net.createServer((near) => {
    let left = cuts[made++] ?? Number.POSITIVE_INFINITY
    const far = net.connect(target, '127.0.0.1')
    const end = (): void => {
      near.destroy()
      far.destroy()
    }
    const pass = (to: net.Socket, counts: boolean) => (chunk: Buffer) => {
      if (!counts || chunk.length < left) {
        if (counts) left -= chunk.length
        to.write(chunk)
        return
      }
      to.end(chunk.subarray(0, left))
      to === near ? far.destroy() : near.destroy()
    }
    near.on('error', end).on('close', end).on('data', pass(far, backwards))
    far.on('error', end).on('close', end).on('data', pass(near, !backwards))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  atEnd(() => server.close())
  return (server.address() as net.AddressInfo).port
}

describe('chaos', () => {
  it('connections cut at any byte: every request settles once, with its own answer or an error', async () => {
    const target = await serveIip(router())
    const loop = new EventLoop({ logger: false })
    atEnd(() => loop.stop())
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 6000 }), { minLength: 1, maxLength: 4 }),
        fc.boolean(),
        fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 25 }),
        async (cuts, backwards, sizes) => {
          const port = await cuttingProxy(target, cuts, backwards)
          const client = iipClient(port, {
            loop,
            maxConnections: 2,
            maxChannelsPerConn: 3,
            minReconnectDelay: 1,
            timeout: 8000,
          })
          let settled = 0
          const results = await Promise.allSettled(
            sizes.map((size, i) => {
              const data = Buffer.alloc(size, `${i};`)
              const asked = client.request(i % 3 === 0 ? '/sleep?ms=1' : '/echo', data)
              asked.then(
                () => settled++,
                () => settled++,
              )
              return asked.then((answer) => expect(answer.equals(data)).toBe(true))
            }),
          )
          expect(settled).toBe(sizes.length)
          for (const result of results) {
            if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(IipError)
          }
          await client.close()
          expect(client.pending).toBe(0)
        },
      ),
      { numRuns: 60 },
    )
  })
})
