/** Options that nobody reads are refused wherever a plugin takes options, as the core does it. */
import { setImmediate as turn } from 'node:timers/promises'
import { register } from 'prom-client'
import { afterEach, describe, expect, it } from 'vitest'
import { EventLoop } from '../src/index.js'
import { console as page } from '../src/plugins/console/index.js'
import { HttpProtocol } from '../src/plugins/http/index.js'
import {
  IipBalancer,
  IipClient,
  IipHttpAdapter,
  IipProtocol,
  IipRouter,
  type RequestOptions,
} from '../src/plugins/iip/index.js'
import { metrics } from '../src/plugins/metrics/index.js'
import { NatsBroker } from '../src/plugins/nats/index.js'
import { ProtobufProtocol } from '../src/plugins/protobuf/index.js'
import { RedisBroker } from '../src/plugins/redis/index.js'
import { WebSocketProtocol } from '../src/plugins/websocket/index.js'
import { atEnd, endAll, iipClient, serveIip } from './iip-support.js'

afterEach(endAll)

/** As a program without types would write it. */
const loose = (options: unknown): never => options as never

const SERVERS = '127.0.0.1:1#1'
const BALANCER = { servers: SERVERS, logger: false, poller: 'net' }
const TYPES = { p: { encode: () => ({ finish: () => new Uint8Array() }), decode: () => ({}) } }
const CLIENT_NUMBERS = {
  maxConnections: 1,
  maxChannelsPerConn: 1,
  maxPipeline: 1,
  timeout: 1,
  connectTimeout: 1,
  maxResponseBytes: 1,
  maxUnreadBytes: 1,
  minReconnectDelay: 1,
  maxReconnectDelay: 1,
}

function ended<T extends { close(): unknown }>(made: T): T {
  atEnd(() => made.close())
  return made
}

interface Case {
  /** What the sentence calls the owner of the options. */
  readonly whose: string
  readonly make: (options: unknown) => unknown
  /** A misspelt option, and the name that is meant. */
  readonly odd: object
  readonly meant: string
  /** Every option that there is. */
  readonly all: object
}

