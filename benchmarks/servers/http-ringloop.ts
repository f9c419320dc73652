/** "Hello World" by the HTTP plugin on one loop in the main thread. */
import { Server } from 'ringloop'
import { HttpProtocol, httpHandler } from 'ringloop/http'
import { startRingloop } from './start-ringloop.js'

const server = new Server(
  httpHandler(() => 'Hello World'),
  { address: '127.0.0.1:0', backlog: 4096, protocol: new HttpProtocol() },
)
await startRingloop(server)
