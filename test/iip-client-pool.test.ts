/** The connections of an IIP client: servers that cannot be reached, that are gone, that do not read, that are busy. */
import net from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { FrameServer, type FrameSocket } from './iip-frame-server.js'
import { atEnd, endAll, type Frame, frame, iipClient } from './iip-support.js'
import { until } from './support/wait.js'

afterEach(endAll)

const one = { maxConnections: 1, maxChannelsPerConn: 1 } as const
const NEVER = { timeout: 0 } as const
const MIB = 1024 * 1024

/** A port on which somebody listens for as long as the test says so. */
class Door {
  #server: net.Server | undefined = undefined
  port = 0

  static async shut(): Promise<Door> {
    const door = new Door()
    await door.open()
    await door.close()
    atEnd(() => door.close())
    return door
  }

  /** Echoes frames, on channel 1. */
  async open(): Promise<void> {
    const server = net.createServer((socket) => {
      socket
        .on('error', () => {})
        .on('data', (bytes) => {
          const isAsk = bytes.includes('/sys/new_channel')
          socket.write(
            isAsk
              ? frame(5, '/sys/new_channel', 0, '{"code":0,"channel_id":1}')
              : Buffer.concat([Buffer.of(5), bytes.subarray(1)]),
          )
        })
    })
    await new Promise<void>((resolve) => server.listen(this.port, '127.0.0.1', resolve))
    this.port = (server.address() as net.AddressInfo).port
    this.#server = server
  }

  async close(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    if (server !== undefined) await new Promise((resolve) => server.close(resolve))
  }
}

