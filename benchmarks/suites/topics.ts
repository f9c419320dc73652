/**
 * Publish and subscribe over WebSocket: one publisher, many subscribers of one topic, of whom it is one. A message is one
 * delivery. A peer speaks what `examples/websocket-topics.ts` speaks.
 */
import { bunServer, exampleServer } from '../harness/contenders.js'
import type { Case, Join, Suite } from '../harness/suite.js'
import { maskedFrame, plainFrame, TEXT, UPGRADE } from '../harness/websocket-frames.js'

const BYTES = 64
const MESSAGE = 'all '.padEnd(BYTES, 'x')

function said(text: string): Buffer {
  return maskedFrame(TEXT, Buffer.from(text))
}

/** What it publishes to itself comes back when it is subscribed. */
const JOIN: Join = {
  send: Buffer.concat(['sub all', 'sub own', 'pub own here', 'unsub own'].map(said)),
  until: plainFrame(TEXT, Buffer.from('own here')),
}

function fanOut(connections: number, pipeline: number): Case {
  const at = pipeline === 1 ? '' : ` x ${pipeline} at once`
  return {
    name: `${BYTES} B${at}, ${connections.toLocaleString('en-US')} subscribers`,
    connections,
    pipeline,
    hello: UPGRADE,
    join: JOIN,
    fanOut: true,
    exchange: { request: said(`pub ${MESSAGE}`), expect: plainFrame(TEXT, Buffer.from(MESSAGE)) },
  }
}

export const topics: Suite = {
  name: 'topics',
  references: ['native', 'Bun'],
  contenders: [
    exampleServer('native', 'websocket-topics', '--poller', 'native'),
    exampleServer('2 loops', 'websocket-topics', '--poller', 'native', '--loops', '2'),
    exampleServer('net', 'websocket-topics', '--poller', 'net'),
    bunServer('Bun', 'topics-bun'),
  ],
  cases: [fanOut(1_000, 1), fanOut(1_000, 16), fanOut(10_000, 1), fanOut(10_000, 16)],
}
