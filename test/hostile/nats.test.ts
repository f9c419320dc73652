/** The broker over NATS beside servers that are silent, cut connections, refuse or lie: no engine is needed for that. */
import diagnostics from 'node:diagnostics_channel'
import net from 'node:net'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { Dial } from '../../src/plugins/nats/dial.js'
import { NatsBroker, type NatsBrokerOptions } from '../../src/plugins/nats/index.js'
import { FakeNats, type FakeNatsOptions } from '../support/fake-nats.js'
import { RecordingHost } from '../support/recording-host.js'
import { rounds, until, within } from '../support/wait.js'

const fakes: FakeNats[] = []
const brokers: NatsBroker[] = []

afterEach(async () => {
  for (const broker of brokers.splice(0)) await within('the broker to stop', broker.stop())
  for (const fake of fakes.splice(0)) await fake.close()
})

async function listen(options?: FakeNatsOptions): Promise<FakeNats> {
  const fake = await FakeNats.listen(options)
  fakes.push(fake)
  return fake
}

function brokerOf(servers: string | string[], options: NatsBrokerOptions = {}): NatsBroker {
  return new NatsBroker({ servers, minReconnectDelay: 10, maxReconnectDelay: 50, ...options })
}

async function join(
  servers: string | string[],
  options?: NatsBrokerOptions,
): Promise<{ broker: NatsBroker; host: RecordingHost }> {
  const [broker, host] = [brokerOf(servers, options), new RecordingHost()]
  await broker.start(host)
  brokers.push(broker)
  return { broker, host }
}

/** Why it does not start. */
async function failure(broker: NatsBroker): Promise<string> {
  const start = broker.start(new RecordingHost())
  const error = await within(
    'a rejection',
    start.then(unexpected, (error: Error) => error),
  )
  return error.message
}

function unexpected(): never {
  throw new Error('it has started')
}

const freed = (fake: FakeNats): Promise<void> =>
  until('its connections are closed', () => fake.sockets.size === 0)

describe('a start', () => {
  it('says that a server is silent, and leaves no connection', async () => {
    const fake = await listen({ greeting: '' })
    expect(await failure(brokerOf(fake.server, { connectTimeout: 100 }))).toBe(
      `NATS at ${fake.server} has not answered within 100 ms: check 'servers', and that it is a NATS server that runs`,
    )
    expect(fake.taken).toBe(1)
    await freed(fake)
  })

  it('says that a server is silent after its greeting, and leaves no connection', async () => {
    const fake = await listen()
    fake.answers = false
    expect(await failure(brokerOf(fake.server, { connectTimeout: 100 }))).toMatch(
      /has not answered within 100 ms/,
    )
    await freed(fake)
  })

  it('says that a server asks for TLS and does not speak it, and leaves no connection', async () => {
    const info = { server_id: 'fake', version: '2.9.10', proto: 1, tls_required: true }
    const fake = await listen({ greeting: `INFO ${JSON.stringify(info)}\r\n` })
    const start = failure(brokerOf(fake.server, { connectTimeout: 1000 }))
    await until('the handshake has begun', () => fake.received.startsWith('\x16'))
    expect(await start).toMatch(/has not answered within 1000 ms/)
    await freed(fake)
  })

  it('says that something else listens there', async () => {
    const fake = await listen({ greeting: '220 mail.example.com ESMTP\r\n' })
    expect(await failure(brokerOf(fake.server))).toMatch(/cannot be reached: .*: check 'servers'/)
    await freed(fake)
  })

  it('says that a server refuses us, and not the password', async () => {
    const fake = await listen()
    fake.answers = false
    const start = failure(brokerOf(fake.server, { user: 'ada', pass: 'secret' }))
    await fake.has('PING')
    fake.hangUp("-ERR 'Authorization Violation'\r\n")
    const says = await start
    expect(says).toBe(
      `NATS at ${fake.server} refuses us: check 'user' and 'pass', 'token' or 'authenticator'`,
    )
    expect(fake.received).toContain('secret')
  })

  it('says what a server has said before it hung up', async () => {
    const fake = await listen()
    fake.answers = false
    const start = failure(brokerOf(fake.server))
    await fake.has('PING')
    fake.hangUp("-ERR 'maximum connections exceeded'\r\n")
    expect(await start).toMatch(/cannot be reached: maximum connections exceeded: check/)
  })

  it('says that a server hangs up at once', async () => {
    const fake = await listen({ greeting: '' })
    const start = failure(brokerOf(fake.server))
    await until('it is connected', () => fake.sockets.size > 0)
    fake.hangUp()
    expect(await start).toMatch(/cannot be reached: it has ended the connection: check/)
  })

  it('says it of every server, and is content with one', async () => {
    const [silent, other] = [await listen({ greeting: '' }), await listen({ greeting: '' })]
    const servers = [silent.server, other.server]
    const says = await failure(brokerOf(servers, { connectTimeout: 50 }))
    for (const server of servers) expect(says).toContain(`NATS at ${server} has not answered`)
    const good = await listen()
    await join([...servers, good.server], { connectTimeout: 1000 })
    expect(good.sockets.size).toBe(1)
    await Promise.all([freed(silent), freed(other)])
  })

  it('says that there is no such host', async () => {
    expect(await failure(brokerOf('nobody.invalid'))).toMatch(
      /NATS at nobody.invalid:4222 cannot be reached: /,
    )
  })

  it('is for one server', async () => {
    const { broker } = await join((await listen()).server)
    await expect(broker.start(new RecordingHost())).rejects.toMatchObject({ code: 'ERR_RINGLOOP_STATE' })
  })
})

