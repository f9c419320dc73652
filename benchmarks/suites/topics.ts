/**
 * Publish and subscribe over WebSocket: one publisher, and many subscribers, of whom it is one, of one topic or spread over
 * many. A message is one delivery. A peer speaks what `examples/websocket-topics.ts` speaks.
 */
import { bunServer, exampleServer } from '../harness/contenders.js'
import type { Case, Join, Suite } from '../harness/suite.js'
import { maskedFrame, plainFrame, TEXT, UPGRADE } from '../harness/websocket-frames.js'

const BYTES = 64

function messageTo(topic: string): string {
  return `${topic} `.padEnd(BYTES, 'x')
}

function said(text: string): Buffer {
  return maskedFrame(TEXT, Buffer.from(text))
}

function heard(text: string): Buffer {
  return plainFrame(TEXT, Buffer.from(text))
}

/** One part for each topic. What a connection publishes to itself comes back when it is subscribed. */
function joining(topics: readonly string[]): Join {
  const parts = topics.flatMap((topic) => [`sub ${topic}`, 'sub own', 'pub own here', 'unsub own'])
  return { send: Buffer.concat(parts.map(said)), until: heard('own here') }
}

function fanOut(connections: number, pipeline: number): Case {
  const at = pipeline === 1 ? '' : ` x ${pipeline} at once`
  return {
    name: `${BYTES} B${at}, ${connections.toLocaleString('en-US')} subscribers`,
    connections,
    pipeline,
    hello: UPGRADE,
    join: joining(['all']),
    fanOut: true,
    exchange: { request: said(`pub ${messageTo('all')}`), expect: heard(messageTo('all')) },
  }
}

/** One message to each topic, all at once. */
function manyTopics(count: number, subscribers: number): Case {
  const names = Array.from({ length: count }, (_, i) => `t${String(i).padStart(3, '0')}`)
  return {
    name: `${BYTES} B, ${count} topics x ${subscribers} subscribers`,
    connections: count * subscribers,
    hello: UPGRADE,
    join: joining(names),
    fanOut: true,
    groups: count,
    exchange: {
      request: Buffer.concat(names.map((name) => said(`pub ${messageTo(name)}`))),
      expect: Buffer.concat(names.map((name) => heard(messageTo(name)))),
    },
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
  cases: [fanOut(1_000, 1), fanOut(1_000, 16), fanOut(10_000, 1), fanOut(10_000, 16), manyTopics(320, 32)],
}
