// Echo: what arrives goes back, from a loop per core.   npm run example -- echo   then: nc 127.0.0.1 1833
import { availableParallelism } from 'node:os'
import { isMainThread } from 'node:worker_threads'
import { type Handler, RawProtocol, Server } from 'ringloop'
import { exampleFlags, serve } from './flags.js'

const echo: Handler = {
  onMessage: (_c, _ctx, data) => data,
}

/** Each loop's thread imports this very file and takes its handler from here. */
export default echo

/** Echo answers at once and keeps nothing: a view of the loop's memory will do instead of a copy. */
export const protocol: RawProtocol = new RawProtocol({ borrow: true })

if (isMainThread) {
  const { loops, options, oneLoop } = exampleFlags({ loops: availableParallelism() })
  await serve(
    loops === 1 ? new Server(echo, { ...oneLoop(), protocol }) : new Server(import.meta.url, options),
  )
}