describe('an attempt', () => {
  it('that is given up while a name is looked up leaves no connection', async () => {
    const fake = await listen({ greeting: '' })
    const made: net.Socket[] = []
    const see = (message: unknown): void => void made.push((message as { socket: net.Socket }).socket)
    diagnostics.subscribe('net.client.socket', see)
    const dial = new Dial(fake.server.replace('127.0.0.1', 'localhost'))
    const attempt = dial.connect({ timeout: 60_000 })
    dial.abort(new Error('enough'))
    await expect(attempt).rejects.toThrow(/cannot be reached: enough/)
    expect(made).toEqual([])
    await until('the name is found', () => made.length > 0)
    diagnostics.unsubscribe('net.client.socket', see)
    await until('it is closed', () => made.every(({ closed }) => closed))
    await freed(fake)
  })

  it('leaves the sockets of others alone', async () => {
    const fake = await listen({ greeting: '' })
    const port = Number(fake.server.split(':')[1])
    const start = failure(brokerOf(fake.server, { connectTimeout: 100 }))
    const other = net.connect(port, '127.0.0.1')
    expect(await start).toMatch(/has not answered/)
    await until('it alone is left', () => fake.sockets.size === 1)
    expect(other.destroyed).toBe(false)
    other.destroy()
  })
})

describe('a publication', () => {
  it('is not to come back to the publisher', async () => {
    const fake = await listen()
    await join(fake.server)
    expect(fake.received).toContain('"echo":false')
  })

  it('is settled by one PING for all of a tick', async () => {
    const fake = await listen()
    const { broker } = await join(fake.server)
    fake.received = ''
    await Promise.all(['1', '2', '3'].map((text) => broker.publish('a', Buffer.from(text))))
    const pub = (text: string): string => `PUB ringloop.a 1\r\n${text}\r\n`
    expect(fake.received).toBe(`${pub('1')}${pub('2')}${pub('3')}PING\r\n`)
  })

  it('rejects when the connection ends before the answer, with the reason, and is not sent again', async () => {
    const fake = await listen()
    const { broker, host } = await join(fake.server)
    fake.answers = false
    const sent = broker.publish('a', Buffer.from('lost')).catch((error: Error) => error.message)
    await fake.has('lost')
    fake.answers = true
    fake.received = ''
    fake.hangUp("-ERR 'Slow Consumer'\r\n")
    expect(await sent).toMatch(/the connection to NATS has ended: Slow Consumer/)
    const away = broker.publish('a', Buffer.from('lost')).catch((error: Error) => error.message)
    expect(await away).toMatch(/there is no connection to NATS/)
    host.subscribe(broker, 'b')
    await until('it is connected again', () => host.has('b'))
    await broker.publish('a', Buffer.from('found'))
    expect(fake.received).toContain('found')
    expect(fake.received).not.toContain('lost')
  })

  it('that is too large rejects, and says what the server takes', async () => {
    const fake = await listen()
    const { broker } = await join(fake.server)
    await broker.publish('a', Buffer.alloc(1000))
    await expect(broker.publish('a', Buffer.alloc(1001))).rejects.toThrow(
      '1001 bytes are too many: the max_payload of the NATS server is 1000',
    )
    await broker.publish('a', Buffer.alloc(1000))
    expect(fake.taken).toBe(1)
  })

  it('rejects when the server refuses its subject, and no other does', async () => {
    const fake = await listen()
    const { broker, host } = await join(fake.server)
    fake.answers = false
    const good = broker.publish('good', Buffer.from('x'))
    const bad = broker.publish('b.d', Buffer.from('x')).catch((error: Error) => error.message)
    await fake.has('PUB ringloop.b=2Ed')
    fake.answers = true
    fake.say(`-ERR 'Permissions Violation for Publish to "ringloop.b=2Ed"'\r\nPONG\r\n`)
    await good
    expect(await bad).toBe("NATS does not let us publish to 'ringloop.b=2Ed'")
    expect(host.logger.find('error', 'cannot be published to')).toHaveLength(1)
    await broker.publish('b.d', Buffer.from('y'))
    expect(fake.taken).toBe(1)
  })
})

