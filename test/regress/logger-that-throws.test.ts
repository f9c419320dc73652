// What a logger threw escaped from the loop: the connection that had failed was never closed.
import { type Handler, Server } from 'ringloop'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { fixtureUrl } from '../support/child.js'
import { connectRaw, type RawClient } from '../support/raw-client.js'
import { until, within } from '../support/wait.js'

function refuse(): never {
  throw new Error('the disk is full')
}

const logger = { debug: refuse, info: refuse, warn: refuse, error: refuse }
const clients: RawClient[] = []
let server: Server | undefined

afterEach(async () => {
  vi.restoreAllMocks()
  for (const client of clients.splice(0)) client.destroy()
  await within('the stop', server!.stop())
})

async function connect(): Promise<RawClient> {
  const client = await connectRaw({ port: server!.address.port })
  clients.push(client)
  return client
}

describe('a logger that throws', () => {
  for (const poller of ['native', 'net'] as const) {
    it(`${poller}, one loop here: the failing connection is closed once, others go on`, async () => {
      const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
      const onClose = vi.fn()
      const handler: Handler = {
        onMessage: (_c, _ctx, data) => {
          if (String(data) === 'throw') throw new Error('a handler’s own')
          return data
        },
        onClose,
      }
      server = new Server(handler, { address: '127.0.0.1:0', poller, logger })
      await within('the start', server.start())
      const other = await connect()
      await other.echo('x')
      const failing = await connect()
      failing.write('throw')
      await failing.whenEnded()
      await until('onClose was called', () => onClose.mock.calls.length > 0)
      expect(String(await other.echo('alive'))).toBe('alive')
      expect(onClose).toHaveBeenCalledTimes(1)
      expect(warned).toHaveBeenCalledWith(expect.stringContaining('the disk is full'))
    })
  }

  it('may also reject later', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const reject = async (): Promise<void> => refuse()
    const handler: Handler = {
      onMessage: () => {
        throw new Error('a handler’s own')
      },
    }
    const rejecting = { debug: reject, info: reject, warn: reject, error: reject }
    server = new Server(handler, { address: '127.0.0.1:0', logger: rejecting })
    await within('the start', server.start())
    const failing = await connect()
    failing.write('x')
    await failing.whenEnded()
    await until('it is said', () => warned.mock.calls.length > 0)
    expect(warned).toHaveBeenCalledWith(expect.stringContaining('the disk is full'))
  })

  it('with loop threads: a loop that dies is replaced all the same', async () => {
    vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    server = new Server(fixtureUrl('commands.mjs'), { address: '127.0.0.1:0', numLoops: 1, logger })
    await within('the start', server.start())
    const failing = await connect()
    failing.write('throw')
    await failing.whenEnded()
    const crashing = await connect()
    crashing.write('crash')
    await crashing.whenEnded()
    expect(String(await (await connect()).echo('replaced'))).toBe('replaced')
  })
})
