/** The same echo over HTTP/1.1 with keep-alive, as a user of node:http writes it. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { ready } from './ready.js'

const server = createServer((request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => {
    const body = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)
    response.writeHead(200, { 'Content-Length': body.length })
    response.end(body)
  })
})
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
  const { address, port } = server.address() as AddressInfo
  ready(address, port)
})
