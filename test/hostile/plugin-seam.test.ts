/** What a protocol may do with a connection beside its handler, where the peer does not wait: yield, and hold. */
import { describe, expect, it } from 'vitest'
import { type HostedServer, SHAPES } from '../support/hosted-server.js'
import type { RawClient } from '../support/raw-client.js'
import { hostedScene } from '../support/scene.js'
import { within } from '../support/wait.js'

const scene = hostedScene()
const { client } = scene

describe.each(SHAPES)('$name', (shape) => {
  const serve = (): Promise<HostedServer> => scene.serve('seam.mjs', shape)

  /** What comes back when all is said at once, with the end. */
  async function say(server: HostedServer, text: string): Promise<string> {
    const one = await client(server)
    one.socket.end(text)
    await within('the end', one.whenEnded())
    return one.text
  }

  it('a protocol that yields is called again without a byte, and the others are answered meanwhile', async () => {
    const server = await serve()
    const others: RawClient[] = []
    for (let i = 0; i < Math.max(1, shape.loops); i++) others.push(await client(server))
    const busy = await client(server)
    busy.write('work 1000\nafter\n')
    const times: number[] = []
    while (busy.length === 0 && !busy.ended) {
      for (const other of others) {
        const began = performance.now()
        expect(String(await within('an answer', other.echo('hello\n')))).toBe('hello\n')
        times.push(performance.now() - began)
      }
    }
    expect(String(await busy.bytes(18))).toBe('worked 1000\nafter\n')
    times.sort((a, b) => a - b)
    expect(times.length, 'answers to the others').toBeGreaterThan(10)
    expect(times[Math.floor(times.length / 2)], 'their median in ms').toBeLessThan(50)
  })

  it('a peer that has ended its side gets what came after a yield', async () => {
    const server = await serve()
    expect(await say(server, 'work 20\nafter\nwork 5\n')).toBe('worked 20\nafter\nworked 5\n')
    expect(await server.told('closed')).toMatchObject([{ code: 'peer-closed' }])
  })

  it('held packets wait, and so does the end of the peer', async () => {
    const server = await serve()
    expect(await say(server, 'hold 50\nafter\n')).toBe('held\nafter\n')
    expect(await say(server, 'hold-twice 50\nafter\n')).toBe('held 1\nheld 2\nafter\n')
    expect(await say(server, 'hold-end 50\nafter\n')).toBe('after\nlate\n')
    expect(await say(server, 'hold-end 100\nhold 20\nafter\n')).toBe('held\nafter\nlate\n')
    await server.told('closed', 4)
  })

  it('a hold does not keep a server that stops, nor a client that was reset', async () => {
    const server = await serve()
    const [gone, waiting] = [await client(server), await client(server)]
    gone.write('hold 3600000\n')
    waiting.write('hold-end 3600000\n')
    expect(String(await (await client(server)).echo('hello\n'))).toBe('hello\n')
    gone.reset()
    await server.told('closed', 1)
    await server.ask('stop', 0, 5000)
    await within('the end', waiting.whenEnded())
  })
})
