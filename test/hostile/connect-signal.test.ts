/** `signal` on `connect`: before, while and after it connects; and loops that end by `Symbol.asyncDispose`. */
import { getEventListeners } from 'node:events'
import { type Connection, type ConnectOptions, EventLoop, LineProtocol, type RingloopError } from 'ringloop'
import { afterEach, describe, expect, it } from 'vitest'
import { openSockets } from '../support/descriptors.js'
import { Upstream } from '../support/half-closing-peer.js'
import { until, within } from '../support/wait.js'

type Options = ConnectOptions & { readonly signal?: unknown }

const loops: EventLoop[] = []
const upstreams: Upstream[] = []

afterEach(async () => {
  await Promise.all(loops.splice(0).map((loop) => loop.stop()))
  await Promise.all(upstreams.splice(0).map((upstream) => upstream.close()))
})

/** Speaks never, so that a client's handshake does not end. */
class Silent extends LineProtocol {
  readonly handshake = true
}

const reason = new Error('no longer wanted')

describe.each(['native', 'net'] as const)('%s', (poller) => {
  async function start(): Promise<{ loop: EventLoop; upstream: Upstream; address: string }> {
    const loop = new EventLoop({ poller, logger: false })
    loops.push(loop)
    const upstream = new Upstream((socket) => socket.pipe(socket))
    upstreams.push(upstream)
    return { loop, upstream, address: (await upstream.listen()) as string }
  }

  const told: string[] = []
  const handler = {
    onConnect: (): unknown => told.push('connect'),
    onMessage: (): void => {},
    onClose: (): unknown => told.push('close'),
  }

  function connect(loop: EventLoop, address: string, options: Partial<Options>): Promise<Connection> {
    told.length = 0
    const all: Options = { handler, ...options }
    return within('the connect', loop.connect(address, all))
  }

  async function expectAborted(connecting: Promise<Connection>): Promise<void> {
    const error = await connecting.then(
      () => undefined,
      (failed: RingloopError) => failed,
    )
    expect(error).toMatchObject({ code: 'ERR_RINGLOOP_CONNECT' })
    expect(error?.cause).toBe(reason)
  }

  it('that is aborted already: nothing is opened', async () => {
    const { loop, address, upstream } = await start()
    await expectAborted(connect(loop, address, { signal: AbortSignal.abort(reason) }))
    expect([...loop.connections]).toEqual([])
    expect(upstream.sockets).toEqual([])
    expect(told).toEqual([])
  })

  it('that is aborted in the same moment, or while the address is looked up', async () => {
    const { loop, address } = await start()
    for (const target of [address, address.replace('127.0.0.1', 'localhost')]) {
      const controller = new AbortController()
      const connecting = connect(loop, target, { signal: controller.signal })
      controller.abort(reason)
      await expectAborted(connecting)
      await until('nothing is left', () => [...loop.connections].length === 0)
      expect(told).toEqual([])
      expect(getEventListeners(controller.signal, 'abort')).toEqual([])
    }
  })

  it('that is aborted during the handshake: the peer sees the end', async () => {
    const { loop, address, upstream } = await start()
    const controller = new AbortController()
    const connecting = connect(loop, address, { signal: controller.signal, protocol: new Silent() })
    await until('the peer has it', () => upstream.sockets.length === 1)
    controller.abort(reason)
    await expectAborted(connecting)
    upstream.sockets[0]!.resume()
    await until(
      'the peer sees the end',
      () => upstream.sockets[0]!.readableEnded || upstream.sockets[0]!.destroyed,
    )
    expect([...loop.connections]).toEqual([])
    expect(told).toEqual([])
  })

  it('that is aborted later changes nothing, and is not listened to any more', async () => {
    const { loop, address } = await start()
    const controller = new AbortController()
    const all: Connection[] = []
    for (let i = 0; i < 20; i++) all.push(await connect(loop, address, { signal: controller.signal }))
    expect(getEventListeners(controller.signal, 'abort')).toEqual([])
    controller.abort(reason)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(all.every((c) => c.connected)).toBe(true)
    expect(told).toEqual(['connect'])
  })

  it('that is not listened to after a failed connect, and of a wrong type is refused', async () => {
    const { loop, address } = await start()
    const controller = new AbortController()
    const refused = connect(loop, '127.0.0.1:1', { signal: controller.signal })
    await expect(refused).rejects.toMatchObject({ code: 'ERR_RINGLOOP_CONNECT' })
    expect(getEventListeners(controller.signal, 'abort')).toEqual([])
    for (const signal of [5, 'abort', {}, new AbortController()]) {
      const wrong = Promise.resolve().then(() => connect(loop, address, { signal: signal as never }))
      await expect(wrong).rejects.toMatchObject({ code: 'ERR_RINGLOOP_OPTION' })
    }
  })

  it('a loop ends by Symbol.asyncDispose, and leaves no socket', async () => {
    const { address } = await start()
    const before = openSockets()
    const loop = new EventLoop({ poller, logger: false })
    loops.push(loop)
    const c = await connect(loop, address, {})
    const dispose = (loop as unknown as Record<symbol, () => Promise<void>>)[Symbol.asyncDispose]
    expect(dispose).toBeTypeOf('function')
    await dispose!.call(loop)
    expect(c.connected).toBe(false)
    expect(told).toEqual(['connect', 'close'])
    await expect(connect(loop, address, {})).rejects.toMatchObject({ code: 'ERR_RINGLOOP_CLOSED' })
    for (const upstream of upstreams) for (const socket of upstream.sockets) socket.destroy()
    await until('no socket is left', () => openSockets() <= before)
  })
})
