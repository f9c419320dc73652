/**
 * The same echo as requests of IIP, of HTTP/1.1 with keep-alive and of HTTP/2, each as its users send them: with as many
 * requests on their way, over as many connections as the protocol needs for that.
 */
import { nodeServer } from '../harness/contenders.js'
import { script } from '../harness/paths.js'
import type { Case, Suite } from '../harness/suite.js'

const REQUEST = 1
const RESPONSE = 5
const NEW_CHANNEL = '/sys/new_channel'

function packet(status: number, path: string, channel: number, data: Buffer): Buffer {
  const head = Buffer.alloc(10 + path.length)
  head[0] = status
  head.write(path, 1)
  head.writeUInt32BE(channel, path.length + 2)
  head.writeUInt32BE(data.length, path.length + 6)
  return Buffer.concat([head, data])
}

const open = packet(REQUEST, NEW_CHANNEL, 0, Buffer.from('{}'))
const opened = packet(RESPONSE, NEW_CHANNEL, 0, Buffer.from('{"code":0,"channel_id":1}'))

/** `inFlight` requests on each of `channels` channels, sent together. */
function iipCase(name: string, bytes: number, connections: number, channels: number, inFlight: number): Case {
  const count = channels * inFlight
  const data = Buffer.alloc(bytes, 'The quick brown fox jumps over the lazy dog. ')
  const all = (status: number): Buffer =>
    Buffer.concat(Array.from({ length: count }, (_, i) => packet(status, '/echo', 1 + (i % channels), data)))
  const hello = Buffer.concat(Array.from({ length: channels }, () => open))
  return {
    name,
    connections,
    hello: { send: hello, replyBytes: channels * opened.length },
    exchange: { request: all(REQUEST), expect: all(RESPONSE), countsAs: count },
  }
}

/** What a case says, for the protocols that say it otherwise. */
interface Traffic {
  readonly bytes: number
  readonly connections: number
  readonly atOnce: number
}

const TRAFFIC = new Map<string, Traffic>()

function traffic(bytes: number, connections: number, channels: number, inFlight: number): Case {
  const name =
    channels * inFlight === 1
      ? `${bytes} B, ${connections} connection${connections === 1 ? '' : 's'}`
      : `${bytes} B, ${connections} connection x ${channels} channels x ${inFlight} in flight`
  TRAFFIC.set(name, { bytes, connections, atOnce: channels * inFlight })
  return iipCase(name, bytes, connections, channels, inFlight)
}

/** A connection for each request on its way: nobody pipelines HTTP/1.1. */
function overHttp1({ name }: Case): Case {
  const { bytes, connections, atOnce } = TRAFFIC.get(name)!
  const body = 'x'.repeat(bytes)
  const request = `POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${bytes}\r\n\r\n${body}`
  const answer = [
    'HTTP/1.1 200 OK\r\nContent-Length: ',
    `${bytes}\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n${body}`,
  ].join('')
  const exchange = { request: Buffer.from(request), replyBytes: answer.length }
  return { name, connections: connections * atOnce, exchange }
}

/** A stream for each. */
function overHttp2({ name }: Case): Case {
  const { bytes, connections, atOnce } = TRAFFIC.get(name)!
  return { name, connections, pipeline: atOnce, exchange: { bytes } }
}

export const iip: Suite = {
  name: 'iip',
  references: ['node:http', 'node:http2'],
  contenders: [
    nodeServer('native', 'iip-native'),
    nodeServer('net', 'iip-net'),
    { ...nodeServer('node:http', 'iip-http1'), variant: overHttp1 },
    {
      ...nodeServer('node:http2', 'iip-http2'),
      variant: overHttp2,
      client: { file: process.execPath, args: [script('http2-client')] },
    },
  ],
  cases: [traffic(100, 1, 8, 8), traffic(14_410, 8, 1, 1), traffic(100, 1, 1, 1)],
}
