/** The broker over NATS, with a real `nats-server`: what every broker must do, and what is its own. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Worker } from 'node:worker_threads'
import { afterEach, describe, expect, it } from 'vitest'
import { NatsBroker, type NatsBrokerOptions } from '../../src/plugins/nats/index.js'
import { hasNats, NatsEngine } from '../support/nats-engine.js'
import { RecordingHost } from '../support/recording-host.js'
import { until, within } from '../support/wait.js'
import { testBroker } from './broker.case.js'

if (!hasNats)
  console.error('nats-broker: skipped, there is no nats-server (on Debian: apt-get install nats-server)')

const QUICK = { minReconnectDelay: 10, maxReconnectDelay: 100 }
/** A server that leaves itself so long to go down, in seconds. */
const LAME_DUCK = 'lame_duck_duration: "30s"\nlame_duck_grace_period: "10ms"\n'

const engines: NatsEngine[] = []
const brokers: NatsBroker[] = []

afterEach(async () => {
  for (const broker of brokers.splice(0)) await within('the broker to stop', broker.stop())
  for (const engine of engines.splice(0)) await engine.close()
})

async function startEngine(config?: string): Promise<NatsEngine> {
  const engine = await NatsEngine.start(config)
  engines.push(engine)
  return engine
}

interface Member {
  readonly broker: NatsBroker
  readonly host: RecordingHost
}

function member(servers: string, options?: NatsBrokerOptions): Member {
  return { broker: new NatsBroker({ ...QUICK, servers, ...options }), host: new RecordingHost() }
}

async function join(servers: string, options?: NatsBrokerOptions): Promise<Member> {
  const { broker, host } = member(servers, options)
  await broker.start(host)
  brokers.push(broker)
  return { broker, host }
}

/** 60 MB to a subject, from a thread of its own; this thread reads nothing meanwhile. */
function floodWhileBlocked(server: string, subject: string): void {
  const [host, port] = server.split(':')
  const over = new Int32Array(new SharedArrayBuffer(4))
  const program = `
    const { workerData: { host, port, subject, over } } = require('node:worker_threads')
    const socket = require('node:net').connect(port, host)
    socket.write('CONNECT {"verbose":false}\\r\\n')
    const publication = 'PUB ' + subject + ' 60000\\r\\n' + 'x'.repeat(60000) + '\\r\\n'
    for (let i = 0; i < 1000; i++) socket.write(publication)
    socket.write('PING\\r\\n')
    socket.on('data', (chunk) => {
      if (!String(chunk).includes('PONG')) return
      Atomics.store(over, 0, 1)
      Atomics.notify(over, 0)
      socket.destroy()
    })
  `
  new Worker(program, { eval: true, workerData: { host, port: Number(port), subject, over } })
  expect(Atomics.wait(over, 0, 0, 20_000)).not.toBe('timed-out')
}

