/** Requests that an IIP client could not send: of the two sides of a connection only this one has broken yet. */
import { afterEach, expect, it } from 'vitest'
import { IipClient } from '../src/plugins/iip/index.js'
import { errno } from '../src/system-error.js'
import type { FakeSocket } from './fake-poller.js'
import { atEnd, endAll, frame } from './iip-support.js'
import { fakeLoop } from './support/fake-loop.js'
import { rounds, until, within } from './support/wait.js'

afterEach(endAll)

/** A client whose one connection has answered a request, and breaks at the next write. */
async function aboutToBreak() {
  const { loop, poller } = await fakeLoop({ onMessage() {} })
  const client = new IipClient({
    address: '127.0.0.1:1',
    loop,
    maxConnections: 1,
    maxChannelsPerConn: 1,
    timeout: 0,
  })
  atEnd(() => loop.stop())
  atEnd(() => client.close())
  const connected = async (index: number): Promise<FakeSocket> => {
    await until('it connects', () => poller.all.length > index)
    const socket = poller.all[index]!
    poller.finishConnect(socket)
    await until('it asks for a channel', () => socket.out.includes('/sys/new_channel'))
    socket.read(frame(5, '/sys/new_channel', 0, '{"code":0,"channel_id":1}'))
    return socket
  }
  const first = client.request('/first')
  const broken = await connected(0)
  await until('it is asked', () => broken.out.includes('/first'))
  broken.read(frame(5, '/first', 1, 'one'))
  expect(String(await first)).toBe('one')
  broken.room = () => errno.EPIPE
  return { client, poller, broken, connected }
}

it.each([1, 2])(
  'a request whose source has given %i chunks when its connection is at its end rejects',
  async (count) => {
    const { client, broken } = await aboutToBreak()
    if (count === 2) broken.room = (offered) => offered
    async function* chunks(): AsyncGenerator<string> {
      for (let i = 0; i < count; i++) {
        if (i === 1) {
          broken.room = () => errno.EPIPE
          await rounds()
        }
        yield `${i}`
      }
      await new Promise(() => {})
    }
    const lost = client.request('/lost').catch((error) => error)
    await rounds()
    const upload = client.request('/upload', chunks()).catch((error) => error)
    await rounds()
    broken.reset()
    expect(await within('its end', upload)).toMatchObject({ code: 'ERR_IIP_CLOSED' })
    expect(await lost).toMatchObject({ code: 'ERR_IIP_CLOSED', sent: true })
    expect(client.pending).toBe(0)
  },
)

it('a request of which no byte was sent takes another connection; one that may have been sent rejects', async () => {
  const { client, poller, connected } = await aboutToBreak()
  const lost = client.request('/lost').catch((error) => error)
  await rounds()
  const moved = client.request('/moved')
  const next = await connected(1)
  expect(await lost).toMatchObject({ code: 'ERR_IIP_CLOSED', sent: true })
  await until('it is asked there', () => next.out.includes('/moved'))
  next.read(frame(5, '/moved', 1, 'two'))
  expect(String(await moved)).toBe('two')
  expect(next.out.includes('/lost')).toBe(false)
  expect([client.pending, client.connections, poller.violations]).toEqual([0, 1, []])
})
