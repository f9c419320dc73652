// HTTP in front of IIP: try curl -d hi localhost:9093/echo, or .../http_header_echo.   npm run example -- iip-http-adapter
import { Server } from 'ringloop'
import { httpHeaders, IipHttpAdapter, IipProtocol, IipRouter } from 'ringloop/iip'
import { exampleFlags, orExit } from './flags.js'

const { host, port, oneLoop } = exampleFlags({ port: 9093 })

const router = new IipRouter()
  .handle('/echo', ({ data }) => data)
  .handle('/http_header_echo', (request) => JSON.stringify(httpHeaders(request)))
const behind = new Server(router, {
  ...oneLoop(),
  address: '127.0.0.1:0',
  protocol: new IipProtocol(),
})
await orExit(behind.start())

const adapter = new IipHttpAdapter()
adapter.backend('local', { servers: `${behind.address}#1` })
for (const name of ['localhost', '127.0.0.1']) adapter.route(name, /^\/(echo|http_header)/, 'local')
const bound = await adapter.listen(port, host)
console.log(`listening on ${bound.address}:${bound.port}`)

async function end(): Promise<void> {
  await adapter.close()
  await behind.stop()
  process.exit(0)
}
process.once('SIGTERM', end)
process.once('SIGINT', end)
