// Echo: what arrives goes back, from a loop per core.   npm run example -- echo   then: nc 127.0.0.1 1833
import { availableParallelism } from 'node:os'
import { isMainThread } from 'node:worker_threads'
import { type Handler, Server } from 'ringloop'
import { exampleFlags, serve } from './flags.js'

const echo: Handler = {
  onMessage: (_c, _ctx, data) => data,
}

/** Each loop's thread imports this very file and takes its handler from here. */
export default echo

if (isMainThread) {
  const flags = exampleFlags({ loops: availableParallelism() })
  const handler = flags.loops === 1 ? echo : import.meta.url
  await serve(new Server(handler, flags.options))
}
