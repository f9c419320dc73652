/** The same echo over HTTP/2 without TLS, as a user of node:http2 writes it. */
import { createServer } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { ready } from './ready.js'

const server = createServer()
server.on('stream', (stream) => {
  const chunks: Buffer[] = []
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  stream.on('end', () => {
    stream.respond({ ':status': 200 })
    stream.end(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks))
  })
})
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
  const { address, port } = server.address() as AddressInfo
  ready(address, port)
})
