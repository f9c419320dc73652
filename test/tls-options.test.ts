// What the options of TLS do, with either poller: certificates, names, versions, tickets, and their replacement.
import { once } from 'node:events'
import tls from 'node:tls'
import {
  ErrorCode,
  EventLoop,
  type Handler,
  type ModuleServerOptions,
  type NamedTlsOptions,
  Server,
  type ServerTlsOptions,
} from 'ringloop'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { Authority, type Credentials } from './support/certificates.js'
import { fixtureUrl } from './support/child.js'
import { memoryLogger } from './support/memory-logger.js'
import { connectRaw } from './support/raw-client.js'
import { connectTls, startTls, type TlsClient, type TlsClientOptions } from './support/tls-client.js'
import { until, within } from './support/wait.js'

const authority = new Authority()
const stranger = new Authority('a stranger')
const local = authority.issue()
const other = authority.issue({ names: ['a.example'] })
const wild = authority.issue({ names: ['*.b.example'] })
const rsa = authority.issue({ rsa: true })
const secret = authority.issue({ passphrase: 'open sesame' })
const client = authority.issue({ names: ['client.example'] })
const strangeClient = stranger.issue({ names: ['client.example'] })

afterAll(() => {
  authority.remove()
  stranger.remove()
})

const clients: TlsClient[] = []
const servers: Server[] = []
const loops: EventLoop[] = []
const closers: (() => void)[] = []

afterEach(async () => {
  for (const close of closers.splice(0)) close()
  for (const each of clients.splice(0)) each.destroy()
  await Promise.all(loops.splice(0).map((loop) => loop.stop()))
  await Promise.all(servers.splice(0).map((server) => within('stop', server.stop())))
})

/** What looks like a certificate. */
const BROKEN = '-----BEGIN CERTIFICATE-----\nMIIB!\n-----END CERTIFICATE-----\n'

/** What a name can have. */
const own = ({ key, cert }: Credentials): NamedTlsOptions => ({ key, cert })

interface Said {
  readonly protocol: string
  readonly cipher: string
  readonly alpnProtocol?: string
  readonly servername?: string
  readonly authorized: boolean
  readonly authorizationError?: string
  readonly subject?: string
  readonly resumed: boolean
  readonly loop: number
  readonly poller: string
}

const MODULE = fixtureUrl('tls-loop.mjs')

async function serve(options: ModuleServerOptions): Promise<Server> {
  const server = new Server(MODULE, { address: '127.0.0.1:0', numLoops: 1, logger: false, ...options })
  servers.push(server)
  await within('start', server.start())
  return server
}

async function dial(server: Server, options: TlsClientOptions = {}): Promise<TlsClient> {
  const made = await within('the handshake', connectTls(server.address, { ca: authority.cert, ...options }))
  clients.push(made)
  return made
}

async function ask(made: TlsClient): Promise<Said> {
  return JSON.parse(await made.ask('tls')) as Said
}

/** A client that is turned away: in TLS 1.3 it hears of it after its own handshake. */
async function isRefused(server: Server, options: TlsClientOptions = {}): Promise<boolean> {
  const made = startTls(server.address, { ca: authority.cert, ...options })
  clients.push(made)
  made.write('tls')
  await until('it is closed or answered', () => made.closed || made.ended || made.length > 0)
  return made.length === 0
}

function subject(made: TlsClient): string {
  return String(made.socket.getPeerCertificate().subject.CN)
}

