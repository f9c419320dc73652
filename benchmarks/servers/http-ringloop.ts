/** "Hello World" by the HTTP plugin on one loop in the main thread. */
import { Server } from 'ringloop'
import { HttpProtocol, httpHandler } from 'ringloop/http'
import { ready } from './ready.js'

const server = new Server(
  httpHandler(() => 'Hello World'),
  { address: '127.0.0.1:0', backlog: 4096, protocol: new HttpProtocol() },
)
await server.start()
ready(server.address.host, server.address.port)
