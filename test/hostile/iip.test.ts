/** Streams of IIP whose other side is gone: they end, their sources with them, and nobody else waits. */
import { once } from 'node:events'
import net from 'node:net'
import { expect, it } from 'vitest'
import { encodePacket, IipClient } from '../../src/plugins/iip/index.js'
import { type HostedServer, SHAPES } from '../support/hosted-server.js'
import { hostedScene } from '../support/scene.js'
import { within } from '../support/wait.js'

const REQUEST = 1

const { serve, client } = hostedScene()

/** On channel 0, which every connection has. */
const request = (path: string, data: string): Buffer => encodePacket(REQUEST, path, 0, Buffer.from(data))

async function expectEcho(server: HostedServer): Promise<void> {
  const other = await client(server)
  other.write(request('/echo', 'hello'))
  const answer = await within('another’s answer', other.bytes(10))
  expect(String(answer)).toContain('hello')
}

for (const shape of SHAPES) {
  it(`${shape.name}: a stream whose peer is gone ends`, async () => {
    const server = await serve('iip.mjs', shape)
    for (const how of ['reset', 'destroy'] as const) {
      const told = server.events('source-ended').length
      const leaver = await client(server)
      leaver.write(request('/endless', 'x'))
      await leaver.bytes(100_000)
      leaver[how]()
      await expectEcho(server)
      await server.told('source-ended', told + 1)
    }
  })

  it(`${shape.name}: a source that goes on without a byte keeps nobody waiting`, async () => {
    const server = await serve('iip.mjs', shape)
    const asker = await client(server)
    asker.write(request('/empty', 'x'))
    for (let i = 0; i < 5; i++) await expectEcho(server)
  })

  it(`${shape.name}: a stream whose peer does not read, and is gone then, ends`, async () => {
    const server = await serve('iip.mjs', shape)
    const leaver = await client(server)
    leaver.socket.pause()
    leaver.write(request('/endless', 'x'))
    await expectEcho(server)
    leaver.reset()
    await server.told('source-ended', 1)
    await expectEcho(server)
  })

  it(`${shape.name}: a stream without end that its client leaves ends, and the client goes on`, async () => {
    const server = await serve('iip.mjs', shape)
    const asker = new IipClient({
      address: `127.0.0.1:${server.port}`,
      poller: shape.poller,
      connectTimeout: 1000,
      logger: false,
    })
    try {
      for await (const chunk of asker.stream('/endless')) {
        expect(chunk.length).toBeGreaterThan(0)
        break
      }
      await server.told('source-ended', 1)
      for (let i = 0; i < 5; i++) expect(String(await asker.request('/echo', `${i}`))).toBe(`${i}`)
      expect(asker.pending).toBe(0)
    } finally {
      await asker.close()
    }
  })

  it(`${shape.name}: an upload without end to a server that is gone fails`, async () => {
    const upstream = net.createServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => setImmediate(() => socket.resetAndDestroy()))
    })
    upstream.listen(0, '127.0.0.1')
    await once(upstream, 'listening')
    const { port } = upstream.address() as net.AddressInfo
    const server = await serve('iip.mjs', shape)
    const one = await client(server)
    one.write(request('/upload', `127.0.0.1:${port}`))
    await expectEcho(server)
    upstream.close()
    await within('the end of the upload', one.bytes(20))
    expect(one.text).toContain('failed: ERR_IIP')
    await expectEcho(server)
  })
}
