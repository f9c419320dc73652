/** WebSocket echo of binary messages: the plugin beside ws, and beside Bun.serve where Bun is installed. */
import { bunServer, nodeServer } from '../harness/contenders.js'
import type { Case, Exchange, Hello, Suite } from '../harness/suite.js'

const HELLO: Hello = {
  send: Buffer.from(
    [
      'GET /echo HTTP/1.1',
      'Host: 127.0.0.1',
      'Upgrade: websocket',
      'Connection: Upgrade',
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
      'Sec-WebSocket-Version: 13',
      '\r\n',
    ].join('\r\n'),
  ),
  until: Buffer.from('\r\n\r\n'),
}

const KEY = [0x37, 0xfa, 0x21, 0x3d]
const BINARY = 0x82
const MASKED = 0x80

/** A frame's length in the header, with the mask bit where it is a client's. */
function lengthBytes(length: number, maskBit: number): number[] {
  if (length < 126) return [length | maskBit]
  if (length <= 0xffff) return [126 | maskBit, length >>> 8, length & 0xff]
  return [
    127 | maskBit,
    0,
    0,
    0,
    0,
    length >>> 24,
    (length >>> 16) & 0xff,
    (length >>> 8) & 0xff,
    length & 0xff,
  ]
}

/** A masked frame, and the same one unmasked as its answer. */
function echoOf(length: number): Exchange {
  const payload = Buffer.from(Array.from({ length }, (_, i) => (i * 131) & 0xff))
  const masked = payload.map((byte, i) => byte ^ KEY[i & 3]!)
  return {
    request: Buffer.concat([Buffer.from([BINARY, ...lengthBytes(length, MASKED), ...KEY]), masked]),
    expect: Buffer.concat([Buffer.from([BINARY, ...lengthBytes(length, 0)]), payload]),
  }
}

function echo(name: string, bytes: number, connections: number, pipeline = 1): Case {
  return { name, connections, pipeline, exchange: echoOf(bytes), hello: HELLO }
}

export const websocket: Suite = {
  name: 'websocket',
  references: ['Bun', 'ws'],
  contenders: [
    nodeServer('native', 'websocket-native'),
    nodeServer('net', 'websocket-net'),
    nodeServer('ws', 'websocket-ws'),
    bunServer('Bun', 'websocket-bun'),
  ],
  cases: [
    echo('64 B, 100 connections', 64, 100),
    echo('64 B x 16 pipelined, 100 connections', 64, 100, 16),
    echo('4 KiB, 100 connections', 4096, 100),
    echo('64 KiB, 20 connections', 65_536, 20),
    { ...echo('idle memory, 12,000 connections', 64, 12_000), idle: true },
  ],
}
