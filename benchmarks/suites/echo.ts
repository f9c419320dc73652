/** Raw TCP echo: the reactor itself, without a protocol. */
import { compileC } from '../harness/compile.js'
import { nodeServer } from '../harness/contenders.js'
import type { Suite } from '../harness/suite.js'

export const echo: Suite = {
  name: 'echo',
  references: ['C', 'node:net'],
  contenders: [
    { name: 'C', prepare: () => compileC('echo-epoll') },
    nodeServer('native', 'ringloop-native'),
    nodeServer('borrow', 'ringloop-borrow'),
    nodeServer('net', 'ringloop-net'),
    nodeServer('node:net', 'node-net'),
  ],
  cases: [
    { name: '64 B, 100 connections', connections: 100, exchange: { bytes: 64 } },
    { name: '64 B, 1000 connections', connections: 1000, exchange: { bytes: 64 } },
    { name: '4 KiB, 100 connections', connections: 100, exchange: { bytes: 4096 } },
    { name: '64 KiB, 20 connections', connections: 20, exchange: { bytes: 65_536 } },
    { name: '64 B x 16 pipelined, 50 connections', connections: 50, pipeline: 16, exchange: { bytes: 64 } },
    { name: 'idle memory, 12,000 connections', connections: 12_000, exchange: { bytes: 64 }, idle: true },
  ],
}
