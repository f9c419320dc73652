/** The option `receiveBuffer`: what the kernel keeps of a connection that is not read, and where it cannot be had. */
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { Server, type ServerOptions } from '../src/index.js'
import { SHAPES } from './support/hosted-server.js'
import { hostedScene } from './support/scene.js'
import { until } from './support/wait.js'

const KIB = 1024
const { serve, client } = hostedScene()

/** Bytes that have come to the TCP socket on `port` from `peerPort`, and were not read (Linux). */
function unread(port: number, peerPort: number): number {
  const hex = (value: number): string => value.toString(16).toUpperCase().padStart(4, '0')
  for (const line of readFileSync('/proc/net/tcp', 'latin1').split('\n')) {
    const [, local, peer, , queues] = line.trim().split(/\s+/)
    if (local?.endsWith(`:${hex(port)}`) && peer?.endsWith(`:${hex(peerPort)}`)) {
      return Number.parseInt(queues!.split(':')[1]!, 16)
    }
  }
  return 0
}

describe.skipIf(process.platform !== 'linux')('receiveBuffer', () => {
  it.each(SHAPES.filter(({ name }) => name !== 'net, here'))('bounds what is kept: $name', async (shape) => {
    for (const receiveBuffer of [4 * KIB, undefined]) {
      const server = await serve('paused.mjs', { ...shape, options: { receiveBuffer } })
      const one = await client(server)
      one.write(Buffer.alloc(1024 * KIB))
      const kept = (): number => unread(server.port, one.socket.localPort!)
      if (receiveBuffer === undefined) {
        await until('much is kept', () => kept() > 16 * KIB)
      } else {
        await until('something is kept', () => kept() > 0)
        for (let i = 0; i < 20; i++) await (await client(server)).socket.end()
        expect(kept()).toBeLessThan(16 * KIB)
      }
    }
  })
})

it.each<[string, ServerOptions]>([
  ['where Node listens', { poller: 'net' }],
  ['for a unix socket', { address: { path: 'receive-buffer.sock' } }],
])('is refused %s', async (_where, options) => {
  const server = new Server(
    { onMessage() {} },
    { address: '127.0.0.1:0', ...options, receiveBuffer: 4096, logger: false },
  )
  await expect(server.start()).rejects.toMatchObject({ code: 'ERR_RINGLOOP_OPTION' })
})

it.each([0, -1, 1.5, '4096', 2 ** 31, Number.POSITIVE_INFINITY])('is refused as %s', async (value) => {
  const server = new Server({ onMessage() {} }, { receiveBuffer: value as number, logger: false })
  await expect(server.start()).rejects.toMatchObject({ code: 'ERR_RINGLOOP_OPTION' })
})
