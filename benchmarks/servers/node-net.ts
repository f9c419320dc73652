/**
 * The echo server that a careful user of node:net writes: no closures per connection, and it stops reading
 * from a peer that does not read.
 */
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { ready } from './ready.js'

function onData(this: Socket, data: Buffer): void {
  if (!this.write(data)) this.pause()
}

function onDrain(this: Socket): void {
  this.resume()
}

function onError(this: Socket): void {
  this.destroy()
}

const server = createServer({ noDelay: true }, (socket) => {
  socket.on('data', onData).on('drain', onDrain).on('error', onError)
})
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
  const { address, port } = server.address() as AddressInfo
  ready(address, port)
})
