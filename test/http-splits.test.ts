/** However the bytes of requests are split, the HTTP plugin sees the same requests: checked on the protocol alone. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { ProtocolConnection } from '../src/connection.js'
import { HttpError } from '../src/http1/head.js'
import { HttpProtocol } from '../src/plugins/http/http-protocol.js'
import type { HttpOutput } from '../src/plugins/http/response.js'
import { RingBuffer } from '../src/ringbuffer/ring-buffer.js'
import { packetsOf } from './support/pieces.js'

const OPTIONS = { maxHeaderBytes: 300, maxHeaders: 6, maxBodyBytes: 60 }

/** As much of a connection as the protocol touches. */
function fakeConnection(): ProtocolConnection<HttpOutput> {
  const timer = { active: true, unref: () => timer, stop() {}, restart() {} }
  const loop = { runEvery: () => timer, connections: [] }
  return {
    session: undefined,
    loop,
    close() {},
    sendRaw: () => true,
  } as unknown as ProtocolConnection<HttpOutput>
}

/** Requests as lines, ended by the status of what was refused. */
function read(stream: Buffer, cuts: readonly number[], capacity: number): string[] {
  const protocol = new HttpProtocol(OPTIONS)
  const c = fakeConnection()
  protocol.onConnect(c)
  const ring = new RingBuffer(capacity)
  const target = Buffer.alloc(1000)
  const seen: string[] = []
  try {
    for (const { ctx, data } of packetsOf(protocol, c, ring, stream, cuts)) {
      seen.push(`${ctx.method} ${ctx.target} ${JSON.stringify([...ctx.headers])} ${data.toString('latin1')}`)
      expect(protocol.packetInto(c, 'ok', ctx, target, 0)).toBeGreaterThan(0)
    }
  } catch (error) {
    if (!(error instanceof HttpError)) throw error
    return [...seen, String(error.status)]
  }
  return seen
}

/** Whole, cut as said, and byte by byte. */
function expectSameFor(stream: Buffer, cuts: readonly number[]): void {
  const whole = read(stream, [], 4096)
  const everywhere = Array.from(stream, (_, i) => i)
  expect(read(stream, cuts, 32)).toEqual(whole)
  expect(read(stream, everywhere, 16)).toEqual(whole)
}

const hex = (size: number): string => size.toString(16)
const chunk = (text: string, extension: string): string => `${hex(text.length)}${extension}\r\n${text}\r\n`

const text = fc.string({
  unit: fc.constantFrom('a', '\r', '\n', '0', 'GET / HTTP/1.1\r\n\r\n'),
  maxLength: 8,
})
const extension = fc.constantFrom('', '', ';a', ';a=b;c="d"', ' ', ';\n')
const chunks = fc
  .array(
    fc.tuple(
      text.filter((t) => t.length > 0),
      extension,
    ),
    { maxLength: 4 },
  )
  .map((all) => all.map(([body, ext]) => chunk(body, ext)).join(''))
const trailers = fc.constantFrom('', '', 'A: b\r\n', 'A: b\r\nC: d\r\n', 'bad\r\n', ' fold: x\r\n')

const request = fc.oneof(
  fc.constant('GET /a HTTP/1.1\r\nHost: x\r\n\r\n'),
  fc.constant('GET /a HTTP/1.1\r\nHost: x\r\n\r\n'),
  fc.constant('\r\nHEAD /?q HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n'),
  text.map((body) => `PUT /b HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`),
  fc
    .tuple(chunks, trailers)
    .map(
      ([body, end]) =>
        `POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${body}0\r\n${end}\r\n`,
    ),
  fc.constantFrom(
    'POST / HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET / HTTP/1.1\r\n\r\n',
    'PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 61\r\n\r\n',
    `GET / HTTP/1.1\r\nHost: x\r\nA: ${'b'.repeat(300)}\r\n\r\n`,
  ),
)

describe('a stream of requests', () => {
  it('gives the same requests and the same refusal for every split', () => {
    fc.assert(
      fc.property(
        fc.array(request, { minLength: 1, maxLength: 6 }),
        fc.array(fc.nat(), { maxLength: 10 }),
        (requests, cuts) => {
          const stream = Buffer.from(requests.join(''), 'latin1')
          expectSameFor(stream, cuts)
        },
      ),
      { numRuns: 300 },
    )
  })

  it('gives the same however it is split where bytes are changed, and never anything but a refusal', () => {
    const change = fc.tuple(fc.nat(), fc.oneof(fc.constantFrom(0, 9, 10, 13, 32, 44, 58, 59), fc.nat(255)))
    fc.assert(
      fc.property(
        fc.array(request, { minLength: 1, maxLength: 4 }),
        fc.array(change, { minLength: 1, maxLength: 4 }),
        fc.array(fc.nat(), { maxLength: 10 }),
        (requests, changes, cuts) => {
          // More than any head or body may take, so that nothing is left waiting for its end.
          const stream = Buffer.from(`${requests.join('')}${'x'.repeat(400)}`, 'latin1')
          for (const [at, byte] of changes) stream[at % stream.length] = byte
          expectSameFor(stream, cuts)
        },
      ),
      { numRuns: 500 },
    )
  })
})
