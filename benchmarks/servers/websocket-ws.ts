/** WebSocket echo with ws, as its own benchmark does it. */
import type { AddressInfo } from 'node:net'
import { type RawData, type WebSocket, WebSocketServer } from 'ws'
import { ready } from './ready.js'

function onMessage(this: WebSocket, data: RawData, binary: boolean): void {
  this.send(data, { binary })
}

const options = { host: '127.0.0.1', port: 0, backlog: 4096, perMessageDeflate: false, clientTracking: false }
const server = new WebSocketServer(options, () => {
  const { address, port } = server.address() as AddressInfo
  ready(address, port)
})
server.on('connection', (socket) => {
  socket.on('message', onMessage).on('error', () => {})
})