for (const poller of ['native', 'net'] as const) {
  describe(`${poller}: the options of a server`, () => {
    it('c.tls says what was agreed on', async () => {
      const server = await serve({ poller, tls: { ...local, ALPNProtocols: ['one', 'two'] } })
      const made = await dial(server, { ALPNProtocols: ['zero', 'two'], servername: 'localhost' })
      expect(await ask(made)).toEqual({
        ...{
          protocol: 'TLSv1.3',
          cipher: 'TLS_AES_256_GCM_SHA384',
          alpnProtocol: 'two',
          servername: 'localhost',
        },
        ...{ authorized: false, resumed: false, loop: 0, poller },
      })
      expect(made.socket.alpnProtocol).toBe('two')
      const total = server.stats().total
      expect([total.tlsHandshakes, total.tlsResumed, total.tlsHandshakeTime.count]).toEqual([1, 0, 1])
    })

    it('a client whose protocols are all unknown is refused', async () => {
      const server = await serve({ poller, tls: { ...local, ALPNProtocols: ['one'] } })
      expect(await isRefused(server, { ALPNProtocols: ['zero'] })).toBe(true)
      await until('it is counted', () => server.stats().total.tlsFailures['no-protocol'] === 1)
      expect((await ask(await dial(server))).alpnProtocol).toBeUndefined()
    })

    it('sni gives names certificates of their own', async () => {
      const sni = { '*.b.example': own(wild), 'A.example': own(other), 'exact.b.example': own(other) }
      const server = await serve({ poller, tls: { ...local, ALPNProtocols: ['p'], sni } })
      const seen = async (servername: string): Promise<string> =>
        subject(
          await dial(server, { servername, checkServerIdentity: () => undefined, ALPNProtocols: ['p'] }),
        )
      expect(await seen('a.example')).toBe('a.example')
      expect(await seen('x.b.example')).toBe('*.b.example')
      expect(await seen('exact.b.example')).toBe('a.example')
      expect(await seen('x.y.b.example')).toBe('localhost')
      expect(await seen('unknown.example')).toBe('localhost')
      await until('all are counted', () => server.stats().total.tlsHandshakes === 5)
    })

    it('keys of several kinds, encrypted or not, serve together', async () => {
      const tls: ServerTlsOptions = {
        key: [rsa.key, { pem: secret.key, passphrase: 'open sesame' } as never],
        cert: [rsa.cert, secret.cert],
      }
      const server = await serve({ poller, tls })
      const of = async (ciphers: string): Promise<string> => {
        const made = await dial(server, { maxVersion: 'TLSv1.2', ciphers })
        return (await ask(made)).cipher
      }
      expect(await of('ECDHE-RSA-AES128-GCM-SHA256')).toBe('ECDHE-RSA-AES128-GCM-SHA256')
      expect(await of('ECDHE-ECDSA-AES128-GCM-SHA256')).toBe('ECDHE-ECDSA-AES128-GCM-SHA256')
      const alone = await serve({ poller, tls: { ...secret, passphrase: 'open sesame' } })
      expect((await ask(await dial(alone))).protocol).toBe('TLSv1.3')
    })

    it('versions and ciphers are those that were given', async () => {
      const server = await serve({
        poller,
        tls: { ...local, maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES256-GCM-SHA384' },
      })
      expect(await ask(await dial(server))).toMatchObject({
        protocol: 'TLSv1.2',
        cipher: 'ECDHE-ECDSA-AES256-GCM-SHA384',
      })
      expect(await isRefused(server, { minVersion: 'TLSv1.3' })).toBe(true)
      await until('it is counted', () => server.stats().total.tlsFailures['old-version'] === 1)
      expect(await isRefused(server, { ciphers: 'ECDHE-ECDSA-AES128-GCM-SHA256' })).toBe(true)
      await until('that too', () => server.stats().total.tlsFailures['no-cipher'] === 1)
      const suites = await serve({ poller, tls: { ...local, ciphers: 'TLS_AES_128_GCM_SHA256' } })
      expect((await ask(await dial(suites))).cipher).toBe('TLS_AES_128_GCM_SHA256')
      expect(await isRefused(suites, { maxVersion: 'TLSv1.2' })).toBe(true)
    })

    it('requestCert wants a certificate that is trusted', async () => {
      const server = await serve({ poller, tls: { ...local, ca: authority.cert, requestCert: true } })
      const said = await ask(await dial(server, { key: client.key, cert: client.cert }))
      expect(said).toMatchObject({ authorized: true, subject: 'CN=client.example' })
      expect(said.authorizationError).toBeUndefined()
      expect(await isRefused(server)).toBe(true)
      expect(await isRefused(server, { key: strangeClient.key, cert: strangeClient.cert })).toBe(true)
      expect(await isRefused(server, { maxVersion: 'TLSv1.2' })).toBe(true)
      await until('nobody is counted but the one', () => server.stats().total.connections === 1)
      if (poller === 'native') expect(server.stats().total.tlsFailures.certificate).toBe(3)
    })

    it('only false is no', async () => {
      const tls = { ...local, ca: authority.cert, requestCert: true, rejectUnauthorized: null as never }
      expect(await isRefused(await serve({ poller, tls }))).toBe(true)
    })

    it('or says what is wrong with it', async () => {
      const tls = { ...local, ca: authority.cert, requestCert: true, rejectUnauthorized: false }
      const server = await serve({ poller, tls })
      expect(await ask(await dial(server, { key: client.key, cert: client.cert }))).toMatchObject({
        authorized: true,
      })
      const strange = await ask(await dial(server, { key: strangeClient.key, cert: strangeClient.cert }))
      expect(strange.authorized).toBe(false)
      expect(strange.authorizationError).toMatch(/^UNABLE_TO_/)
      expect(await ask(await dial(server))).toMatchObject({
        authorized: false,
        authorizationError: 'UNABLE_TO_GET_ISSUER_CERT',
      })
    })

    for (const [what, tls, words] of [
      ['a key that is none', { key: 'x', cert: local.cert }, /key|PEM|start line|DECODER/i],
      ['a certificate that is none', { key: local.key, cert: 'y' }, /cert|PEM|start line/i],
      ['a key of another certificate', { key: other.key, cert: local.cert }, /key values mismatch/],
      ['a wrong passphrase', { ...secret, passphrase: 'wrong' }, /decrypt|pass/i],
      ['no passphrase', { ...secret }, /error:/],
      ['a cipher that there is not', { ...local, ciphers: 'NONE-SUCH' }, /cipher/i],
      ['a name with a bad certificate', { ...local, sni: { 'a.example': { key: 'x', cert: 'y' } } }, /./],
      ['a limit that is none', { ...local, maxHandshakes: 0 }, /maxHandshakes/],
      ['a chain with a broken link', { ...local, cert: local.cert + BROKEN }, /base64|PEM/],
      ['ciphers that are no text', { ...local, ciphers: 5 as never }, /ciphers/],
      ['a time that is none', { ...local, sessionTimeout: 'long' as never }, /sessionTimeout/],
      ['a time without end', { ...local, sessionTimeout: 1e12 }, /sessionTimeout/],
      ['a time before now', { ...local, sessionTimeout: -1 }, /sessionTimeout/],
      ['names that are none', { ...local, sni: null as never }, /sni/],
      ['a name with nothing', { ...local, sni: { 'a.example': null as never } }, /sni.*a\.example/],
      ['a name that is too long', { ...local, sni: { ['a'.repeat(256)]: own(other) } }, /sni.*255/],
      ['a name with a NUL', { ...local, sni: { 'a\0': own(other) } }, /sni/],
      [
        'a name with an option that names do not have',
        { ...local, sni: { 'a.example': { ...own(other), requestCert: true } as never } },
        /sni.*requestCert/,
      ],
    ] as [string, ServerTlsOptions, RegExp][]) {
      it(`start and setTls refuse ${what}, in OpenSSL’s words`, async () => {
        await expect(serve({ poller, tls })).rejects.toMatchObject({
          code: ErrorCode.OPTION,
          message: expect.stringMatching(words),
        })
        const server = await serve({ poller, tls: local })
        await expect(server.setTls(tls)).rejects.toMatchObject({ code: ErrorCode.OPTION })
        expect(subject(await dial(server))).toBe('localhost')
      })
    }

    for (const numLoops of [1, 2]) {
      it(`${numLoops} loops: setTls is for new connections, and keeps what is not given`, async () => {
        const tls: ServerTlsOptions = { ...local, ca: authority.cert, requestCert: true }
        const server = await serve({ poller, numLoops, tls })
        const own = { key: client.key, cert: client.cert }
        const before = await dial(server, own)
        expect(subject(before)).toBe('localhost')
        await within('setTls', server.setTls({ key: other.key, cert: other.cert }))
        for (let i = 0; i < 4; i++) {
          const after = await dial(server, { ...own, servername: 'a.example' })
          expect(subject(after)).toBe('a.example')
          expect((await ask(after)).authorized).toBe(true)
        }
        expect(await isRefused(server, { servername: 'a.example' })).toBe(true)
        expect((await ask(before)).authorized).toBe(true)
      })

      for (const version of ['TLSv1.3', 'TLSv1.2'] as const) {
        it(`${numLoops} loops: sessions are resumed with ${version}, until setTls`, async () => {
          const server = await serve({ poller, numLoops, tls: local })
          const made = startTls(server.address, { ca: authority.cert, maxVersion: version })
          clients.push(made)
          const ticket = once(made.socket, 'session') as Promise<[Buffer]>
          await once(made.socket, 'secureConnect')
          await ask(made)
          const [session] = await within('a ticket', ticket)
          const resumes = async (): Promise<boolean> => {
            const again = await dial(server, { maxVersion: version, session })
            expect((await ask(again)).resumed).toBe(again.socket.isSessionReused())
            return again.socket.isSessionReused()
          }
          for (let i = 0; i < 4; i++) expect(await resumes()).toBe(true)
          expect(server.stats().total.tlsResumed).toBe(4)
          await server.setTls({})
          expect(await resumes()).toBe(false)
        })
      }
    }

    it('setTls changes the time that a handshake may take', async () => {
      const server = await serve({ poller, tls: local, handshakeTimeout: 3_600_000 })
      await server.setTls({ handshakeTimeout: 100 })
      const silent = await connectRaw(server.address)
      await within('its end', silent.whenEnded())
      silent.destroy()
      expect(server.stats().total.tlsFailures.late).toBe(1)
    })

    it('setTls needs a server that speaks TLS and serves', async () => {
      const plain = await serve({ poller })
      await expect(plain.setTls(local)).rejects.toMatchObject({ code: ErrorCode.STATE })
      const stopped = await serve({ poller, tls: local })
      await stopped.stop()
      await expect(stopped.setTls(local)).rejects.toMatchObject({ code: ErrorCode.STATE })
    })

    it('one who leaves without a close_notify ends with a reason of its own', async () => {
      const reasons: string[] = []
      const handler: Handler = {
        onMessage: (_c, _ctx, data) => data,
        onClose: (_c, reason) => void reasons.push(reason.code),
      }
      const server = new Server(handler, { address: '127.0.0.1:0', logger: false, poller, tls: local })
      servers.push(server)
      await server.start()
      const [polite, rude] = [await dial(server), await dial(server)]
      for (const each of [polite, rude]) await each.echo('here')
      rude.raw.end()
      await until('it is gone', () => reasons.length === 1)
      polite.socket.end()
      await until('both are gone', () => reasons.length === 2)
      expect(reasons).toEqual([poller === 'native' ? 'tls-truncated' : 'peer-closed', 'peer-closed'])
    })
  })

  describe(`${poller}: the options of connect`, () => {
    const handler: Handler = { onMessage() {} }

    function makeLoop(): EventLoop {
      const loop = new EventLoop({ logger: false, poller })
      loops.push(loop)
      return loop
    }

    async function tlsServer(options: tls.TlsOptions): Promise<string> {
      const server = tls.createServer(options, (socket) => socket.on('error', () => {}).end('hello'))
      server.listen(0, '127.0.0.1')
      await once(server, 'listening')
      closers.push(() => server.close())
      return `localhost:${(server.address() as { port: number }).port}`
    }

    const refusal = async (address: string, options: tls.ConnectionOptions | true): Promise<unknown> =>
      within('connect', makeLoop().connect(address, { handler, tls: options })).then(
        () => undefined,
        (error: unknown) => error,
      )

    it('a server is verified, and by its name', async () => {
      const address = await tlsServer(local)
      expect(await refusal(address, { ca: authority.cert })).toBeUndefined()
      expect(await refusal(address.replace('localhost', '127.0.0.1'), { ca: authority.cert })).toBeUndefined()
      const unknown = { code: ErrorCode.CONNECT }
      expect(await refusal(address, true)).toMatchObject(unknown)
      expect(await refusal(address, { ca: stranger.cert })).toMatchObject(unknown)
      const named = await refusal(address, { ca: authority.cert, servername: 'example.org' })
      expect(named).toMatchObject(unknown)
      if (poller === 'native')
        expect(named).toMatchObject({ cause: { code: 'ERR_TLS_CERT_ALTNAME_INVALID' } })
      expect(await refusal(address, { ca: 'x' })).toMatchObject(unknown)
      const unsaid = { ca: stranger.cert, rejectUnauthorized: null as never }
      expect(await refusal(address, unsaid)).toMatchObject(unknown)
    })

    it('c.tls says who it is, also of one that is not trusted where that is allowed', async () => {
      const address = await tlsServer({ ...local, ALPNProtocols: ['p'] })
      const loop = makeLoop()
      const trusted = await loop.connect(address, {
        handler,
        tls: { ca: authority.cert, ALPNProtocols: ['p'] },
      })
      expect(trusted.tls).toMatchObject({ protocol: 'TLSv1.3', authorized: true, alpnProtocol: 'p' })
      expect(trusted.tls?.peerCertificate?.subject).toBe('CN=localhost')
      expect(trusted.tls).toBe(trusted.tls)
      const any = await loop.connect(address, { handler, tls: { rejectUnauthorized: false } })
      expect(any.tls?.authorized).toBe(false)
      expect(any.tls?.authorizationError).toMatch(/^UNABLE_TO_|^SELF_SIGNED/)
    })

    if (poller === 'native') {
      it('what is wrong with a certificate has the code that Node has for it', async () => {
        const link = authority.issue({ names: ['link.example'] })
        const behind = authority.issue({ signer: link })
        for (const [shown, ca] of [
          [behind, authority.cert],
          [{ key: behind.key, cert: behind.cert + link.cert }, authority.cert],
          [behind, link.cert],
          [local, stranger.cert],
        ] as const) {
          const address = await tlsServer(shown)
          const node = tls.connect({ port: Number(address.split(':')[1]), servername: 'localhost', ca })
          const [theirs] = (await once(node, 'error')) as [NodeJS.ErrnoException]
          expect(await refusal(address, { ca })).toMatchObject({ cause: { code: theirs.code } })
        }
      })

      it('NODE_TLS_REJECT_UNAUTHORIZED is asked for each time', async () => {
        const address = await tlsServer(local)
        const loop = makeLoop()
        const connect = (): Promise<boolean> =>
          loop.connect(address, { handler, tls: { ca: stranger.cert } }).then(
            () => true,
            () => false,
          )
        closers.push(() => {
          delete process.env.NODE_TLS_REJECT_UNAUTHORIZED
        })
        process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'
        expect(await connect()).toBe(true)
        delete process.env.NODE_TLS_REJECT_UNAUTHORIZED
        expect(await connect()).toBe(false)
      })
    }

    it('shows a certificate of its own', async () => {
      const address = await tlsServer({ ...local, ca: authority.cert, requestCert: true })
      const own: Partial<Credentials> = { key: client.key, cert: client.cert, ca: authority.cert }
      let isAuthorized: boolean | undefined
      await makeLoop().connect(address, {
        handler: {
          onMessage(c) {
            isAuthorized = c.tls?.authorized
          },
        },
        tls: own,
      })
      await until('it is served', () => isAuthorized !== undefined)
      expect(isAuthorized).toBe(true)
    })
  })
}

describe('which poller speaks TLS', () => {
  const SNICallback = (_name: string, done: (error: null) => void): void => done(null)

  it('native, unless an option is not for it: then net, with a line', async () => {
    const logger = memoryLogger()
    const handler: Handler = { onMessage: (c) => c.loop.poller }
    const of = async (options: ServerTlsOptions): Promise<string> => {
      const server = new Server(handler, { address: '127.0.0.1:0', logger, tls: { ...local, ...options } })
      servers.push(server)
      await server.start()
      return (await dial(server)).ask('which')
    }
    expect(await of({})).toBe('native')
    expect(await of({ SNICallback: undefined as never })).toBe('native')
    expect(await of({ SNICallback: SNICallback as never })).toBe('net')
    expect(JSON.stringify(logger.lines)).toContain('the native poller does not know tls.SNICallback')
  })

  it('native insists', async () => {
    const tls = { ...local, SNICallback: SNICallback as never }
    const server = new Server(
      { onMessage() {} },
      { address: '127.0.0.1:0', logger: false, poller: 'native', tls },
    )
    await expect(server.start()).rejects.toMatchObject({
      code: ErrorCode.OPTION,
      message: expect.stringContaining('SNICallback'),
    })
  })
})
