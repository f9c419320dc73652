import { fstatSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { NetPoller } from '../src/loop/poller/net-poller.js'
import { COUNTED, type PollerOptions } from '../src/loop/poller/poller.js'
import { testHandshakes } from './handshakes.case.js'
import { testPoller } from './poller.case.js'
import { Recorder } from './support/recorder.js'

testPoller('net', (sink, options) => new NetPoller(sink, options))
testHandshakes('net', (sink, options) => new NetPoller(sink, options))

const SOCKET = { noDelay: true, keepAlive: 0 }

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
