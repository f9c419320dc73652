/** Every example is started as a user starts it, and spoken to. */
import { randomBytes } from 'node:crypto'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { nativeAvailable } from '../src/loop/poller/native-poller.js'
import { endExamples, type Peer, runExample, startExample } from './example-process.js'
import { Authority } from './support/certificates.js'
import { connectTls } from './support/tls-client.js'

const hasAddon = nativeAvailable() === true
const MIB = 1024 * 1024

/** Every poller that is there, with one loop and with two. */
const SERVERS = (hasAddon ? ['native', 'net'] : ['net']).flatMap((poller) =>
  ['1', '2'].map((loops) => ({ poller, loops, flags: ['--poller', poller, '--loops', loops] })),
)

const authority = new Authority()
const own = authority.issue()
afterAll(() => authority.remove())
afterEach(endExamples)

describe.each(SERVERS)('with the $poller poller and $loops loop(s)', ({ loops, flags }) => {
  it('echo gives back what it gets, and ends with code 0', async () => {
    const echo = await startExample('echo', ...flags)
    const sent = [randomBytes(MIB), randomBytes(1), randomBytes(100_000)]
    const peers = await Promise.all(sent.map(() => echo.connect()))
    peers.forEach((peer, i) => void peer.write(sent[i]!))
    const answers = await Promise.all(peers.map((peer, i) => peer.received(sent[i]!.length)))
    expect(answers.every((answer, i) => answer.equals(sent[i]!))).toBe(true)

    const { code, stdout } = await echo.stop()
    expect(code).toBe(0)
    expect(stdout).toMatch(/^listening on 127\.0\.0\.1:\d+\n$/)
    await Promise.all(peers.map((peer) => peer.ended))
  })

  it.each(['echo', 'websocket-echo', 'websocket-chat', 'http-hello', 'iip-echo-server'])(
    '%s speaks TLS with --cert and --key',
    async (name) => {
      const files = ['--cert', authority.file('cert', own.cert), '--key', authority.file('key', own.key)]
      const server = await startExample(name, ...files, ...flags)
      const client = await connectTls({ port: server.port }, { ca: authority.cert })
      expect(client.socket.authorized).toBe(true)
      client.destroy()
      expect((await server.stop()).code).toBe(0)
    },
  )

  it('push-message reaches the connections of every loop', async () => {
    const push = await startExample('push-message', '--every', '20', ...flags)
    const peers = await Promise.all([push.connect(), push.connect(), push.connect()])
    const texts = await Promise.all(peers.map((peer) => peer.said(/you are on loop \d\n(message \d+\n){2}/)))
    const used = new Set(texts.map((text) => /loop (\d)/.exec(text)![1]))
    if (hasAddon) expect(used.size).toBe(Number(loops))
    expect((await push.stop()).code).toBe(0)
  })

  it('push-message leaves out who has had enough, until it wants more', async () => {
    const push = await startExample('push-message', '--every', '20', ...flags)
    const [peer, other] = [await push.connect(), await push.connect()]
    await peer.said(/message \d+\n/)
    await peer.write('off\n')
    const quiet = /message (\d+)\nno more messages\n/.exec(await peer.said(/no more messages\n/))
    const missed = `message ${Number(quiet![1]) + 3}\n`
    await other.said(new RegExp(missed))
    await peer.write('on\n')
    const text = await peer.said(/no more messages\nmessage \d+\n/)
    expect(text).not.toContain(missed)
    expect((await push.stop()).code).toBe(0)
  })

  it('max-connection closes the third connection, and takes one again when there is room', async () => {
    const server = await startExample('max-connection', '--max', '2', ...flags)
    const first = await welcomed(await server.connect())
    const second = await welcomed(await server.connect())
    expect((await (await server.connect()).ended).length).toBe(0)

    first.socket.end()
    await first.ended
    const late = await until(() => server.connect().then(welcomed))
    await Promise.all([second.write('second'), late.write('late')])
    await Promise.all([second.said(/^welcome\nsecond$/), late.said(/^welcome\nlate$/)])
    expect((await server.stop()).code).toBe(0)
  })

  it('idle-connection closes a silent connection, and not before its time', async () => {
    const server = await startExample('idle-connection', '--idle', '300', ...flags)
    const silent = await server.connect()
    await silent.said(/every 300 ms\n/)
    await silent.write('relax')
    await silent.said(/relax$/)
    const since = performance.now()
    await silent.ended
    expect(performance.now() - since).toBeGreaterThan(500)
    await server.printed('stderr', /no traffic for 600 ms/)
    expect((await server.stop()).code).toBe(0)
  })

  it('send-async answers from a promise and from a timer, and answers what it has before it ends', async () => {
    const server = await startExample('send-async', ...flags)
    const peer = await server.connect()
    await peer.write('one ')
    expect(await peer.said(/timer: one /)).toBe('from a promise: ONE from a timer: one ')
    await peer.write('two')
    const { code } = await server.stop()
    expect((await peer.ended).toString()).toContain('from a promise: TWO')
    expect(code).toBe(0)
  })

  it('buffer-length waits for a slow reader, and sends everything once it reads', async () => {
    const server = await startExample('buffer-length', '--blocks', '256', ...flags)
    const peer = await server.connect()
    peer.socket.pause()
    const [, unsent] = await server.printed('stderr', /waits with (\d+) bytes unsent/)
    expect(Number(unsent)).toBeGreaterThan(256 * 1024)
    expect(Number(unsent)).toBeLessThan(MIB)
    peer.socket.resume()
    expect((await peer.ended).length).toBe(16 * MIB)
    expect((await server.stop()).code).toBe(0)
  })

  it('custom-protocol serves its own client, and closes on a length that is too large', async () => {
    const server = await startExample('custom-protocol', ...flags)
    const client = await runExample('custom-protocol', '--client', '--port', String(server.port), ...flags)
    expect(client.stdout).toBe("answer: 'HELLO'\nanswer: ''\nanswer: 'PACKETS HAVE BORDERS'\n")
    expect(client.code).toBe(0)

    const rude = await server.connect()
    await rude.write(Buffer.from([0xff, 0xff, 0xff, 0xff]))
    expect((await rude.ended).length).toBe(0)
    expect((await server.stop()).code).toBe(0)
  })
})