describe.skipIf(!hasNats)('NATS', () => {
  testBroker({
    name: 'nats',
    hasHistory: false,
    hasTtl: false,
    canBeSilent: true,
    startEngine: () => NatsEngine.start(),
    create: ({ server }, { patience, startTimeout }) =>
      new NatsBroker({
        ...QUICK,
        servers: server,
        ...(patience && { pingInterval: patience }),
        ...(startTimeout && { connectTimeout: startTimeout }),
      }),
  })

  it.each([
    ['a user', 'authorization { user: ada, password: "p@ss" }', { user: 'ada', pass: 'p@ss' }, 'ada:p%40ss'],
    ['a token', 'authorization { token: sesame }', { token: 'sesame' }, 'sesame'],
  ])('wants %s, as an option or in the URL, and refuses others', async (_what, config, options, inUrl) => {
    const { server } = await startEngine(config)
    await join(server, options)
    await join(`nats://${inUrl}@${server}`)
    for (const wrong of [{}, { user: 'ada', pass: 'wrong' }, { token: 'wrong' }]) {
      const { broker, host } = member(server, wrong)
      await expect(broker.start(host)).rejects.toThrow(/refuses us: check 'user' and 'pass', 'token'/)
    }
  })

  it('may change its mind about a user, and change it back', async () => {
    const config = (password: string): string => `authorization { user: ada, password: ${password} }`
    const engine = await startEngine(config('one'))
    const { broker, host } = await join(engine.server, { user: 'ada', pass: 'one' })
    host.subscribe(broker, 'a')
    await until('it is joined', () => host.has('a'))
    engine.reconfigure(config('two'))
    await until('it is parted', () => host.reasons.length > 0)
    await until('it is refused', () => host.logger.find('debug', 'refuses us').length >= 3)
    engine.reconfigure(config('one'))
    await until('it is joined again', () => host.has('a'))
  })

  it('may forbid topics, and the others go on', async () => {
    const rights = 'publish: { deny: "p.secret" }, subscribe: { deny: "p.hidden" }'
    const config = `authorization { users: [{ user: ada, password: x, permissions: { ${rights} } }] }`
    const { server } = await startEngine(config)
    const options = { user: 'ada', pass: 'x', prefix: 'p' }
    const [reader, writer] = [await join(server, options), await join(server, options)]
    reader.host.subscribe(reader.broker, 'hidden', 'open', 'secret')
    await until('the others are joined', () => reader.host.has('open', 'secret'))
    expect(reader.host.has('hidden')).toBe(false)
    expect(reader.host.logger.find('error', 'cannot be subscribed to')).toHaveLength(1)
    const sent = ['secret', 'open', 'hidden'].map((topic) => writer.broker.publish(topic, Buffer.from('x')))
    const settled = await Promise.allSettled(sent)
    expect(settled.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled'])
    await until('one has come', () => reader.host.received.length > 0)
    expect(reader.host.received.map(({ topic }) => topic)).toEqual(['open'])
    expect([...reader.host.reasons, ...writer.host.reasons]).toEqual([])
  })

  it('has no room for more topics, and says so', async () => {
    const { server } = await startEngine('max_subscriptions: 3')
    const { broker, host } = await join(server)
    host.subscribe(broker, 'a', 'b')
    await until('they are joined', () => host.has('a', 'b'))
    host.subscribe(broker, 'c', 'd', 'e')
    await until('it is logged', () => host.logger.find('error', 'topics cannot be subscribed to').length > 0)
    await broker.publish('a', Buffer.from('x'))
    expect(host.joinedTopics).toEqual(new Set(['a', 'b']))
  })

  it('takes no message above its max_payload, and keeps the connection', async () => {
    const { server } = await startEngine('max_payload: 100')
    const { broker } = await join(server)
    await expect(broker.publish('a', Buffer.alloc(101))).rejects.toThrow(
      /max_payload of the NATS server is 100/,
    )
    await broker.publish('a', Buffer.alloc(100))
  })

  it('goes down as a lame duck, and is found when it is there again', async () => {
    const engine = await startEngine(LAME_DUCK)
    const { broker, host } = await join(engine.server)
    host.subscribe(broker, 'a')
    await until('it is joined', () => host.has('a'))
    engine.lameDuck()
    await until('it is parted', () => host.reasons.length > 0)
    await engine.kill()
    await engine.restart()
    await until('it is joined again', () => host.has('a'))
  })

  it('cuts a consumer that does not read, which is told and comes back', async () => {
    const engine = await startEngine('max_payload: 64KB\nmax_pending: 128KB\nwrite_deadline: "50ms"')
    const { broker, host } = await join(engine.server)
    host.subscribe(broker, 'a')
    await until('it is joined', () => host.has('a'))
    floodWhileBlocked(engine.server, 'ringloop.a')
    await until('it is parted', () => host.reasons.length > 0)
    await until('it is joined again', () => host.has('a'))
    await broker.publish('a', Buffer.from('x'))
  })

  it('leaves no connection when a broker has stopped', async () => {
    const engine = await startEngine()
    const { broker, host } = await join(engine.server)
    host.subscribe(broker, 'a')
    await until('it is joined', () => host.has('a'))
    brokers.splice(0)
    await broker.stop()
    await until('nobody is connected', async () => (await engine.connections()).length === 0)
  })

  it('speaks TLS', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'ringloop-nats-tls-'))
    try {
      const [key, cert] = [path.join(folder, 'key.pem'), path.join(folder, 'cert.pem')]
      const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1']
      const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
      execFileSync('openssl', ['req', '-x509', ...kind, ...names, '-keyout', key, '-out', cert], {
        stdio: 'pipe',
      })
      const { server } = await startEngine(`tls { cert_file: "${cert}", key_file: "${key}" }`)
      const { broker, host } = await join(`tls://${server}`, { tls: { ca: readFileSync(cert, 'utf8') } })
      host.subscribe(broker, 'a')
      await until('it is joined', () => host.has('a'))
      const stranger = member(server)
      await expect(stranger.broker.start(stranger.host)).rejects.toThrow(/self-signed certificate.*: check/)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})
