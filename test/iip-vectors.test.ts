/** The captured bytes of the Go implementation, replayed: against our server, against our client, and by the encoder. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { Server } from '../src/index.js'
import {
  encodePacket,
  IipClient,
  IipFailure,
  IipProtocol,
  IipRouter,
  type PathHandler,
} from '../src/plugins/iip/index.js'
import { Peer } from './example-process.js'

interface Vector {
  readonly name: string
  readonly direction: string
  readonly hex: string
  readonly meaning: string
  readonly truncated?: boolean
  readonly totalBytes?: number
}

const vectors = JSON.parse(
  readFileSync(new URL('data/iip-vectors.json', import.meta.url), 'utf8'),
) as readonly Vector[]

/** Vectors by what stands before the slash in their names. */
const scenarios = new Map<string, Vector[]>()
for (const vector of vectors) {
  const name = vector.name.split('/', 1)[0]!
  scenarios.set(name, [...(scenarios.get(name) ?? []), vector])
}

const HEADER_TAIL = Buffer.from('00000000010000000178', 'hex')

/** The bytes; of a long path, whose vector is cut, the whole. */
function bytesOf({ hex, truncated, totalBytes = 0 }: Vector): Buffer {
  const bytes = Buffer.from(hex, 'hex')
  if (truncated !== true) return bytes
  return Buffer.concat([
    bytes,
    Buffer.alloc(totalBytes - bytes.length - HEADER_TAIL.length, bytes.at(-1)),
    HEADER_TAIL,
  ])
}

const echo: PathHandler = ({ data }) => data
const HANDLERS: Record<string, PathHandler> = {
  '/echo': echo,
  '/echo_full': echo,
  '/partial': ({ data }) => JSON.stringify({ len: data.length, done: true }),
  '/err': ({ data }) => {
    throw new IipFailure(`boom "${data}"`)
  },
  '/panic': () => Promise.reject('no error, just a value'),
  '/empty': () => undefined,
  '/params': ({ data, path, query }) => {
    const values: Record<string, string[]> = {}
    for (const [key, value] of query) values[key] = [...(values[key] ?? []), value]
    return JSON.stringify({ len: data.length, path, query: values })
  },
  '/size': ({ query }) => Buffer.alloc(Number(query.get('n')), 'x'),
  '/sleep': async ({ data, query }) => {
    await sleep(Number(query.get('ms')))
    return data
  },
  '/http_header_echo': ({ query }) => Buffer.from(query.get('__http_hdr__') ?? '', 'base64url').toString(),
}

/** Where we differ on purpose: what comes instead, or why there is nothing to replay. */
const ANSWER_WITHOUT_QUERY =
  'an answer names the decoded path of the first packet, however many packets there were'
const ONE_ANSWER = 'a request has one answer: nothing is sent before it is whole'
const PATH_LIMIT = 'a path over 2048 bytes is refused when it comes, not only when it is answered'

const DIFFERENT: Record<string, { why: string; answers?: readonly string[]; closes?: boolean }> = {
  go_split_request: {
    why: ANSWER_WITHOUT_QUERY,
    answers: [hexOf(5, '/echo_full', 1, 'abcdefghijklmnopqrstuvwxyz')],
  },
  probe_split_request_path_changes: { why: ANSWER_WITHOUT_QUERY, answers: [hexOf(5, '/echo_full', 1, 'AB')] },
  probe_split_request_example_echo: { why: ONE_ANSWER, answers: [hexOf(5, '/echo', 1, 'part1-part2-part3')] },
  probe_split_request_cumulative: {
    why: ONE_ANSWER,
    answers: [hexOf(5, '/partial', 1, '{"len":10,"done":true}')],
  },
  probe_path_percent_nul: {
    why: '%00 does not put a NUL into the answer',
    answers: [hexOf(5, '/a%00b', 1, '{"code":102,"message":"handle error"}')],
  },
  go_timeout_late: {
    why: 'a peer that only ended its side still gets its answers',
    answers: [hexOf(5, '/sleep', 1, 'late')],
  },
  probe_path_2049: { why: PATH_LIMIT, closes: true },
  probe_path_500K: { why: PATH_LIMIT, closes: true },
  probe_http_get: {
    why: 'a letter is no status: closed at once, where Go waits for the end of the path',
    closes: true,
  },
}

/** Other tests replay these: they need files, or statistics whose figures vary, or measure 16 MiB. */
const ELSEWHERE = ['example_file', 'example_upload', 'go_path_count', 'probe_big_response_over_16M', 'encode']

function hexOf(status: number, path: string, channel: number, data: string): string {
  return encodePacket(status, path, channel, Buffer.from(data)).toString('hex')
}

const endings: (() => unknown)[] = []
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end()
})

async function serve(): Promise<number> {
  const router = new IipRouter()
  for (const [path, handler] of Object.entries(HANDLERS)) router.handle(path, handler)
  const server = new Server(router, { address: '127.0.0.1:0', protocol: new IipProtocol(), logger: false })
  await server.start()
  endings.push(() => server.stop())
  return server.address.port
}

