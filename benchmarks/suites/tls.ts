/** TLS: echo on the native poller beside the other one, node:tls and Bun; and WebSocket beside Bun. */
import { compileTlsClient } from '../harness/compile.js'
import { bunServer, nodeServer } from '../harness/contenders.js'
import { makeCredentials } from '../harness/credentials.js'
import type { Case, Contender, Suite } from '../harness/suite.js'
import { websocket } from './websocket.js'

function secure(contender: Contender): Contender {
  const client = compileTlsClient()
  if ('skip' in client) return { ...contender, prepare: () => client }
  const prepare: Contender['prepare'] = () => {
    const problem = makeCredentials()
    return problem === undefined ? contender.prepare() : { skip: problem }
  }
  return { ...contender, client, prepare }
}

/** The cases of WebSocket without TLS, over it. */
export const wss: Suite = {
  name: 'wss',
  references: ['Bun'],
  contenders: [nodeServer('native', 'wss-native'), bunServer('Bun', 'wss-bun')].map(secure),
  cases: websocket.cases.filter((each) => each.idle !== true),
}

function echo(name: string, bytes: number, connections: number, pipeline = 1): Case {
  return { name, connections, pipeline, exchange: { bytes } }
}

export const tls: Suite = {
  name: 'tls',
  references: ['Bun', 'node:tls'],
  contenders: [
    nodeServer('native', 'tls-native'),
    nodeServer('net', 'tls-net'),
    nodeServer('node:tls', 'tls-node'),
    bunServer('Bun', 'tls-bun'),
  ].map(secure),
  cases: [
    echo('64 B, 100 connections', 64, 100),
    echo('4 KiB, 100 connections', 4096, 100),
    echo('64 KiB, 20 connections', 65_536, 20),
    echo('64 B x 16 pipelined, 50 connections', 64, 50, 16),
    { ...echo('idle memory, 4,000 connections', 64, 4_000), idle: true },
  ],
}
