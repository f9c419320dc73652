/** The HTTP plugin spoken to by clients that were not written for it, under load. */
import { createHash, randomBytes } from 'node:crypto'
import { request as nodeRequest } from 'node:http'
import autocannon from 'autocannon'
import { Server } from 'ringloop'
import { type HttpOutput, HttpProtocol, type HttpRequest, httpHandler } from 'ringloop/http'
import { Pool } from 'undici'
import { afterEach, describe, expect, it } from 'vitest'
import { nativeAvailable } from '../src/loop/poller/native-poller.js'
import { endExamples, startExample } from './example-process.js'
import { fixtureUrl } from './support/child.js'
import { within } from './support/wait.js'

type HttpServer = Server<HttpRequest, HttpOutput>

const servers: HttpServer[] = []
const pools: Pool[] = []

afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.destroy()))
  await Promise.all(servers.splice(0).map((server) => within('a server’s stop', server.stop())))
})

async function start(server: HttpServer): Promise<string> {
  servers.push(server)
  await within('the start', server.start())
  return `http://127.0.0.1:${server.address.port}`
}

const POLLERS = nativeAvailable() === true ? (['native', 'net'] as const) : (['net'] as const)
const WHERE = { address: '127.0.0.1:0', logger: false } as const

const digest = (bytes: Uint8Array): string => createHash('sha1').update(bytes).digest('hex')

/** Some answers at once, some later, so that the order is put to the test. */
async function answer(request: HttpRequest): Promise<HttpOutput> {
  const text = `${request.target} ${digest(request.body)}`
  if (request.target.endsWith('3')) await new Promise((resolve) => setTimeout(resolve, 2))
  if (!request.target.endsWith('7')) return text
  return (async function* parts() {
    yield text.slice(0, 5)
    yield text.slice(5)
  })()
}

describe.each(POLLERS)('on the %s poller', (poller) => {
  it('undici gets each of its pipelined answers, none swapped and none lost', async () => {
    const handler = httpHandler((request) =>
      request.target.endsWith('1') ? `${request.target} ${digest(request.body)}` : answer(request),
    )
    const url = await start(new Server(handler, { ...WHERE, poller, protocol: new HttpProtocol() }))
    const pool = new Pool(url, { connections: 8, pipelining: 10 })
    pools.push(pool)
    const ask = async (i: number): Promise<void> => {
      const body = i % 4 === 0 ? randomBytes(i % 5000) : null
      const method = body === null ? 'GET' : 'PUT'
      const { statusCode, body: got } = await pool.request({ path: `/${i}`, method, body })
      expect(statusCode).toBe(200)
      expect(await got.text()).toBe(`/${i} ${digest(body ?? Buffer.alloc(0))}`)
    }
    for (let from = 0; from < 4000; from += 500) {
      await Promise.all(Array.from({ length: 500 }, (_, i) => ask(from + i)))
    }
  })

  it('undici sends and gets streams', async () => {
    const handler = httpHandler((request) => request.stream!)
    const protocol = new HttpProtocol({ streamBody: true, maxBodyBytes: 20_000_000 })
    const url = await start(new Server(handler, { ...WHERE, poller, protocol }))
    const pool = new Pool(url, { connections: 2 })
    pools.push(pool)
    const sent = randomBytes(5_000_000)
    async function* pieces(): AsyncGenerator<Buffer> {
      for (let at = 0; at < sent.length; at += 100_000) yield sent.subarray(at, at + 100_000)
    }
    const { body } = await pool.request({ path: '/', method: 'POST', body: pieces() as never })
    expect(Buffer.from(await body.arrayBuffer()).equals(sent)).toBe(true)
  })

  it('node:http waits for 100 Continue and gets its answer', async () => {
    const handler = httpHandler((request) => request.text())
    const url = await start(new Server(handler, { ...WHERE, poller, protocol: new HttpProtocol() }))
    const text = await new Promise<string>((resolve, reject) => {
      const headers = { expect: '100-continue', 'content-length': 5 }
      const request = nodeRequest(url, { method: 'POST', headers, agent: false }, (response) => {
        response.setEncoding('utf8').on('data', resolve)
      })
      request.on('continue', () => request.end('hello')).on('error', reject)
      request.flushHeaders()
    })
    expect(text).toBe('hello')
  })

  it.each([1, 10])('autocannon loses nothing with 50 connections and pipelining %i', async (pipelining) => {
    const handler = httpHandler(() => 'Hello World')
    const url = await start(new Server(handler, { ...WHERE, poller, protocol: new HttpProtocol() }))
    const options = { url, connections: 50, pipelining, amount: 20_000, expectBody: 'Hello World' }
    const { errors, mismatches, non2xx, requests } = await autocannon(options)
    expect({ errors, mismatches, non2xx }).toEqual({ errors: 0, mismatches: 0, non2xx: 0 })
    // It does not wait for what is still pipelined at the end; node:http gives it the same count.
    expect(requests.total).toBe(20_000 - 50 * (pipelining - 1))
  })

  it('serves from several loops', async () => {
    const server: HttpServer = new Server(fixtureUrl('http.mjs'), { ...WHERE, poller, numLoops: 2 })
    const url = await start(server)
    const pool = new Pool(url, { connections: 6, pipelining: 4 })
    pools.push(pool)
    const answers = await Promise.all(
      Array.from({ length: 600 }, async (_, i) => {
        const path = i % 3 === 0 ? `/later?${i}` : `/${i}`
        const { body } = await pool.request({ path, method: 'PUT', body: 'x'.repeat(i) })
        const [target, length, loop] = (await body.text()).split(' ')
        expect([target, length]).toEqual([path, String(i)])
        return loop
      }),
    )
    if (poller === 'native') expect(new Set(answers).size).toBe(2)
  })
})

describe('the example http-hello', () => {
  afterEach(endExamples)

  it.each(['1', '2'])('answers, streams, and ends with code 0, with %s loop(s)', async (loops) => {
    const example = await startExample('http-hello', '--loops', loops)
    const url = `http://127.0.0.1:${example.port}`
    expect(await (await fetch(url)).text()).toBe('Hello World')
    const echo = await fetch(`${url}/echo`, { method: 'POST', body: 'abc' })
    expect(await echo.text()).toBe('abc')
    expect(await (await fetch(`${url}/json?a=b`)).json()).toMatchObject({ method: 'GET', query: 'a=b' })
    expect(await (await fetch(`${url}/count`)).text()).toBe('1\n2\n3\n4\n5\n')
    expect((await fetch(`${url}/nothing`)).status).toBe(404)
    expect((await example.stop()).code).toBe(0)
  })
})
