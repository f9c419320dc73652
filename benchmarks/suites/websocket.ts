/** WebSocket echo of binary messages: the plugin beside ws, and beside Bun.serve where Bun is installed. */
import { bunServer, nodeServer } from '../harness/contenders.js'
import type { Case, Exchange, Suite } from '../harness/suite.js'
import { BINARY, maskedFrame, plainFrame, UPGRADE } from '../harness/websocket-frames.js'

/** A masked frame, and the same one unmasked as its answer. */
function echoOf(length: number): Exchange {
  const payload = Buffer.from(Array.from({ length }, (_, i) => (i * 131) & 0xff))
  return { request: maskedFrame(BINARY, payload), expect: plainFrame(BINARY, payload) }
}

function echo(name: string, bytes: number, connections: number, pipeline = 1): Case {
  return { name, connections, pipeline, exchange: echoOf(bytes), hello: UPGRADE }
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
