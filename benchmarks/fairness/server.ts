/** The server that is flooded: one of `services/`, by the poller that was asked for. */
import { parseArgs } from 'node:util'
import { type PollerOption, Server } from 'ringloop'
import { startRingloop } from '../servers/start-ringloop.js'

const { values } = parseArgs({
  options: {
    service: { type: 'string', default: 'lines' },
    poller: { type: 'string', default: 'auto' },
    loops: { type: 'string', default: '1' },
  },
})

const module = new URL(`./services/${values.service}.js`, import.meta.url)
const numLoops = Number(values.loops)
const options = { address: '127.0.0.1:0', poller: values.poller as PollerOption, logger: 'error' } as const

// One loop serves in the main thread, so that its processor time is the process's own.
if (numLoops === 1) {
  const { default: handler, protocol } = await import(module.href)
  await startRingloop(new Server(handler, { ...options, protocol }))
} else {
  await startRingloop(new Server(module, { ...options, numLoops }))
}