describe('a subscription', () => {
  it('is joined when the server has answered, and not before', async () => {
    const fake = await listen()
    const { broker, host } = await join(fake.server)
    fake.answers = false
    host.subscribe(broker, 'a')
    await fake.has('SUB ringloop.a ')
    await rounds(5)
    expect(host.has('a')).toBe(false)
    fake.say('PONG\r\n')
    await until('it is joined', () => host.has('a'))
  })

  it('that the server has no room for is not taken for joined', async () => {
    const fake = await listen()
    const { broker, host } = await join(fake.server)
    fake.answers = false
    host.subscribe(broker, 'a')
    await fake.has('SUB ringloop.a ')
    fake.say("-ERR 'maximum subscriptions exceeded'\r\nPONG\r\n")
    await until('it is logged', () => host.logger.find('error', 'cannot be subscribed to').length > 0)
    await rounds(5)
    expect(host.has('a')).toBe(false)
    fake.answers = true
    host.subscribe(broker, 'b')
    await until('the other is joined', () => host.has('b'))
    fake.hangUp()
    await until('it is parted', () => host.reasons.length > 0)
    expect(host.reasons).toEqual(['the server has ended the connection'])
  })

  it('that the server takes back is parted, and tried again', async () => {
    const fake = await listen()
    const { broker, host } = await join(fake.server)
    host.subscribe(broker, 'a', 'b')
    await until('they are joined', () => host.has('a', 'b'))
    fake.say(`-ERR 'Permissions Violation for Subscription to "ringloop.a"'\r\n`)
    await until('they are parted', () => host.reasons.length > 0)
    await until('they are joined', () => host.has('a', 'b'))
    expect(fake.taken).toBe(2)
  })

  it('gets bytes of its own', async () => {
    const fake = await listen()
    const { broker, host } = await join(fake.server)
    const came: Uint8Array[] = []
    host.message = (_topic, bytes) => void came.push(bytes)
    host.subscribe(broker, 'a')
    await until('it is joined', () => host.has('a'))
    const [, sid] = /SUB ringloop.a (\d+)/.exec(fake.received)!
    fake.say(`MSG ringloop.a ${sid} 3\r\none\r\nMSG ringloop.a ${sid} 3\r\ntwo\r\n`)
    await until('they have come', () => came.length === 2)
    expect(came.map((bytes) => bytes.buffer.byteLength)).toEqual([3, 3])
    expect(came.map((bytes) => Buffer.from(bytes).toString())).toEqual(['one', 'two'])
  })
})

describe('a connection that is lost', () => {
  it('is made again to a server that only the lost one knew', async () => {
    const other = await listen()
    const fake = await listen({ siblings: [other.server] })
    const { broker, host } = await join(fake.server)
    host.subscribe(broker, 'a')
    await until('it is joined', () => host.has('a'))
    await fake.close()
    fakes.splice(fakes.indexOf(fake), 1)
    await until('it is joined again', () => host.has('a') && other.sockets.size === 1)
  })

  it('tells that it is back although nothing is wanted', async () => {
    const fake = await listen()
    const { broker, host } = await join(fake.server)
    host.subscribe(broker, 'a')
    await until('it is joined', () => host.has('a'))
    host.unsubscribe(broker, 'a')
    const { calls } = host
    fake.hangUp()
    await until('it is back', () => host.calls > calls)
    expect(host.joinedTopics.size).toBe(0)
  })

  it('is given up when it brings what no server says', async () => {
    // The client prints it.
    const print = vi.spyOn(console, 'log').mockImplementation(() => {})
    const fake = await listen()
    const { broker, host } = await join(fake.server, { pingInterval: 50 })
    host.subscribe(broker, 'a')
    await until('it is joined', () => host.has('a'))
    fake.say('220 mail.example.com ESMTP\r\n')
    await until('it is parted', () => host.reasons.length > 0)
    await until('it is joined again', () => host.has('a'))
    print.mockRestore()
  })

  it('leaves no socket behind with a server that is silent, however often it is tried', async () => {
    const fake = await listen()
    await join(fake.server, { connectTimeout: 500 })
    fake.answers = false
    fake.hangUp()
    await until('it has been tried', () => fake.taken >= 4)
    expect(fake.sockets.size).toBeLessThanOrEqual(2)
  })
})

describe('a stop', () => {
  it('in the middle of an attempt ends it', async () => {
    const fake = await listen()
    const { broker } = await join(fake.server, { connectTimeout: 60_000 })
    fake.answers = false
    fake.hangUp()
    await until('it is tried again', () => fake.taken === 2 && fake.sockets.size === 1)
    await within('it to stop', broker.stop())
    await freed(fake)
    expect(fake.taken).toBe(2)
  })

  it('does not wait for what cannot be written, nor does the end of a server that reads nothing', async () => {
    const fake = await listen()
    const { broker, host } = await join(fake.server, { pingInterval: 100 })
    host.subscribe(broker, 'a')
    await until('it is joined', () => host.has('a'))
    for (const socket of fake.sockets) socket.pause()
    fake.answers = false
    const bytes = Buffer.alloc(1000)
    const sent = Array.from({ length: 20_000 }, () => broker.publish('a', bytes).catch(() => 'rejected'))
    await until('it is parted', () => host.reasons.length > 0)
    expect(new Set(await within('all to settle', Promise.all(sent)))).toEqual(new Set(['rejected']))
    expect(host.reasons).toEqual(['the server does not answer'])
  })
})
