/** A connection whose bytes are not whole where it ends: its peer sees a reset, whatever has ended it. */
import { expect, it } from 'vitest'
import type { ProtocolConnection } from '../src/connection.js'
import { HttpProtocol, httpHandler } from '../src/plugins/http/index.js'
import { fakeLoop, settle } from './support/fake-loop.js'

it.each<[string, (c: ProtocolConnection) => void]>([
  ['closed', (c) => c.close()],
  ['aborted', (c) => c.abort()],
  ['closed by an error', (c) => c.close(new Error('no'))],
])('is reset when it is %s, and what is unsent is dropped', async (_name, end) => {
  const fake = await fakeLoop({ onMessage: () => {} })
  const { socket, c } = fake.accept()
  c.endsWithReset = true
  expect(c.endsWithReset).toBe(true)
  c.sendRaw(Buffer.from('half'))
  end(c)
  await settle()
  expect([socket.closed, String(socket.out)]).toEqual(['reset', ''])
  expect(fake.poller.violations).toEqual([])
})

it('is reset when its peer ends, and when the loop stops', async () => {
  const fake = await fakeLoop({ onMessage: () => {} })
  const [ended, stopped] = [fake.accept(), fake.accept()]
  for (const { c } of [ended, stopped]) c.endsWithReset = true
  ended.socket.end()
  await settle()
  expect(ended.socket.closed).toBe('reset')
  await fake.loop.stop()
  expect(stopped.socket.closed).toBe('reset')
})

it('ends as ever once its bytes are whole', async () => {
  const fake = await fakeLoop({ onMessage: () => {} })
  const { socket, c } = fake.accept()
  c.endsWithReset = true
  c.sendRaw(Buffer.from('half'))
  c.endsWithReset = false
  c.close()
  await settle()
  expect(socket.closed).toBe('lingering')
})

it('is what a streamed body makes of it that fails at once, and has no other end', async () => {
  async function* failing(): AsyncGenerator<string> {
    yield 'abc'
    throw new Error('broken')
  }
  const fake = await fakeLoop(httpHandler(failing), { protocol: new HttpProtocol() })
  const [old, latest] = [fake.accept(), fake.accept()]
  old.socket.read('GET / HTTP/1.0\r\n\r\n')
  latest.socket.read('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  await settle()
  expect([old.socket.closed, latest.socket.closed]).toEqual(['reset', 'lingering'])
})