const CASES: readonly Case[] = [
  {
    whose: 'metrics',
    make: (options) => metrics(loose(options)),
    odd: { pth: '/metrics' },
    meant: 'path',
    all: { address: ':0', path: '/m', registry: register },
  },
  {
    whose: 'NatsBroker',
    make: (options) => new NatsBroker(loose(options)),
    odd: { server: 'nats://127.0.0.1' },
    meant: 'servers',
    all: {
      servers: ['nats://127.0.0.1'],
      prefix: 'p',
      connectTimeout: 1,
      pingInterval: 1,
      minReconnectDelay: 1,
      maxReconnectDelay: 1,
      name: 'n',
      user: 'u',
      pass: 'p',
      token: 't',
      authenticator: () => undefined,
      tls: true,
    },
  },
  {
    whose: 'console',
    make: (options) => page(loose(options)),
    odd: { adress: ':0' },
    meant: 'address',
    all: { address: ':0' },
  },
  {
    whose: 'RedisBroker',
    make: (options) => new RedisBroker(loose(options)),
    odd: { perfix: 'a:' },
    meant: 'prefix',
    all: {
      url: 'redis://127.0.0.1',
      username: 'a',
      password: 'b',
      database: 1,
      name: 'c',
      socket: { noDelay: true },
      prefix: 'a:',
      history: {},
      connectTimeout: 1,
      pingInterval: 1,
    },
  },
  {
    whose: 'history',
    make: (options) => new RedisBroker({ history: loose(options) }),
    odd: { sise: 5 },
    meant: 'size',
    all: { prefix: 'a', size: 1, ttl: 1, positionTtl: 0 },
  },
  {
    whose: 'HttpProtocol',
    make: (options) => new HttpProtocol(loose(options)),
    odd: { maxBodybytes: 5 },
    meant: 'maxBodyBytes',
    all: {
      maxHeaderBytes: 64,
      maxHeaders: 1,
      maxBodyBytes: 1,
      headersTimeout: 1,
      bodyTimeout: 1,
      keepAliveTimeout: 1,
      requireLength: false,
      streamBody: true,
    },
  },
  {
    whose: 'WebSocketProtocol',
    make: (options) => new WebSocketProtocol(loose(options)),
    odd: { maxPayLoads: 5 },
    meant: 'maxPayload',
    all: {
      maxPayload: 1,
      perMessageDeflate: false,
      heartbeat: false,
      handshakeTimeout: 1,
      closeHandshakeTimeout: 1,
      maxHeaderBytes: 1,
      maxHeaders: 1,
      verify: () => true,
      protocols: ['a'],
      onRequest: () => undefined,
      client: {},
    },
  },
  {
    whose: 'perMessageDeflate',
    make: (options) => new WebSocketProtocol({ perMessageDeflate: loose(options) }),
    odd: { treshold: 5 },
    meant: 'threshold',
    all: {
      threshold: 1,
      level: 1,
      memLevel: 1,
      serverNoContextTakeover: true,
      clientNoContextTakeover: true,
      serverMaxWindowBits: 9,
      clientMaxWindowBits: 9,
      concurrency: 1,
    },
  },
  {
    whose: 'heartbeat',
    make: (options) => new WebSocketProtocol({ heartbeat: loose(options) }),
    odd: { interval: 5, timeOut: 5 },
    meant: 'timeout',
    all: { interval: 5, timeout: 5 },
  },
  {
    whose: 'client',
    make: (options) => new WebSocketProtocol({ client: loose(options) }),
    odd: { protocol: ['a'] },
    meant: 'protocols',
    all: { path: '/', host: 'a', headers: {}, protocols: ['a'] },
  },
  {
    whose: 'IipProtocol',
    make: (options) => new IipProtocol(loose(options)),
    odd: { maxChannelsPerCon: 5 },
    meant: 'maxChannelsPerConn',
    all: { maxChannelsPerConn: 1, maxRequestBytes: 1, maxHeldBytes: 1, requestTimeout: 1 },
  },
  {
    whose: 'IipRouter',
    make: (options) => new IipRouter(loose(options)),
    odd: { statistic: 'off' },
    meant: 'statistics',
    all: { statistics: 'off' },
  },
  {
    whose: 'a path',
    make: (options) => new IipRouter().handle('/a', () => '', loose(options)),
    odd: { timeunit: 'second' },
    meant: 'timeUnit',
    all: { timeUnit: 'second' },
  },
  {
    whose: 'a path',
    make: (options) => new IipRouter().stream('/a', () => '', loose(options)),
    odd: { maxbytes: 5 },
    meant: 'maxBytes',
    all: { timeUnit: 'second', maxBytes: 1 },
  },
  {
    whose: 'IipClient',
    make: (options) => ended(new IipClient(loose(options))),
    odd: { address: ':1', timeOut: 5 },
    meant: 'timeout',
    get all() {
      const loop = new EventLoop({ poller: 'net', logger: false })
      atEnd(() => loop.stop())
      return { ...CLIENT_NUMBERS, address: ':1', tls: true, loop, poller: 'net', logger: false }
    },
  },
  {
    whose: 'IipBalancer',
    make: (options) => ended(new IipBalancer(loose(options))),
    odd: { ...BALANCER, stratgy: 'random' },
    meant: 'strategy',
    get all() {
      const loop = new EventLoop({ poller: 'net', logger: false })
      atEnd(() => loop.stop())
      return {
        ...CLIENT_NUMBERS,
        ...BALANCER,
        tls: true,
        loop,
        strategy: 'uri-param',
        paramKey: 'a',
        maxFailures: 1,
        pause: 1,
        isHealthy: () => true,
        probe: { path: '/a' },
      }
    },
  },
  {
    whose: 'probe',
    make: (options) => ended(new IipBalancer(loose({ ...BALANCER, probe: options }))),
    odd: { path: '/a', intervall: 5 },
    meant: 'interval',
    all: { path: '/a', data: 'a', interval: 60_000, timeout: 1, check: () => true },
  },
  {
    whose: 'IipHttpAdapter',
    make: (options) => new IipHttpAdapter(loose(options)),
    odd: { maxBodyByte: 5 },
    meant: 'maxBodyBytes',
    all: { chooseBackend: () => 'a', maxBodyBytes: 1, timeout: 1, status: () => 200 },
  },
  {
    whose: 'IipBalancer',
    make: (options) => ended(new IipHttpAdapter()).backend('a', loose(options)),
    odd: { ...BALANCER, maxFailure: 5 },
    meant: 'maxFailures',
    all: { ...BALANCER, maxFailures: 5 },
  },
  {
    whose: 'ProtobufProtocol',
    make: (options) => new ProtobufProtocol(loose(options)),
    odd: { types: TYPES, maxPackets: 50 },
    meant: 'maxPacket',
    all: { types: TYPES, maxPacket: 50 },
  },
]

