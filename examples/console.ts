// Console: an echo server with a page that shows its loops; --load N adds N clients.   npm run example -- console --load 100   then: open http://127.0.0.1:1389
import { availableParallelism } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { isMainThread } from 'node:worker_threads'
import { EventLoop, FixedLengthProtocol, type Handler, Server } from 'ringloop'
import { console as webConsole } from 'ringloop/console'
import { exampleFlags, serve } from './flags.js'

const MESSAGE = Buffer.alloc(64, 'ringloop')
const BURST_MS = 20
const WAVE_MS = 40_000

const echo: Handler = {
  onMessage: (_c, _ctx, data) => data,
}

export default echo
export const protocol: FixedLengthProtocol = new FixedLengthProtocol({ length: MESSAGE.length })

/** Comes and goes, and sends bursts that swell and shrink. */
async function beClient(loop: EventLoop, port: number): Promise<never> {
  for (;;) {
    await sleep(8_000 * Math.random())
    const c = await loop.connect({ port }, { handler: { onMessage() {} }, protocol })
    const bursts = loop.runEvery(BURST_MS, () => {
      const wave = 1 + Math.sin((2 * Math.PI * performance.now()) / WAVE_MS)
      for (let i = 30 * wave * Math.random(); i > 0; i--) c.send(MESSAGE)
    })
    await sleep(30_000 * Math.random())
    bursts.stop()
    c.close()
  }
}

if (isMainThread) {
  const flags = exampleFlags({ loops: availableParallelism(), console: 1389, load: 0 })
  const page = webConsole({ address: { port: flags.console } })
  const server = new Server(import.meta.url, flags.options).use(page)
  await serve(server)
  console.log(`console at http://${page.address}`)
  const loop = new EventLoop()
  const { port } = server.address
  // A client that finds no server any more has done its work.
  for (let i = 0; i < flags.load; i++) beClient(loop, port).catch(() => {})
}
