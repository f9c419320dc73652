// An addon that does not find the functions of OpenSSL, since it asks for others: TLS is for the net poller then.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { endExamples, runExample, startExample } from './example-process.js'
import { BuiltAddon } from './support/built-addon.js'
import { Authority } from './support/certificates.js'
import { connectTls } from './support/tls-client.js'

const BUILD_MS = 120_000

describe.skipIf(process.platform !== 'linux')('without the functions of OpenSSL', () => {
  const addon = new BuiltAddon()
  const authority = new Authority()
  const own = authority.issue()
  const files = ['--cert', authority.file('cert', own.cert), '--key', authority.file('key', own.key)]
  const before = process.env.RINGLOOP_NATIVE_ADDON

  beforeAll(() => {
    addon.build([], { CFLAGS: `-DOPENSSL_PREFIX='"absent_"'` })
    process.env.RINGLOOP_NATIVE_ADDON = addon.file
  }, BUILD_MS)

  afterAll(() => {
    if (before === undefined) delete process.env.RINGLOOP_NATIVE_ADDON
    else process.env.RINGLOOP_NATIVE_ADDON = before
    addon.remove()
    authority.remove()
  })
  afterEach(endExamples)

  it.each(['1', '2'])('%s loop(s) serve with the net poller', async (loops) => {
    const { port } = await startExample('echo', '--loops', loops, ...files)
    const client = await connectTls({ port }, { ca: authority.cert })
    expect(String(await client.echo('hello'))).toBe('hello')
    client.destroy()
  })

  it('plain connections are served natively all the same', async () => {
    const server = await startExample('echo', '--poller', 'native', '--loops', '1')
    const peer = await server.connect()
    await peer.write('hello')
    await peer.said(/^hello$/)
  })

  it('native says what is missing', async () => {
    const { code, stderr } = await runExample(
      'echo',
      '--poller',
      'native',
      '--loops',
      '1',
      '--port',
      '0',
      ...files,
    )
    expect(code).toBe(1)
    expect(stderr).toContain('the process has no absent_OPENSSL_version_major')
  })
})
