/** Channels of an IIP client that cannot be used again: what still comes on them reaches nobody. */
import { afterEach, describe, expect, it } from 'vitest'
import { IipRouter } from '../src/plugins/iip/index.js'
import { FrameServer, type FrameSocket } from './iip-frame-server.js'
import { endAll, type Frame, iipClient, serveIip, until } from './iip-support.js'

afterEach(endAll)

const one = { maxConnections: 1, maxChannelsPerConn: 1 } as const

async function* chunks(...texts: string[]): AsyncGenerator<string> {
  yield* texts
}

/** Answers each packet, as some handlers of Go's do; the rest of the answers when the test says so. */
class EachPacket {
  readonly late: (() => void)[] = []

  readonly script = (asked: Frame, on: FrameSocket): void => {
    const answer = (): void =>
      on.answer(asked, asked.path === '/each' ? `part ${asked.data.subarray(0, 1)}` : asked.data)
    if (asked.path === '/each' && asked.status !== 0) this.late.push(answer)
    else answer()
    if (asked.path === '/tell') for (const tell of this.late.splice(0)) tell()
  }
}

describe.each(['native', 'net'] as const)('%s', (poller) => {
  const limits = { ...one, poller }

  it('a channel whose answer ended before its request is never used again', async () => {
    const server = await FrameServer.start(new EachPacket().script)
    const client = iipClient(server.port, limits)
    const first = client.request('/each', chunks('a', 'b', 'c'))
    const behind = Array.from({ length: 150 }, (_, i) => client.request('/tell', `${i}`))
    expect(String(await first)).toBe('part a')
    expect((await Promise.all(behind)).map(String)).toEqual(behind.map((_, i) => `${i}`))
    expect(server.connections[0]!.of('/each').at(-1)).toMatchObject({ status: 3 })
    expect(server.connections[0]!.of('/sys/delete_channel')).toHaveLength(1)
    expect([server.connections.length, client.pending]).toEqual([1, 0])
  })

  it('nor where the request was one piece of more than a packet', async () => {
    const server = await FrameServer.start(new EachPacket().script)
    const client = iipClient(server.port, limits)
    const big = Buffer.alloc(16 * 1024 * 1024 + 3, 'x')
    const [, ...answers] = await Promise.all([
      client.request('/each', big),
      ...Array.from({ length: 20 }, (_, i) => client.request('/tell', `${i}`)),
    ])
    expect(answers.map(String)).toEqual(answers.map((_, i) => `${i}`))
    expect(server.connections.length).toBe(1)
  })

  it('one that somebody has for himself goes on under another id', async () => {
    const server = await FrameServer.start(new EachPacket().script)
    const channel = await iipClient(server.port, limits).channel()
    await channel.request('/each', chunks('a', 'b'))
    const after = ['x', 'y'].map((text) => channel.request('/tell', text))
    expect((await Promise.all(after)).map(String)).toEqual(['x', 'y'])
    expect(channel.closed).toBe(false)
  })

  it('a stream that is left is ended, and what still comes of it is dropped', async () => {
    let more = (): void => {}
    const server = await FrameServer.start((asked, on) => {
      if (asked.path !== '/endless') return on.answer(asked)
      on.send(4, asked.path, asked.channel, 'first')
      more = () => on.send(6, asked.path, asked.channel, 'more')
    })
    const client = iipClient(server.port, limits)
    for await (const chunk of client.stream('/endless')) {
      expect(String(chunk)).toBe('first')
      break
    }
    const [deleted] = await server.asked('/sys/delete_channel')
    expect(deleted).toMatchObject({ status: 1, channel: 1 })
    // Packets that were on their way, behind what the client has seen, and before the id is given out again.
    more()
    more()
    expect(String(await client.request('/echo', 'after'))).toBe('after')
    expect([server.connections.length, client.pending]).toEqual([1, 0])
  })

  it('a stream that is given up is ended too', async () => {
    const server = await FrameServer.start((asked, on) => {
      if (asked.path === '/endless') on.send(4, asked.path, asked.channel, 'first')
      else on.answer(asked)
    })
    const client = iipClient(server.port, limits)
    const controller = new AbortController()
    const body = client.stream('/endless', 'x', { signal: controller.signal })
    await body.next()
    controller.abort(new Error('enough'))
    await expect(body.next()).rejects.toThrow('enough')
    await server.asked('/sys/delete_channel')
    expect(String(await client.request('/echo', 'after'))).toBe('after')
  })

  it('a stream on channel 0 ends with its connection', async () => {
    const ended: string[] = []
    const routes = new IipRouter({ statistics: 'off' })
      .handle('/channel', ({ channel }) => `${channel}`)
      .stream('/endless', async function* ({ channel, connection }) {
        for (let i = 0; connection.connected; i++) {
          yield `${channel} ${i}`
          await new Promise(setImmediate)
        }
        ended.push('endless')
      })
    const client = iipClient(await serveIip(routes, { maxChannelsPerConn: 0 }), {
      ...limits,
      maxConnections: 2,
    })
    for await (const chunk of client.stream('/endless')) {
      expect(String(chunk)).toMatch(/^0 /)
      break
    }
    await until(() => ended.length === 1)
    expect(String(await client.request('/channel'))).toBe('0')
  })

  it('a stream that goes on although it was left ends with its connection', async () => {
    const server = await FrameServer.start((asked, on) => {
      if (asked.path !== '/endless') return on.answer(asked)
      on.send(4, asked.path, asked.channel, 'first')
      const timer = setInterval(() => on.send(6, asked.path, asked.channel, 'more'), 5)
      on.socket.once('close', () => clearInterval(timer))
    })
    const client = iipClient(server.port, { ...limits, connectTimeout: 1000 })
    for await (const _ of client.stream('/endless')) break
    await until(() => server.connections[0]!.closed)
    expect(String(await client.request('/echo', 'after'))).toBe('after')
    expect(server.connections.length).toBe(2)
  })
})
