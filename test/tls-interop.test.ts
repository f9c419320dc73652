// TLS with those that know nothing of ringloop: openssl s_client, curl, undici, ws, Chromium; and each plugin over it.
import { spawn, spawnSync } from 'node:child_process'
import { accessSync } from 'node:fs'
import { chromium } from 'playwright-core'
import { EventLoop } from 'ringloop'
import { IipClient } from 'ringloop/iip'
import { type WebSocketOut, WebSocketProtocol } from 'ringloop/websocket'
import { Pool } from 'undici'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { type ExampleProcess, endExamples, startExample } from './example-process.js'
import { Authority } from './support/certificates.js'
import { until, within } from './support/wait.js'

const BROWSER = '/usr/bin/chromium'
const authority = new Authority()
const own = authority.issue()
const FILES = ['--cert', authority.file('cert', own.cert), '--key', authority.file('key', own.key)]
const CA = authority.file('ca', own.ca)
const SIZES = [0, 1, 1000, 16_384, 16_385, 200_000]

afterAll(() => authority.remove())
const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0)) await end()
  await endExamples()
})

function has(file: string): boolean {
  try {
    accessSync(file)
    return true
  } catch {
    return false
  }
}

/** What `openssl s_client` says, with `input` as its standard input. */
async function sClient(port: number, args: readonly string[], input = ''): Promise<string> {
  const child = spawn('openssl', ['s_client', '-connect', `127.0.0.1:${port}`, '-CAfile', CA, ...args])
  ends.push(() => child.kill())
  let said = ''
  child.stdout.on('data', (text) => (said += text))
  child.stderr.on('data', (text) => (said += text))
  child.stdin.on('error', () => {})
  child.stdin.write(input)
  await until(
    'it has answered or ended',
    () => (input !== '' && said.includes(`\n${input}`)) || child.exitCode !== null,
  )
  child.stdin.end()
  await until('it has ended', () => child.exitCode !== null)
  return said
}

describe.each([
  ['native', '1'],
  ['native', '2'],
  ['net', '1'],
])('the %s poller, %s loop(s)', (poller, loops) => {
  const start = (name: string): Promise<ExampleProcess> =>
    startExample(name, '--poller', poller, '--loops', loops, ...FILES)

  it('openssl s_client agrees on each version, and is refused with an older one', async () => {
    const { port } = await start('echo')
    for (const version of ['-tls1_2', '-tls1_3']) {
      const said = await sClient(port, [version, '-verify_return_error'], 'a line\n')
      expect(said).toContain('Verification: OK')
      expect(said).toContain(version === '-tls1_2' ? 'Protocol  : TLSv1.2' : 'TLSv1.3')
    }
    for (const version of ['-tls1', '-tls1_1']) {
      expect(await sClient(port, [version, '-cipher', 'ALL@SECLEVEL=0'])).toContain('Cipher is (NONE)')
    }
    for (const cipher of ['aNULL', 'eNULL', 'RC4', '3DES', 'EXPORT', 'MD5', 'PSK']) {
      const said = await sClient(port, ['-tls1_2', '-cipher', `${cipher}@SECLEVEL=0`])
      expect(said, cipher).toMatch(/Cipher is \(NONE\)|no cipher match/)
    }
  })

  it('curl and undici get answers of HTTP', async () => {
    const { port } = await start('http-hello')
    const curl = spawnSync('curl', ['-sS', '--cacert', CA, `https://localhost:${port}/`], {
      encoding: 'utf8',
    })
    expect([curl.stdout, curl.stderr]).toEqual(['Hello World', ''])
    const pool = new Pool(`https://localhost:${port}`, {
      connect: { ca: own.ca },
      connections: 4,
      pipelining: 4,
    })
    ends.push(() => pool.destroy())
    const bodies = SIZES.map((size) => 'x'.repeat(size))
    const answers = await Promise.all(
      bodies.map(async (body) => {
        const { body: answer } = await pool.request({ path: '/echo', method: 'POST', body })
        return answer.text()
      }),
    )
    expect(answers.map((each, i) => each === bodies[i])).toEqual(bodies.map(() => true))
  })

  it('ws, and the client role, exchange messages of all sizes', async () => {
    const { port } = await start('websocket-echo')
    const ws = new WebSocket(`wss://localhost:${port}/`, { ca: own.ca })
    ends.push(() => ws.terminate())
    const got: string[] = []
    ws.on('message', (data) => got.push(String(data)))
    await within('the handshake', new Promise((resolve) => ws.on('open', resolve)))
    for (const size of SIZES) ws.send('y'.repeat(size))
    await until('all are back', () => got.length === SIZES.length)
    expect(got.map(({ length }) => length)).toEqual(SIZES)
    const loop = new EventLoop({ logger: false, poller: poller as 'native' })
    ends.push(() => loop.stop())
    const lengths: number[] = []
    const c = await loop.connect(`localhost:${port}`, {
      protocol: new WebSocketProtocol({ client: {} }),
      handler: { onMessage: (_c, _ctx, data): WebSocketOut | undefined => void lengths.push(data.length) },
      tls: { ca: own.ca },
    })
    for (const size of SIZES) c.send('z'.repeat(size))
    await until('all are back', () => lengths.length === SIZES.length)
    expect(lengths).toEqual(SIZES)
  })

  it('IIP answers over it', async () => {
    const { port } = await start('iip-echo-server')
    const client = new IipClient({ address: `localhost:${port}`, logger: false, tls: { ca: own.ca } })
    ends.push(() => client.close())
    const sizes = SIZES.filter((size) => size > 0)
    const answers = await Promise.all(sizes.map((size) => client.request('/echo', Buffer.alloc(size, 'i'))))
    expect(answers.map(({ length }) => length)).toEqual(sizes)
  })

  it.skipIf(!has(BROWSER))('Chromium shows a page of https, and chats with wss', async () => {
    const { port } = await start('websocket-chat')
    const browser = await chromium.launch({
      executablePath: BROWSER,
      args: ['--no-sandbox', '--disable-gpu'],
    })
    ends.push(() => browser.close())
    const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage()
    await page.goto(`https://localhost:${port}/`)
    const answer = await page.evaluate(
      async (url) =>
        new Promise<string>((resolve, reject) => {
          const { WebSocket: Socket } = globalThis as unknown as {
            WebSocket: new (url: string) => EventTarget
          }
          const socket = new Socket(url)
          socket.addEventListener('message', (event) => {
            const { data } = event as Event & { readonly data: string }
            if (data.includes('"note"')) resolve(data)
          })
          socket.addEventListener('error', () => reject(new Error('wss failed')))
        }),
      `wss://localhost:${port}/?name=browser`,
    )
    expect(answer).toContain('browser has come')
  })
})
