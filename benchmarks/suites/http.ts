/** HTTP/1.1 "Hello World": the HTTP plugin beside node:http, and beside Bun where it is installed. */
import { bunServer, nodeServer } from '../harness/contenders.js'
import type { Case, Suite } from '../harness/suite.js'

const REQUEST = Buffer.from(
  'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\nAccept: */*\r\n\r\n',
)
/** All contenders answer with these fields, in an order of their own. */
const REPLY_BYTES = [
  'HTTP/1.1 200 OK\r\n',
  'Content-Type: text/plain;charset=utf-8\r\n',
  'Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n',
  'Content-Length: 11\r\n\r\nHello World',
].join('').length

function hello(connections: number, pipeline: number): Case {
  const piped = pipeline === 1 ? '' : ` x ${pipeline} pipelined`
  const exchange = { request: REQUEST, replyBytes: REPLY_BYTES }
  return { name: `Hello World${piped}, ${connections} connections`, connections, pipeline, exchange }
}

export const http: Suite = {
  name: 'http',
  references: ['node:http', 'Bun'],
  contenders: [
    nodeServer('ringloop', 'http-ringloop'),
    nodeServer('node:http', 'http-node'),
    bunServer('Bun', 'http-bun'),
  ],
  cases: [hello(100, 1), hello(100, 10), hello(1000, 1)],
}
