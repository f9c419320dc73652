// IIP server: /echo and /echo_benchmark give the data back, /hello?name= greets.   npm run example -- iip-echo-server
import { isMainThread } from 'node:worker_threads'
import { Server } from 'ringloop'
import { IipProtocol, IipRouter } from 'ringloop/iip'
import { exampleFlags, serve } from './flags.js'

/** Each loop makes a router and a protocol of its own. */
const routes = (): IipRouter =>
  new IipRouter()
    .handle('/echo', ({ data }) => data)
    .handle('/echo_benchmark', ({ data }) => data)
    .handle('/hello', ({ query }) => `hello, ${query.get('name') ?? 'stranger'}`)

export default routes
export const protocol = (): IipProtocol => new IipProtocol()

if (isMainThread) {
  const { loops, options, oneLoop } = exampleFlags({ port: 9090 })
  await serve(
    loops === 1
      ? new Server(routes(), { ...oneLoop(), protocol: protocol() })
      : new Server(import.meta.url, options),
  )
}
