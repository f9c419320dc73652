// A process with nothing else to do ended while its closed socket lingered, and the system reset it: its last bytes were lost.
import { once } from 'node:events'
import net from 'node:net'
import { afterEach, expect, it } from 'vitest'
import { type Child, fixture, startChild } from '../support/child.js'
import { until, within } from '../support/wait.js'

let child: Child | undefined
let peer: net.Socket | undefined
let server: net.Server | undefined

afterEach(() => {
  child?.kill()
  peer?.destroy()
  server?.close()
})

for (const poller of ['native', 'net']) {
  it(`${poller}: a process that has closed its last connection lets the peer read`, async () => {
    server = net.createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as net.AddressInfo
    child = startChild(fixture('client-that-ends.mjs'), { args: [poller, String(port)] })
    const [socket] = (await within('a connection', once(server, 'connection'))) as [net.Socket]
    peer = socket
    let failure: Error | undefined
    let [length, ended] = [0, false]
    socket.on('error', (error) => {
      failure = error
    })
    await child.line('connected')
    const sent = new Promise<void>((resolve) => socket.write(Buffer.alloc(100_000), () => resolve()))
    await within('what nobody reads to be sent', sent)
    child.say('close')
    await child.line('closed')
    socket.on('data', (data: Buffer) => {
      length += data.length
    })
    socket.on('end', () => {
      ended = true
    })
    await until('it is over', () => ended || failure !== undefined)
    expect({ length, failure }).toEqual({ length: 200_000, failure: undefined })
    expect(await child.exit()).toEqual({ code: 0, signal: null })
  })
}