async function connect(port: number): Promise<Peer> {
  const peer = await Peer.connect(port)
  endings.push(() => peer.socket.destroy())
  return peer
}

/** The answers of a scenario are a sequence per step; those of different channels may come in any order. */
function replaySteps(name: string): Vector[] {
  const steps = scenarios.get(name)!
  const different = DIFFERENT[name]
  if (different === undefined) return steps
  const asked = steps.filter(({ direction }) => direction === 'c2s')
  const opening = steps.filter(({ hex }) => hex.includes('2f7379732f6e65775f6368616e6e656c'))
  const answers = (different.answers ?? []).map((hex) => ({ name, direction: 's2c', hex, meaning: '' }))
  const end = different.closes === true ? [{ name, direction: 's2c-close', hex: '', meaning: '' }] : []
  return [...opening, ...asked.filter((step) => !opening.includes(step)), ...answers, ...end]
}

describe('our server answers what was sent to the Go server with the same bytes', () => {
  const names = [...scenarios.keys()].filter((name) => /^(go|probe|http_adapter)_/.test(name))
  it.each(names.filter((name) => !ELSEWHERE.includes(name)))('%s', async (name) => {
    const peer = await connect(await serve())
    let expected = Buffer.alloc(0)
    for (const step of replaySteps(name)) {
      if (step.direction === 'c2s') {
        if (name === 'probe_byte_by_byte') for (const byte of bytesOf(step)) await peer.write(Buffer.of(byte))
        else await peer.write(bytesOf(step))
      } else if (step.direction === 's2c') {
        expected = Buffer.concat([expected, bytesOf(step)])
        expect((await peer.received(expected.length)).toString('latin1')).toBe(expected.toString('latin1'))
      } else if (step.direction === 's2c-close' && name !== 'probe_half_close') {
        expect((await peer.ended).equals(expected)).toBe(true)
      }
    }
    peer.socket.end()
    expect((await peer.ended).toString('latin1')).toBe(expected.toString('latin1'))
  })

  it('sends an answer over 16 MiB in packets of 4 and 7, where the Go server closes', async () => {
    const peer = await connect(await serve())
    const [ask, opened, request] = scenarios.get('probe_big_response_over_16M')!.map(bytesOf)
    await peer.write(Buffer.concat([ask!, request!]))
    const size = 16 * 1024 * 1024
    const head = encodePacket(4, '/size', 1, Buffer.alloc(size, 'x'))
    const rest = encodePacket(7, '/size', 1, Buffer.from('x'))
    const all = await peer.received(opened!.length + head.length + rest.length)
    expect(all.equals(Buffer.concat([opened!, head, rest]))).toBe(true)
  })

  it('answers a request that came with the end of the connection', async () => {
    const peer = await connect(await serve())
    const steps = scenarios.get('probe_half_close')!
    const sent = steps.filter(({ direction }) => direction === 'c2s').map(bytesOf)
    const answers = steps.filter(({ direction }) => direction === 's2c').map(bytesOf)
    peer.socket.end(Buffer.concat(sent))
    expect((await peer.ended).equals(Buffer.concat(answers))).toBe(true)
  })
})

const ASK = encodePacket(1, '/sys/new_channel', 0, Buffer.from('{}'))
const REFUSAL = encodePacket(
  5,
  '/sys/new_channel',
  0,
  Buffer.from('{"code":106,"message":"channel create limited"}'),
)

/** Without the second question for a channel, which our client asks for the drain notice. */
function withoutSpare(bytes: Buffer): Buffer {
  const at = bytes.indexOf(ASK, ASK.length)
  return at < 0 ? bytes : Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + ASK.length)])
}

/**
 * A server that plays the answers of a scenario, each once the bytes before it have come. It refuses the second channel,
 * which the Go client does not ask for.
 */
