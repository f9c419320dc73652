import { fstatSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { NetPoller } from '../src/loop/poller/net-poller.js'
import { COUNTED, type PollerOptions } from '../src/loop/poller/poller.js'
import { testPoller } from './poller.case.js'
import { connectRaw, type RawClient } from './support/raw-client.js'
import { Recorder } from './support/recorder.js'
import { until } from './support/wait.js'

testPoller('net', (sink, options) => new NetPoller(sink, options))

const SOCKET = { noDelay: true, keepAlive: 0 }
const LISTEN = { ...SOCKET, backlog: 128, reusePort: false, park: false }
/** The first bytes of a ClientHello. */
const HELLO = '\x16\x03\x01\x02\x00\x01'

const ends: (() => void)[] = []

afterEach(() => {
  for (const end of ends.splice(0)) end()
})

function makePoller(options: PollerOptions = {}): { poller: NetPoller; sink: Recorder } {
  const sink = new Recorder()
  const poller = new NetPoller(sink, options)
  ends.push(() => poller.destroy())
  return { poller, sink }
}

async function listening(
  options: PollerOptions,
): Promise<{ poller: NetPoller; sink: Recorder; connect: () => Promise<RawClient> }> {
  const made = makePoller({ tls: {}, ...options })
  const { endpoint } = await made.poller.listen({ host: '127.0.0.1', port: 0 }, LISTEN)
  const connect = async (): Promise<RawClient> => {
    const client = await connectRaw(endpoint as { port: number })
    ends.push(() => client.destroy())
    return client
  }
  return { ...made, connect }
}

describe('net: sockets whose TLS handshake is under way', () => {
  it('are asked for before it begins, and closed at once where they may not come in', async () => {
    const { sink, connect } = await listening({})
    sink.mayEnter = () => sink.admitted < 2
    const clients = await Promise.all(Array.from({ length: 5 }, connect))
    await until('three are closed', () => clients.filter((each) => each.ended || each.closed).length === 3)
    expect(sink.admitted).toBe(2)
    expect(sink.log).toEqual([])
  })

  it('are closed and lost when their time is over, silent or not', async () => {
    const { sink, connect } = await listening({ handshakeTimeout: 300 })
    const [silent, slow] = [await connect(), await connect()]
    let sent = 0
    const trickle = setInterval(() => slow.write(HELLO[sent++ % HELLO.length]!), 50)
    ends.push(() => clearInterval(trickle))
    await until('both are closed', () => silent.ended && (slow.ended || slow.closed))
    await until('both are lost', () => sink.count(`lost ${COUNTED}`) === 2)
    expect(sink.log).toHaveLength(2)
  })

  it('may take for ever with a handshakeTimeout of 0', async () => {
    const { sink, connect } = await listening({ handshakeTimeout: 0 })
    const [first, other] = [await connect(), await connect()]
    await new Promise((resolve) => setTimeout(resolve, 100))
    other.socket.end(HELLO)
    await until('who leaves is lost', () => sink.has(`lost ${COUNTED}`))
    expect(first.ended).toBe(false)
  })

  it('are closed and lost with the poller', async () => {
    const { poller, sink, connect } = await listening({})
    const client = await connect()
    await until('it has come', () => sink.admitted === 1)
    poller.destroy()
    await client.whenEnded()
    await until('it is lost', () => sink.has(`lost ${COUNTED}`))
  })
})

describe('net: a descriptor of another thread', () => {
  function openFile(): number {
    const folder = mkdtempSync(path.join(tmpdir(), 'ringloop-'))
    ends.push(() => rmSync(folder, { recursive: true }))
    writeFileSync(path.join(folder, 'file'), '')
    return openSync(path.join(folder, 'file'), 'r')
  }

  it('that is no socket is closed and lost', () => {
    const { poller, sink } = makePoller()
    const fd = openFile()
    poller.adoptDescriptor(fd, SOCKET)
    expect(() => fstatSync(fd)).toThrow('EBADF')
    poller.adoptDescriptor(fd, SOCKET)
    expect(sink.log).toEqual([`lost ${COUNTED}`, `lost ${COUNTED}`])
  })
})