/** A server that takes connections, reads, and says nothing. */
async function mute(): Promise<{ port: number; sockets: net.Socket[] }> {
  const sockets: net.Socket[] = []
  const server = net.createServer((socket) => {
    sockets.push(socket.on('error', () => {}).resume())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  atEnd(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { port: (server.address() as net.AddressInfo).port, sockets }
}

/** Answers all but `/much`, of which it sends `bytes` that do not end, and `/never`. */
function muchOf(bytes: number) {
  return (asked: Frame, on: FrameSocket): void => {
    if (asked.path === '/never') return
    if (asked.path !== '/much') on.answer(asked)
    else on.send(4, asked.path, asked.channel, Buffer.alloc(bytes, '.'))
  }
}

describe.each(['native', 'net'] as const)('%s', (poller) => {
  describe('a server that cannot be reached', () => {
    it('rejects at once in the pauses between attempts, with the last error as the cause', async () => {
      const { port } = await Door.shut()
      const client = iipClient(port, { poller, minReconnectDelay: 60_000, maxReconnectDelay: 60_000 })
      const connect = { code: 'ERR_IIP_CONNECT', sent: false, cause: { code: 'ERR_RINGLOOP_CONNECT' } }
      await expect(client.request('/p', 'x', NEVER)).rejects.toMatchObject(connect)
      // Without this the second would wait for a minute.
      await expect(client.request('/p', 'x', NEVER)).rejects.toMatchObject(connect)
      await expect(client.stream('/p', 'x', NEVER).next()).rejects.toMatchObject(connect)
      await expect(client.channel(NEVER)).rejects.toMatchObject(connect)
      expect(client.pending).toBe(0)
    })

    it('is waited for by those who want to', async () => {
      const door = await Door.shut()
      const client = iipClient(door.port, { poller, minReconnectDelay: 20, maxReconnectDelay: 20 })
      const patient = client.request('/p', 'patient', { waitForReady: true })
      const both = [client.request('/p', 'x'), client.request('/p', 'x', { waitForReady: false })]
      for (const each of both) await expect(each).rejects.toMatchObject({ code: 'ERR_IIP_CONNECT' })
      await door.open()
      expect(String(await patient)).toBe('patient')
      const late = iipClient((await Door.shut()).port, { poller, waitForReady: true, timeout: 100 })
      await expect(late.request('/p', 'x')).rejects.toMatchObject({ code: 'ERR_IIP_TIMEOUT', sent: false })
    })
  })

  describe('a server that takes connections and never answers', () => {
    it('is one that cannot be reached: what waits for it rejects when the first connection gets no channel', async () => {
      const { port, sockets } = await mute()
      const client = iipClient(port, { poller, connectTimeout: 100, minReconnectDelay: 60_000 })
      await expect(client.request('/p', 'x', NEVER)).rejects.toMatchObject({
        code: 'ERR_IIP_CLOSED',
        sent: false,
      })
      await expect(client.request('/p', 'x', NEVER)).rejects.toMatchObject({ code: 'ERR_IIP_CONNECT' })
      expect([sockets.length, client.pending, client.connections]).toEqual([1, 0, 0])
    })

    it('is tried by one connection at a time, once it has failed', async () => {
      const { port, sockets } = await mute()
      const client = iipClient(port, {
        poller,
        maxChannelsPerConn: 1,
        connectTimeout: 100,
        minReconnectDelay: 1,
        maxReconnectDelay: 1,
      })
      await expect(client.request('/p', 'x', NEVER)).rejects.toMatchObject({ code: 'ERR_IIP_CLOSED' })
      const patient = Array.from({ length: 8 }, () =>
        client.request('/p', 'x', { waitForReady: true, timeout: 0 }).catch(() => {}),
      )
      await until('it is tried again', () => sockets.length >= 3)
      expect(sockets.filter(({ closed }) => !closed).length).toBeLessThanOrEqual(1)
      await client.close()
      await Promise.all(patient)
    })
  })

  describe('a stream that nobody reads', () => {
    it('does not hide that its connection is dead', async () => {
      const server = await FrameServer.start(muchOf(8 * MIB))
      const client = iipClient(server.port, { poller, ...one, maxChannelsPerConn: 2, maxUnreadBytes: 1000 })
      const seen = client.request('/never', 'x', NEVER).catch((error) => error)
      await server.asked('/never')
      client.stream('/much')
      await server.asked('/much')
      await until('what has come is there to be read', () => server.connections[0]!.socket.writableLength > 0)
      server.connections[0]!.socket.resetAndDestroy()
      expect(await seen).toMatchObject({ code: 'ERR_IIP_CLOSED', sent: true })
      expect(String(await client.request('/echo', 'after'))).toBe('after')
    })

    it('nor where the peer has ended it without a reset', async () => {
      const server = await FrameServer.start(muchOf(100_000))
      const client = iipClient(server.port, { poller, ...one, maxChannelsPerConn: 2, maxUnreadBytes: 1000 })
      const seen = client.request('/never', 'x', NEVER).catch((error) => error)
      await server.asked('/never')
      client.stream('/much')
      await server.asked('/much')
      const { socket } = server.connections[0]!
      await new Promise<void>((resolve) => socket.end(Buffer.from('.'), resolve))
      socket.destroy()
      expect(await seen).toMatchObject({ code: 'ERR_IIP_CLOSED', sent: true })
    })

    it('holds up no request that another connection can take', async () => {
      const server = await FrameServer.start(muchOf(MIB))
      const client = iipClient(server.port, { poller, maxConnections: 2, maxUnreadBytes: 1000 })
      const body = client.stream('/much')
      await server.asked('/much')
      await until(
        'its connection is not read',
        () => server.connections.length > 0 && client.connections === 1,
      )
      // It takes a moment until so much has come that the connection is not read.
      await until('another connection is made', async () => {
        await Promise.all(Array.from({ length: 3 }, () => client.request('/echo', 'x')))
        return server.connections.length === 2
      })
      const first = server.connections[0]!.of('/echo').length
      const answers = await Promise.all(Array.from({ length: 30 }, () => client.request('/echo', 'y')))
      expect([answers.length, server.connections[0]!.of('/echo').length]).toEqual([30, first])
      await body.return()
    })
  })

  describe('a server that does not read', () => {
    it('is left when nobody waits for it any more', async () => {
      const server = await FrameServer.start()
      const client = iipClient(server.port, { poller, ...one })
      expect(String(await client.request('/echo', 'x'))).toBe('x')
      server.connections[0]!.socket.pause()
      const big = client.request('/echo', Buffer.alloc(12 * MIB), { timeout: 100 })
      await expect(big).rejects.toMatchObject({ code: 'ERR_IIP_TIMEOUT' })
      expect(String(await client.request('/echo', 'after', { timeout: 5000 }))).toBe('after')
      await until('the first connection is closed', () => client.connections === 1)
    })
  })

  describe('a busy server', () => {
    it('gets another channel or connection before a request waits behind a slow one', async () => {
      const held: (() => void)[] = []
      const server = await FrameServer.start((asked, on) => {
        if (asked.path === '/slow') held.push(() => on.answer(asked))
        else on.answer(asked)
      })
      const client = iipClient(server.port, { poller, maxConnections: 2, maxChannelsPerConn: 2 })
      const slow = [1, 2].map(() => client.request('/slow', 'slow', NEVER))
      await server.asked('/slow', 2)
      expect(server.connections.length).toBe(1)
      expect(String(await client.request('/echo', 'fast', NEVER))).toBe('fast')
      expect(server.connections.length).toBe(2)
      for (const answer of held) answer()
      await Promise.all(slow)
    })
  })
})
