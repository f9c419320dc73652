/** "Hello World" by node:http, with the same fields in the answer and no others, so that all answers have one length. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { ready } from './ready.js'

const server = createServer((_request, response) => {
  response.removeHeader('Connection')
  response.writeHead(200, { 'Content-Type': 'text/plain;charset=utf-8', 'Content-Length': 11 })
  response.end('Hello World')
})
server.keepAliveTimeout = 0
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
  const { address, port } = server.address() as AddressInfo
  ready(address, port)
})
