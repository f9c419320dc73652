/** Threads that are started and ended again and again in the middle of their work: no abort, nothing left behind. */
import { Server } from 'ringloop'
import { afterEach, describe, expect, it } from 'vitest'
import { type Child, fixture, fixtureUrl, startChild } from './support/child.js'
import { openSockets } from './support/descriptors.js'
import { connectRaw } from './support/raw-client.js'
import { until, within } from './support/wait.js'

const COMMANDS = fixtureUrl('commands.mjs')
const POLLERS = ['native', 'net'] as const

const children: Child[] = []

afterEach(() => {
  for (const child of children.splice(0)) child.kill()
})

describe('workers under load', () => {
  /** Starts a server, floods it, and stops it, which terminates its threads, in the middle of that. */
  async function startAndTerminate(poller: (typeof POLLERS)[number], round: number): Promise<void> {
    const numLoops = 1 + (round % 2)
    const server = new Server(COMMANDS, { address: '127.0.0.1:0', poller, numLoops, logger: false })
    await within('the start', server.start())
    const list = await Promise.all(Array.from({ length: 6 }, () => connectRaw({ port: server.address.port })))
    const flood = Buffer.alloc(20_000)
    for (const { socket } of list) {
      const more = (): void => {
        if (socket.writable) socket.write(flood, more)
      }
      more()
    }
    if (round % 3 > 0) await list[round % list.length]!.bytes(round % 3)
    await within('stop', server.stop())
    for (const client of list) client.destroy()
  }

  it('60 rounds of start, traffic and stop leave no socket behind', { timeout: 120_000 }, async () => {
    const before = openSockets()
    for (let round = 0; round < 30; round++) {
      await Promise.all(POLLERS.map((poller) => startAndTerminate(poller, round)))
    }
    await until('every socket is closed', () => openSockets() <= before)
  })

  it('100 loops that die while they publish leave no descriptor and no memory behind', {
    timeout: 240_000,
  }, async () => {
    const child = startChild(fixture('publishing-rounds.mjs'), { args: ['50'] })
    children.push(child)
    const [descriptors, bytes] = (await child.line('left', 230_000)).split(' ').map(Number)
    expect(await child.exit()).toEqual({ code: 0, signal: null })
    expect(descriptors).toBeLessThanOrEqual(0)
    // Of letters alone twenty times as much has been on its way.
    expect(bytes).toBeLessThan(60 * 1024 * 1024)
  })

  it('100 rounds of Worker.terminate() under load: no abort, no leak', { timeout: 120_000 }, async () => {
    const child = startChild(fixture('terminate-rounds.mjs'), { args: ['100'] })
    children.push(child)
    const sockets = await child.line('sockets', 100_000)
    expect(await child.exit()).toEqual({ code: 0, signal: null })
    const [before, after] = sockets.split(' ').map(Number)
    expect(after).toBeLessThanOrEqual(before!)
  })
})
