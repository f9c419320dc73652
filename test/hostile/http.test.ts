/** HTTP clients that take nothing, and answers that never come or never end: each has its time, and nobody else waits. */
import { expect, it } from 'vitest'
import { type HostedServer, SHAPES } from '../support/hosted-server.js'
import type { RawClient } from '../support/raw-client.js'
import { hostedScene } from '../support/scene.js'
import { until } from '../support/wait.js'

const SHORT_MS = 300
const MIB = 1024 * 1024

const { serve, client } = hostedScene()

const get = (target: string): string => `GET ${target} HTTP/1.1\r\nHost: x\r\n\r\n`

for (const shape of SHAPES) {
  const withTimes = (times: object, options: object = {}): Promise<HostedServer> =>
    serve('http.mjs', { ...shape, options: { ...options, data: times } })

  /** Asks, and reads nothing. */
  async function stalled(server: HostedServer, bytes: string): Promise<RawClient> {
    const one = await client(server)
    one.socket.pause()
    one.write(bytes)
    return one
  }

  async function expectEnd(server: HostedServer, code: string): Promise<void> {
    expect(await server.told('closed')).toMatchObject([{ code }])
    await until('nothing is left', async () => {
      const { connections, writeBufferBytes } = await server.total()
      return connections === 0 && writeBufferBytes === 0
    })
  }

  it(`${shape.name}: whoever takes nothing of a streamed answer has bodyTimeout, and no more`, async () => {
    const server = await withTimes({ bodyTimeout: SHORT_MS })
    await stalled(server, get('/endless?65536'))
    await expectEnd(server, 'slow-consumer')
  })

  it(`${shape.name}: whoever takes nothing of a whole answer has keepAliveTimeout, and no more`, async () => {
    const server = await withTimes({ keepAliveTimeout: SHORT_MS })
    await stalled(server, get(`/large?${32 * MIB}`))
    await expectEnd(server, 'idle')
  })

  it(`${shape.name}: half a request behind an answer that is not taken has its own time, and no more`, async () => {
    const times = { bodyTimeout: SHORT_MS, headersTimeout: SHORT_MS, keepAliveTimeout: 0 }
    for (const half of ['GET / HTTP/1.1\r\n', 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab']) {
      const server = await withTimes(times, { highWaterMark: 64 * MIB })
      await stalled(server, get(`/large?${32 * MIB}`) + half)
      await expectEnd(server, 'idle')
    }
  })

  it(`${shape.name}: a handler that never answers has responseTimeout`, async () => {
    const server = await withTimes({ responseTimeout: SHORT_MS })
    const one = await client(server)
    one.write(get('/wait') + get('/now'))
    await one.whenEnded()
    expect(one.text).toMatch(/^HTTP\/1\.1 503 Service Unavailable\r\n/)
    expect(one.text).not.toContain('200 OK')
    await expectEnd(server, 'handler-error')
    expect(await server.told('aborted')).toEqual([{ code: 'ERR_RINGLOOP_CLOSED', later: true }])
  })

  it(`${shape.name}: a body that stands still has responseTimeout, one that goes on has not`, async () => {
    const server = await withTimes({ responseTimeout: SHORT_MS })
    const one = await client(server)
    one.write(get(`/parts?${SHORT_MS / 3}`))
    await until('the body is whole', () => one.text.endsWith('0\r\n\r\n'))
    one.write(get('/quiet'))
    await one.whenEnded()
    expect(one.text.endsWith('5\r\nfirst\r\n')).toBe(true)
    await expectEnd(server, 'handler-error')
    await server.told('source-ended')
  })

  it.each([1, 1000])(
    `${shape.name}: others are answered while a body of ready parts goes on: %i byte(s)`,
    async (bytes) => {
      const server = await serve('http.mjs', shape)
      const flooding: RawClient[] = []
      const others: RawClient[] = []
      for (let i = 0; i < 2 * Math.max(1, shape.loops); i++) {
        const one = await client(server)
        ;(i % 2 === 0 ? flooding : others).push(one)
      }
      for (const each of flooding) each.write(get(`/endless?${bytes}`))
      for (const each of flooding) await each.bytes(10_000)
      const times: number[] = []
      for (let i = 0; i < 20; i++) {
        for (const each of others) {
          const began = performance.now()
          expect(await each.ask(get('/now'))).toContain('200 OK')
          times.push(performance.now() - began)
        }
      }
      times.sort((a, b) => a - b)
      expect(times[Math.floor(times.length / 2)], 'the median in ms').toBeLessThan(100)
    },
  )
}
