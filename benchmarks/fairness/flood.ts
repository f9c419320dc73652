/**
 * The flooding program: does to a server what `--flood` says until its standard input ends. It gives way to the server
 * and the witness (nice 19), so that what is measured is the server's fairness and not the scheduler's.
 */
import { connect, type Socket } from 'node:net'
import { setPriority } from 'node:os'
import { parseArgs } from 'node:util'
import { constants, deflateRawSync } from 'node:zlib'
import { floodCalled } from './floods.js'

const NICE = 19
const KIB = 1024
const CHUNK = 64 * KIB
const PIPELINED = 100_000
const PATIENCE_MS = 100
const LEAVERS_PER_SECOND = 1000
const NO_BYTES: Buffer = Buffer.alloc(0)

const { values } = parseArgs({
  options: {
    flood: { type: 'string', default: 'lines' },
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string' },
  },
})

function repeat(piece: Uint8Array | string, bytes: number): Buffer {
  const one = Buffer.from(piece as string)
  return Buffer.concat(Array.from({ length: Math.max(1, Math.floor(bytes / one.length)) }, () => one))
}

function open(): Socket {
  const socket = connect({ host: values.host, port: Number(values.port), noDelay: true, allowHalfOpen: true })
  socket.on('error', (error) => console.error(error.message))
  return socket
}

/** Writes the chunk for ever, as fast as the socket takes it. */
function pour(socket: Socket, chunk: Buffer): void {
  const go = (): void => {
    if (socket.destroyed) return
    while (socket.write(chunk));
  }
  socket.on('drain', go)
  go()
}

/** Sends the same bytes for ever and reads the answers away. */
function pourAndRead(chunk: Buffer): void {
  const socket = open()
  socket.resume()
  pour(socket, chunk)
}

/** Asks once and reads the answer, which has no end, as fast as it comes. */
function drink(request: string): void {
  const socket = open()
  socket.resume()
  socket.write(request)
}

/** Asks so much at once, and reads nothing of the answers. */
function askAndNotRead(): void {
  const socket = open()
  socket.pause()
  socket.write(repeat('GET / HTTP/1.1\r\nHost: flood\r\n\r\n', PIPELINED * 31))
  setTimeout(() => {
    socket.destroy()
    askAndNotRead()
  }, PATIENCE_MS)
}

/** Clients that ask something slow and end their side at once. */
function leave(perSecond: number): void {
  setInterval(() => {
    for (let i = 0; i < perSecond / 100; i++) open().resume().end('slow\n')
  }, 10)
}

const UPGRADE = [
  'GET / HTTP/1.1',
  'Host: flood',
  'Upgrade: websocket',
  'Connection: Upgrade',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover',
]

/** A binary frame of the compressed bytes, masked with zeros. */
function deflated(bytes: Uint8Array): Buffer {
  const all = deflateRawSync(bytes, { level: 9, finishFlush: constants.Z_SYNC_FLUSH })
  const payload = all.subarray(0, all.length - 4)
  if (payload.length > 125) throw new Error(`${payload.length} bytes do not fit into a short frame`)
  return Buffer.concat([Buffer.from([0xc2, 0x80 | payload.length, 0, 0, 0, 0]), payload])
}

function pourFrames(frame: Buffer, first: Buffer = NO_BYTES): void {
  const socket = open()
  socket.write(`${UPGRADE.join('\r\n')}\r\n\r\n`)
  socket.once('data', (head: Buffer) => {
    if (!head.toString('latin1').includes('permessage-deflate')) throw new Error(`refused: ${head}`)
    socket.write(first)
    socket.resume()
    pour(socket, repeat(frame, CHUNK))
  })
}

/** A body without end, in chunks of so many bytes. */
function upload(bytes: number): void {
  const socket = open()
  socket.resume()
  socket.write('POST /upload HTTP/1.1\r\nHost: flood\r\nTransfer-Encoding: chunked\r\n\r\n')
  pour(socket, repeat(`${bytes.toString(16)}\r\n${'.'.repeat(bytes)}\r\n`, CHUNK))
}

const stream = (bytes: number) => (): void => drink(`GET /stream/${bytes} HTTP/1.1\r\nHost: flood\r\n\r\n`)

const ACTS: Readonly<Record<string, () => void>> = {
  lines: () => pourAndRead(repeat('hello\n', CHUNK)),
  promises: () => pourAndRead(repeat('later\n', CHUNK)),
  leavers: () => leave(LEAVERS_PER_SECOND),
  drained: () => drink('flow\n'),
  'writes-64k': () => pourAndRead(repeat('.', 64 * KIB)),
  'stream-1': stream(1),
  'stream-1k': stream(KIB),
  'stream-64k': stream(64 * KIB),
  pipelined: askAndNotRead,
  upload: () => upload(6),
  chunks: () => upload(1),
  'inflate-64k': () => pourFrames(deflated(Buffer.alloc(64 * KIB))),
  'inflate-1': () => pourFrames(deflated(Buffer.from('.'))),
  pings: () => pourFrames(Buffer.from([0x89, 0x80, 0, 0, 0, 0])),
  'empty-parts': () => pourFrames(Buffer.from([0, 0x80, 0, 0, 0, 0]), Buffer.from([2, 0x80, 0, 0, 0, 0])),
}

setPriority(NICE)
process.stdin.on('end', () => process.exit(0)).resume()
const flood = floodCalled(values.flood)
for (let i = 0; i < flood.connections; i++) ACTS[flood.name]!()
console.log('flooding')
