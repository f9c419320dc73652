/** A protocol that hears of a draining loop, and keeps a connection until its peer has ended, or the time is over. */
import { describe, expect, it } from 'vitest'
import { type HostedServer, SHAPES } from '../support/hosted-server.js'
import type { RawClient } from '../support/raw-client.js'
import { hostedScene } from '../support/scene.js'
import { within } from '../support/wait.js'

const LONG = 60_000
const SHORT = 300
const DRAINING = 'draining\n'

const { serve, client } = hostedScene()

/** A client that has said one line, and has it back. */
async function asking(server: HostedServer, line: string): Promise<RawClient> {
  const one = await client(server)
  expect(String(await one.echo(`${line}\n`))).toBe(`${line}\n`)
  return one
}

describe.each(SHAPES)('$name', (shape) => {
  it('a connection that is kept is told, and answered until its peer ends it', async () => {
    const server = await serve('draining.mjs', shape)
    const [kept, other] = [await asking(server, 'stay'), await asking(server, 'go')]
    const stopped = server.ask('stop', LONG)
    await within('the end of the other', other.whenEnded())
    expect(other.text).toBe('go\n')
    expect(String(await within('the notice', kept.bytes(5 + DRAINING.length)))).toBe(`stay\n${DRAINING}`)
    for (let i = 0; i < 3; i++) expect(String(await kept.echo(`still ${i}\n`))).toBe(`still ${i}\n`)
    kept.socket.end('last\n')
    await within('the stop', stopped)
    expect(kept.text.endsWith('last\n')).toBe(true)
    expect(await server.told('closed', 2)).toMatchObject([
      { code: 'server-stopped' },
      { code: 'peer-closed' },
    ])
    expect(server.events('draining').length).toBe(2)
  })

  it('a kept connection closes from this side too', async () => {
    const server = await serve('draining.mjs', shape)
    const kept = await asking(server, 'stay')
    const stopped = server.ask('stop', LONG)
    await within('the notice', kept.bytes(5 + DRAINING.length))
    kept.write('quit\n')
    await within('the end', kept.whenEnded())
    await within('the stop', stopped)
  })

  it('a kept connection whose peer is silent ends with the time', async () => {
    const server = await serve('draining.mjs', shape)
    const kept = await asking(server, 'stay')
    await within('the stop', server.ask('stop', SHORT))
    await within('the end', kept.whenEnded())
    expect(await server.told('closed')).toMatchObject([{ code: 'server-stopped' }])
  })

  it('a kept connection ends with its peer, also where half of it could stay open', async () => {
    const server = await serve('draining.mjs', { ...shape, options: { allowHalfOpen: true } })
    const kept = await asking(server, 'stay')
    const stopped = server.ask('stop', LONG)
    await within('the notice', kept.bytes(5 + DRAINING.length))
    kept.socket.end()
    await within('the stop', stopped)
    expect(server.events('ended').length).toBe(1)
  })

  it('a protocol that fails at it loses that connection alone', async () => {
    const server = await serve('draining.mjs', shape)
    const [failing, kept] = [await asking(server, 'fail'), await asking(server, 'stay')]
    const stopped = server.ask('stop', LONG)
    await within('the end', failing.whenEnded())
    await within('the notice', kept.bytes(5 + DRAINING.length))
    expect(String(await kept.echo('still\n'))).toBe('still\n')
    kept.socket.end()
    await within('the stop', stopped)
    expect(await server.told('closed', 2)).toMatchObject([{ code: 'handler-error' }, { code: 'peer-closed' }])
  })

  it('nobody is told where there is no time to drain', async () => {
    const server = await serve('draining.mjs', shape)
    const one = await asking(server, 'stay')
    await within('the stop', server.ask('stop', 0))
    await within('the end', one.whenEnded())
    expect(server.events('draining')).toEqual([])
  })
})
