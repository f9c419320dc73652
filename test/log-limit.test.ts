/** Lines of a log that peers cause are few, whatever the peers do. */
import { afterEach, describe, expect, it, vi } from 'vitest'
import { LogLimit } from '../src/log-limit.js'
import { HttpProtocol, httpHandler } from '../src/plugins/http/index.js'
import { type FakeLoop, fakeLoop } from './support/fake-loop.js'
import { frames, LengthProtocol } from './support/length-protocol.js'
import { until } from './support/wait.js'
import { Client, closeFrame, echo, open, request, serve as serveWebSocket } from './support/websocket.js'

afterEach(() => {
  vi.restoreAllMocks()
})

describe('a limit of log lines', () => {
  it('lets one of each kind through in a second, and counts those left out', () => {
    const limit = new LogLimit()
    expect(limit.admit('a', 0)).toBe(0)
    expect(limit.admit('b', 0)).toBe(0)
    for (let i = 1; i <= 99; i++) expect(limit.admit('a', 10 * i)).toBeUndefined()
    expect(limit.admit('a', 1000)).toBe(99)
    expect(limit.admit('a', 1999)).toBeUndefined()
    expect(limit.admit('b', 5000)).toBe(0)
    expect(limit.admit('a', 5000)).toBe(1)
  })

  it('takes kinds without end for one, and forgets those of a second ago', () => {
    const limit = new LogLimit()
    let lines = 0
    for (let i = 0; i < 10_000; i++) if (limit.admit(`kind ${i}`, 0) !== undefined) lines++
    expect(lines).toBe(65)
    expect(limit.admit('kind 0', 500)).toBeUndefined()
    expect(limit.admit('another', 1000)).toBe(0)
    expect(limit.admit('kind 5000', 1000)).toBe(0)
    for (let i = 0; i < 62; i++) limit.admit(`later ${i}`, 1000)
    expect(limit.admit('one too many', 1000)).toBe(10_000 - 65 + 1)
  })

  it('takes errors of one message for one kind, whatever was thrown', () => {
    const limit = new LogLimit()
    vi.spyOn(performance, 'now').mockReturnValue(0)
    expect(limit.admitError('onMessage', new Error('a'))).toBe(0)
    expect(limit.admitError('onMessage', new Error('a'))).toBeUndefined()
    expect(limit.admitError('onMessage', new Error('b'))).toBe(0)
    expect(limit.admitError('onEnd', new Error('a'))).toBe(0)
    for (const odd of ['a', undefined, null, Symbol('a'), Object.create(null)]) limit.admitError('odd', odd)
  })

  it('looks only at the beginning of a long message', () => {
    const limit = new LogLimit()
    vi.spyOn(performance, 'now').mockReturnValue(0)
    const beginning = 'x'.repeat(1000)
    expect(limit.admitError('onMessage', new Error(`${beginning}1`))).toBe(0)
    expect(limit.admitError('onMessage', new Error(`${beginning}2`))).toBeUndefined()
  })
})

it('peers that break the protocol cannot fill the log', async () => {
  const fake = await fakeLoop({ onMessage: () => {} }, { protocol: new LengthProtocol() })
  const tooLong = Buffer.alloc(4, 0xff)
  const offend = (): void => {
    const { socket } = fake.accept()
    socket.read(tooLong)
  }
  for (let i = 0; i < 100; i++) offend()
  expect(fake.logger.find('info', 'the peer broke the protocol')).toHaveLength(1)
  vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 1000)
  offend()
  const [, last] = fake.logger.find('info', 'the peer broke the protocol')
  expect(last!.fields).toMatchObject({ leftOut: 99 })
})

describe('clients that make the same callback fail cannot fill the log', () => {
  const CLIENTS = 50

  async function expectOneLine(fake: FakeLoop, text: string, fail: () => void): Promise<void> {
    const areGone = (): boolean => fake.poller.all.every((socket) => socket.closed !== undefined)
    for (let i = 0; i < CLIENTS; i++) fail()
    await until('all are closed', areGone)
    expect(fake.logger.find('error', text)).toHaveLength(1)
    vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 2000)
    fail()
    await until('the last is closed', areGone)
    const lines = fake.logger.find('error', text)
    expect(lines).toHaveLength(2)
    expect(lines[1]!.fields).toMatchObject({ leftOut: CLIENTS - 1 })
  }

  const refuse = (): never => {
    throw new Error('no')
  }

  it.each([
    ['onMessage', { onMessage: refuse }],
    ['a promise of onMessage', { onMessage: async () => refuse() }],
    ['onConnect', { onConnect: refuse, onMessage: () => {} }],
    ['onClose', { onMessage: () => {}, onClose: refuse }],
  ])('%s', async (_name, handler) => {
    const fake = await fakeLoop(handler, { protocol: new LengthProtocol() })
    await expectOneLine(fake, ' failed', () => {
      const { socket } = fake.accept()
      socket.read(frames('x'))
      socket.end()
    })
  })

  it('a hook of the WebSocket handshake', async () => {
    for (const verify of [refuse, async () => refuse()]) {
      const fake = await serveWebSocket(echo, { verify })
      await expectOneLine(fake, 'hook', () => void new Client(fake).read(request()))
      vi.restoreAllMocks()
    }
  })

  it('the body of an HTTP answer', async () => {
    const answer = async function* (): AsyncGenerator<string> {
      yield 'a'
      refuse()
    }
    const fake = await fakeLoop(httpHandler(answer), { protocol: new HttpProtocol() })
    await expectOneLine(fake, 'the body of an answer failed', () => {
      fake.accept().socket.read('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    })
  })
})

it('close frames with whatever wrong code are one kind', async () => {
  const { fake } = await open()
  for (let code = 0; code < 100; code++) new Client(fake).read(request(), closeFrame(code))
  expect(fake.logger.find('info', 'the peer broke the protocol')).toHaveLength(1)
})