async function script(
  name: string,
): Promise<{ port: number; came: () => Buffer; socket: Promise<net.Socket> }> {
  const steps = scenarios.get(name)!.filter(({ direction }) => direction === 'c2s' || direction === 's2c')
  const chunks: Buffer[] = []
  const came = (): Buffer => withoutSpare(Buffer.concat(chunks))
  const server = net.createServer()
  const socket = once(server, 'connection').then(([connected]) => {
    const c = connected as net.Socket
    let at = 0
    let wanted = 0
    let isRefused = false
    const play = (): void => {
      for (; at < steps.length; at++) {
        const step = steps[at]!
        if (step.direction === 's2c') {
          c.write(bytesOf(step))
          if (!isRefused) c.write(REFUSAL)
          isRefused = true
          continue
        }
        if (came().length < wanted + bytesOf(step).length) return
        wanted += bytesOf(step).length
      }
    }
    c.on('error', () => {}).on('data', (chunk) => {
      chunks.push(chunk)
      play()
    })
    return c
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  endings.push(
    () => server.close(),
    async () => {
      void socket.then((c) => c.destroy())
    },
  )
  return { port: (server.address() as net.AddressInfo).port, came, socket }
}

function client(port: number, timeout = 10_000): IipClient {
  const made = new IipClient({
    address: { host: '127.0.0.1', port },
    maxChannelsPerConn: 1,
    maxConnections: 1,
    timeout,
    raw: true,
    logger: false,
  })
  endings.push(() => made.close())
  return made
}

/** What a request was and what our client makes of the answer; `pending`: there is none, and the connection stays. */
const AS_CLIENT: Record<string, { path: string; data: string; gives: string | RegExp | 'pending' }> = {
  go_echo: { path: '/echo', data: 'hello', gives: 'hello' },
  go_echo_query: { path: '/echo?id=123&name=abc', data: 'hello', gives: 'hello' },
  go_handler_error: {
    path: '/err',
    data: 'oops',
    gives: '{"code":-1,"message":"handler fail:boom \\"oops\\""}',
  },
  go_no_handler: { path: '/nope', data: 'oops', gives: '{"code":102,"message":"handle error"}' },
  go_empty_response: { path: '/empty', data: 'oops', gives: '{"code":101,"message":"handle no response"}' },
  go_path_count: {
    path: '/sys/path_count',
    data: '/echo',
    gives:
      '{"PacketsSent":124,"PacketReceived":0,"WholePacketSent":124,"WholePacketReceived":220,"BytesSent":2458,"BytesReceived":0}',
  },
  client_ok: { path: '/x?a=1', data: 'hello', gives: 'got hello' },
  client_chunks: { path: '/x?a=1', data: 'hello', gives: 'one-two-three' },
  client_otherchannel: { path: '/x?a=1', data: 'hello', gives: 'pending' },
  client_badchannel: { path: '/x?a=1', data: 'hello', gives: /there is no channel 99/ },
  client_extra: { path: '/x?a=1', data: 'hello', gives: 'x' },
  client_zero: { path: '/x?a=1', data: 'hello', gives: /cannot hold 0 bytes/ },
  client_status1: { path: '/x?a=1', data: 'hello', gives: /status 1 is not allowed/ },
  client_status6: { path: '/x?a=1', data: 'hello', gives: /goes on before it has begun/ },
  client_twice4: { path: '/x?a=1', data: 'hello', gives: /begins before the last one has ended/ },
  client_delete: { path: '/x?a=1', data: 'hello', gives: '{}' },
}

describe('our client sends what the Go client sends, and takes the same answers', () => {
  it.each(Object.entries(AS_CLIENT))('%s', async (name, { path, data, gives }) => {
    const { port, came, socket } = await script(name)
    const answer = client(port).request(path, data)
    if (gives === 'pending') {
      void answer.catch(() => {})
      await socket
      await expect(Promise.race([answer, sleep(200, 'pending')])).resolves.toBe('pending')
      expect((await socket).closed).toBe(false)
    } else if (typeof gives === 'string') {
      expect((await answer).toString()).toBe(gives)
    } else {
      await expect(answer).rejects.toThrow(gives)
    }
    const sent = scenarios
      .get(name)!
      .filter(({ direction }) => direction === 'c2s')
      .map(bytesOf)
    expect(came().toString('latin1')).toBe(Buffer.concat(sent).toString('latin1'))
  })

  // The Go client gives up; ours uses channel 0, which is always there, until its own time is over.
  it.each(['client_refuse', 'client_refuse_zero', 'client_refuse_badjson'])('%s', async (name) => {
    const { port, came } = await script(name)
    await expect(client(port, 300).request('/x', 'hello')).rejects.toThrow(/no answer came within 300 ms/)
    const [ask] = scenarios.get(name)!.map(bytesOf)
    expect(came().equals(Buffer.concat([ask!, encodePacket(1, '/x', 0, Buffer.from('hello'))]))).toBe(true)
  })
})

describe('the encoder makes the bytes of CreateNetPacket', () => {
  const encoded = scenarios.get('encode')!
  /** CreateNetPacket makes packets that every reader refuses; ours does not. */
  const REFUSED = /status 9|empty data|NUL in the path/

  it.each(encoded.filter(({ direction, name }) => direction === 'encode' && !REFUSED.test(name)))(
    '$name',
    ({ hex }) => {
      const bytes = Buffer.from(hex, 'hex')
      const nul = bytes.indexOf(0, 1)
      const path = bytes.toString('utf8', 1, nul)
      const packet = encodePacket(bytes[0]!, path, bytes.readUInt32BE(nul + 1), bytes.subarray(nul + 9))
      expect(packet.toString('hex')).toBe(hex)
    },
  )

  it.each([
    ['an unknown status', 9, '/p', Buffer.from('x')],
    ['empty data', 1, '/p', Buffer.alloc(0)],
    ['a NUL in the path', 1, '/a\0b', Buffer.from('x')],
    ['an empty path', 1, '', Buffer.from('x')],
    ['a path of 2049 bytes', 1, 'x'.repeat(2049), Buffer.from('x')],
    ['data of 16 MiB and a byte', 1, '/p', Buffer.alloc(16 * 1024 * 1024 + 1)],
  ])('refuses %s', (_, status, path, data) => {
    expect(() => encodePacket(status, path, 1, data)).toThrow(
      expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }),
    )
  })
})
