/** The echo server that a careful user of node:tls writes: as node-net.ts. */
import type { AddressInfo } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { credentials } from '../harness/credentials.js'
import { ready } from './ready.js'

function onData(this: TLSSocket, data: Buffer): void {
  if (!this.write(data)) this.pause()
}

function onDrain(this: TLSSocket): void {
  this.resume()
}

function onError(this: TLSSocket): void {
  this.destroy()
}

const server = createServer({ ...credentials(), noDelay: true }, (socket) => {
  socket.on('data', onData).on('drain', onDrain).on('error', onError)
})
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
  const { address, port } = server.address() as AddressInfo
  ready(address, port)
})