function refusal(message: string): object {
  return expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION', message: expect.stringContaining(message) })
}

describe.each(CASES.map((each) => ({ name: `${each.whose} (${each.meant})`, each })))(
  'the options of $name',
  ({ each: { whose, make, odd, meant, all } }) => {
    it('are refused with the name that was meant where one is misspelt', () => {
      expect(() => make(odd)).toThrow(refusal(`: did you mean '${meant}'?`))
    })

    it('are refused with a sentence where they are no object', () => {
      for (const [options, given] of [
        [null, 'null'],
        ['text', "the string 'text'"],
        [[], 'an array'],
      ]) {
        // A heartbeat that is no object is an interval.
        if (whose === 'heartbeat' && options === 'text') continue
        expect(() => make(options)).toThrow(
          refusal(`the options of ${whose} must be an object, not ${given}`),
        )
      }
    })

    it('are accepted where all are known', () => {
      expect(() => make(all)).not.toThrow()
    })
  },
)

describe('the options of a request', () => {
  const odd = loose({ timeOut: 50 })
  const misspelt = refusal("unknown option 'timeOut': did you mean 'timeout'?")
  const noObject = refusal('the options of a request must be an object, not null')
  const all = (): RequestOptions => ({ timeout: 60_000, signal: new AbortController().signal })

  async function serveEcho(): Promise<number> {
    return serveIip(new IipRouter({ statistics: 'off' }).handle('/echo', ({ data }) => data))
  }

  it('are checked by a client and by a channel', async () => {
    const client = iipClient(await serveEcho())
    const channel = await client.channel(all())
    for (const asked of [client, channel]) {
      await expect(asked.request('/echo', 'a', odd)).rejects.toEqual(misspelt)
      await expect(asked.request('/echo', 'a', loose(null))).rejects.toEqual(noObject)
      await expect(asked.stream('/echo', 'a', odd).bytes()).rejects.toEqual(misspelt)
      await expect(asked.stream('/echo', 'a', loose(null)).bytes()).rejects.toEqual(noObject)
      for (const options of [undefined, {}, all()]) {
        expect(String(await asked.request('/echo', 'a', options))).toBe('a')
        expect(String(await asked.stream('/echo', 'b', options).bytes())).toBe('b')
      }
    }
    await expect(client.channel(odd)).rejects.toEqual(misspelt)
    await expect(client.channel(loose(null))).rejects.toEqual(noObject)
    await turn()
    expect(client.pending).toBe(0)
  })

  it('are checked by a balancer, which keeps its own from its clients', async () => {
    const servers = `127.0.0.1:${await serveEcho()}#1`
    const balancer = ended(new IipBalancer({ servers, logger: false }))
    await expect(balancer.request('/echo', 'a', odd)).rejects.toEqual(misspelt)
    await expect(balancer.request('/echo', 'a', loose(null))).rejects.toEqual(noObject)
    expect(() => balancer.stream('/echo', 'a', odd)).toThrow(misspelt)
    expect(() => balancer.stream('/echo', 'a', loose(null))).toThrow(noObject)
    for (const options of [undefined, {}, { ...all(), clientIp: '10.0.0.1', safe: true }]) {
      expect(String(await balancer.request('/echo', 'a', options))).toBe('a')
      expect(String(await balancer.stream('/echo', 'b', options).bytes())).toBe('b')
    }
  })

  it('that an adapter gives its balancer are accepted', async () => {
    const servers = `127.0.0.1:${await serveEcho()}#1`
    const adapter = ended(new IipHttpAdapter()).backend('a', { servers, logger: false })
    const { port } = await adapter.route('127.0.0.1', /.*/, 'a').listen(0, '127.0.0.1')
    const response = await fetch(`http://127.0.0.1:${port}/echo`, { method: 'POST', body: 'hello' })
    expect(await response.text()).toBe('hello')
  })
})

it('an instance of a class is taken by a balancer with whatever else it has', () => {
  class Settings {
    readonly servers = SERVERS
    readonly logger = false
    readonly comment = 'for a test'
  }
  expect(() => ended(new IipBalancer(new Settings()))).not.toThrow()
})
