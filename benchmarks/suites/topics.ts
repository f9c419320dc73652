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

/**
 * Each connection subscribes to one of the topics. What it publishes to itself, on a topic of its own, comes back when it is
 * subscribed: were that one topic for all, what arrives late on another loop would reach the next.
 */
function joining(connections: number, topics: readonly string[]): Join {
  const lines = Array.from({ length: connections }, (_, i) => {
    const own = `own${String(i).padStart(5, '0')}`
    return [`sub ${topics[i % topics.length]}`, `sub ${own}`, `pub ${own} here`, `unsub ${own}`]
  })
  return { send: Buffer.concat(lines.flat().map(said)), until: Buffer.from(' here'), parts: connections }
}

function fanOut(connections: number, pipeline: number): Case {
  const at = pipeline === 1 ? '' : ` x ${pipeline} at once`
  return {
    name: `${BYTES} B${at}, ${connections.toLocaleString('en-US')} subscribers`,
    connections,
    pipeline,
    hello: UPGRADE,
    join: joining(connections, ['all']),
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
    join: joining(count * subscribers, names),
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
