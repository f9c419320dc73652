/** Servers where the native addon is not, or is another one: what is served then depends on the Node version, and is said. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { ServerStats } from 'ringloop'
import { afterEach, describe, expect, it } from 'vitest'
import { type Child, fixture, startChild } from './support/child.js'
import { connectRaw, type RawClient, type Where } from './support/raw-client.js'
import { until } from './support/wait.js'

const NO_ADDON = { RINGLOOP_NATIVE_ADDON: '/there-is-none.node' }

const children: Child[] = []
const clients: RawClient[] = []
const folders: string[] = []

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  for (const child of children.splice(0)) child.kill()
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true })
})

function start(args: readonly string[], env: Readonly<Record<string, string>> = NO_ADDON): Child {
  const child = startChild(fixture('idle-server.mjs'), { args, env })
  children.push(child)
  return child
}

async function tempPath(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'ringloop-'))
  folders.push(folder)
  return path.join(folder, 'socket')
}

/** Node 22.12 shares a port among threads; from 24.20 and 26.6 on it hands sockets over. */
function loopsFor(where: 'tcp' | 'unix', wanted: number): number {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  return where === 'tcp' && (major > 22 || (major === 22 && minor >= 12)) ? wanted : 1
}

/** Twelve clients at once get 100 kB back each. */
async function echoes(where: Where): Promise<void> {
  const message = Buffer.alloc(100_000, 'without')
  await Promise.all(
    Array.from({ length: 12 }, async () => {
      const client = await connectRaw(where)
      clients.push(client)
      client.socket.on('end', () => client.socket.end())
      expect((await client.echo(message)).equals(message)).toBe(true)
    }),
  )
}

/** What it has counted, once that are so many bytes: a turn is counted at its end. */
async function statsOnce(child: Child, bytesIn: number): Promise<ServerStats> {
  let stats: ServerStats | undefined
  await until(`${bytesIn} bytes are counted`, async () => {
    child.stdout = ''
    child.say('stats')
    stats = JSON.parse(await child.line('stats')) as ServerStats
    return stats.total.bytesIn === bytesIn
  })
  return stats!
}

describe.skipIf(process.platform !== 'linux')('without the native addon', () => {
  for (const poller of ['auto', 'net']) {
    for (const kind of ['tcp', 'unix'] as const) {
      it(`${poller}, 3 loops, ${kind}: serves with as many loops as it can, and stops`, async () => {
        const socket = kind === 'unix' ? await tempPath() : undefined
        const args = ['--poller', poller, '--loops', '3']
        const child = start(socket === undefined ? args : [...args, '--path', socket])
        const port = Number(await child.line('listening'))
        await echoes(socket === undefined ? { port } : { path: socket })
        const { loops, total } = await statsOnce(child, 1_200_000)
        expect(loops).toHaveLength(loopsFor(kind, 3))
        expect(total).toMatchObject({ connections: 12, accepted: 12 })
        if (poller === 'auto') expect(child.stderr).toContain('the net poller is used')
        if (loops.length < 3) expect(child.stderr).toContain('one loop')
        child.say('stop')
        expect(await child.exit()).toEqual({ code: 0, signal: null })
      })
    }
  }

  it('poller: native is refused with what to do about it', async () => {
    const child = start(['--poller', 'native', '--loops', '2'])
    expect((await child.exit()).code).toBe(1)
    expect(child.stderr).toContain('ERR_RINGLOOP_POLLER')
  })
})

describe.skipIf(process.platform !== 'linux')('with an addon that was built from other sources', () => {
  for (const [what, file] of [
    ['before constants were compared', 'addon-without-constants.cjs'],
    ['with other numbers', 'addon-of-other-sources.cjs'],
  ] as const) {
    const env = { RINGLOOP_NATIVE_ADDON: fixture(file) }

    it(`${what}: auto serves with the net poller, and says what to do`, async () => {
      const child = start(['--poller', 'auto', '--here'], env)
      await echoes({ port: Number(await child.line('listening')) })
      expect(child.stderr).toContain('built from other sources')
      expect(child.stderr).toContain('run npm run build; the net poller is used')
      child.say('stop')
      expect(await child.exit()).toEqual({ code: 0, signal: null })
    })

    it(`${what}: native is refused with the same sentence`, async () => {
      const child = start(['--poller', 'native', '--loops', '2'], env)
      expect((await child.exit()).code).toBe(1)
      expect(child.stderr).toContain('ERR_RINGLOOP_POLLER')
      expect(child.stderr).toContain('run npm run build')
    })
  }
})
