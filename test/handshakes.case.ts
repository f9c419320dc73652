/** What every poller must do with sockets whose TLS handshake is under way: one suite, called with each of them. */
import { afterEach, describe, expect, it } from 'vitest'
import { COUNTED, type Poller, type PollerOptions, type PollerSink } from '../src/loop/poller/poller.js'
import { connectRaw, type RawClient } from './support/raw-client.js'
import { Recorder } from './support/recorder.js'
import { until } from './support/wait.js'

const LISTEN = { noDelay: true, keepAlive: 0, backlog: 128, reusePort: false, park: false }
/** The first bytes of a ClientHello. */
const HELLO = '\x16\x03\x01\x02\x00\x01'

export function testHandshakes(
  name: string,
  create: (sink: PollerSink, options: PollerOptions) => Poller,
): void {
  const ends: (() => void)[] = []

  afterEach(() => {
    for (const end of ends.splice(0)) end()
  })

  async function listening(
    options: PollerOptions,
  ): Promise<{ poller: Poller; sink: Recorder; connect: () => Promise<RawClient> }> {
    const sink = new Recorder()
    const poller = create(sink, { tls: {}, ...options })
    ends.push(() => poller.destroy())
    const { endpoint } = await poller.listen({ host: '127.0.0.1', port: 0 }, LISTEN)
    const connect = async (): Promise<RawClient> => {
      const client = await connectRaw(endpoint as { port: number })
      ends.push(() => client.destroy())
      return client
    }
    return { poller, sink, connect }
  }

  describe(`${name}: sockets whose TLS handshake is under way`, () => {
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
      expect(sink.failures).toEqual(['late', 'late'])
    })

    it('may take for ever with a handshakeTimeout of 0', async () => {
      const { sink, connect } = await listening({ handshakeTimeout: 0 })
      const [first, other] = [await connect(), await connect()]
      await new Promise((resolve) => setTimeout(resolve, 100))
      other.socket.end(HELLO)
      await until('who leaves is lost', () => sink.has(`lost ${COUNTED}`))
      expect(first.ended).toBe(false)
    })

    it('are no more than may be, and who comes then is closed', async () => {
      const { sink, connect } = await listening({ tls: { maxHandshakes: 2 } })
      const clients = await Promise.all(Array.from({ length: 5 }, connect))
      await until('three are closed', () => clients.filter((each) => each.ended || each.closed).length === 3)
      await until('they are counted', () => sink.failures.length === 3)
      expect([sink.admitted, ...sink.failures]).toEqual([2, 'too-many', 'too-many', 'too-many'])
    })

    it('are closed and lost with the poller', async () => {
      const { poller, sink, connect } = await listening({})
      const client = await connect()
      await until('it has come', () => sink.admitted === 1)
      poller.destroy()
      await client.whenEnded()
      await until('it is lost', () => sink.has(`lost ${COUNTED}`))
      expect(sink.failures).toEqual([])
    })
  })
}