describe('the command line', () => {
  it.each([
    [['--port', 'x'], /^--port must be an integer, not 'x' /],
    [['--port', '65536'], /^--port must be at most 65535, not 65536 /],
    [['--loops', '0'], /^--loops must be 1 or more /],
    [['--poller', 'kqueue'], /^--poller must be one of auto, native, net, not 'kqueue' /],
    [['--nonsense'], /^Unknown option '--nonsense'/],
  ])('refuses %j with one sentence and code 2', async (flags, sentence) => {
    const { code, stdout, stderr } = await runExample('echo', ...flags)
    expect(stderr).toMatch(sentence)
    expect(stderr.trimEnd().split('\n').length).toBe(1)
    expect(stdout).toBe('')
    expect(code).toBe(2)
  })

  it('says in one sentence that the port is taken, and ends with code 1', async () => {
    const { flags } = SERVERS[0]!
    const first = await startExample('echo', ...flags)
    const second = await runExample('echo', ...flags, '--port', String(first.port))
    expect(second).toEqual({
      code: 1,
      stdout: '',
      stderr: `127.0.0.1:${first.port} is in use: stop the other server or choose another port\n`,
    })
    expect((await first.stop()).code).toBe(0)
  })

  it('says in one sentence that the client reaches nobody, and ends with code 1', async () => {
    const { flags } = SERVERS[0]!
    const server = await startExample('custom-protocol', ...flags)
    await server.stop()
    const client = ['--client', ...flags, '--port', String(server.port)]
    const { code, stderr } = await runExample('custom-protocol', ...client)
    expect(stderr).toMatch(/^cannot connect to 127\.0\.0\.1:\d+: .*ECONNREFUSED.*\n$/)
    expect(code).toBe(1)
  })

  it('runs an example by its name', async () => {
    const echo = await startExample('run', 'echo', '--loops', '1')
    const peer = await echo.connect()
    await peer.write('by name')
    await peer.said(/^by name$/)
    expect((await echo.stop()).code).toBe(0)
  })

  it('lists the examples when it is given no name, or one that is not there', async () => {
    const none = await runExample('run')
    const unknown = await runExample('run', 'nothing')
    expect(unknown.stderr).toBe(`there is no 'nothing': ${none.stderr}`)
    const names = none.stderr.split('\n').map((line) => line.trim().split(' ')[0])
    expect(names).toEqual(
      expect.arrayContaining(['buffer-length', 'custom-protocol', 'echo', 'idle-connection']),
    )
    expect(names).not.toContain('flags')
    expect([none.code, unknown.code]).toEqual([2, 2])
  })
})

async function welcomed(peer: Peer): Promise<Peer> {
  await peer.said(/^welcome\n/)
  return peer
}

/** Tries again until it does not fail: the other side needs a moment to see what this one did. */
async function until<T>(attempt: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await attempt()
    } catch {
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
}
