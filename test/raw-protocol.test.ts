/** The default protocol, with copies and with views. */
import { describe, expect, it } from 'vitest'
import { RawProtocol } from '../src/protocol/raw.js'
import { fakeLoop } from './support/fake-loop.js'

const kept: Buffer[] = []
const echo = {
  onMessage: (_c: unknown, _ctx: unknown, data: Buffer): Buffer => {
    kept.push(data)
    return data
  },
}

describe('RawProtocol', () => {
  it('hands over copies that stay as they are', async () => {
    const fake = await fakeLoop(echo, { protocol: new RawProtocol() })
    const { socket } = fake.accept()
    kept.length = 0
    socket.read('hello')
    expect(kept[0]!.toString()).toBe('hello')
    expect(socket.out.toString()).toBe('hello')
  })

  it('with borrow hands over views, and what is returned is sent all the same', async () => {
    const fake = await fakeLoop(echo, { protocol: new RawProtocol({ borrow: true }) })
    const { socket } = fake.accept()
    kept.length = 0
    socket.read('hello')
    expect(socket.out.toString()).toBe('hello')
    // The fake poller overwrites its memory after each read, as the real one does with the next.
    expect(kept[0]!.toString()).not.toBe('hello')
  })

  it('with borrow an answer that the kernel does not take at once is kept', async () => {
    const fake = await fakeLoop(echo, { protocol: new RawProtocol({ borrow: true }) })
    const { socket } = fake.accept()
    let room = 2
    socket.room = (offered) => {
      const taken = Math.min(room, offered)
      room -= taken
      return taken
    }
    socket.read('hello')
    room = 100
    socket.drain()
    expect(socket.out.toString()).toBe('hello')
  })
})
