// A unix socket that could not be removed, since privileges were dropped after binding, made `stop` reject: threads and
// connections went on running.
import { chmodSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { ErrorCode, EventLoop, type Handler, Server } from 'ringloop'
import { afterEach, expect, it } from 'vitest'
import { fixtureUrl } from '../support/child.js'
import { memoryLogger } from '../support/memory-logger.js'
import { connectRaw } from '../support/raw-client.js'
import { within } from '../support/wait.js'

const NOBODY = 65_534
const here: Handler = { onMessage: (_c, _ctx, data) => data }

const ends: (() => void)[] = []

afterEach(() => {
  for (const end of ends.splice(0)) end()
})

function tempFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'ringloop-'))
  ends.push(() => {
    chmodSync(folder, 0o755)
    rmSync(folder, { recursive: true })
  })
  return folder
}

/** Root may remove everything: from now on, to the end of the test, this process is nobody if it can be. */
function dropPrivileges(): void {
  if (process.geteuid?.() !== 0) return
  process.seteuid?.(NOBODY)
  ends.unshift(() => process.seteuid?.(0))
}

for (const poller of ['native', 'net'] as const) {
  for (const [name, source, numLoops] of [
    ['here', here, 1],
    ['1 thread', fixtureUrl('echo.mjs'), 1],
    ['2 threads', fixtureUrl('echo.mjs'), 2],
  ] as const) {
    it(`${poller}, ${name}: stop ends everything and says that it was left`, async () => {
      const folder = tempFolder()
      const file = path.join(folder, 's.sock')
      const logger = memoryLogger()
      const server = new Server(source as URL, { address: { path: file }, numLoops, poller, logger })
      await within('the start', server.start())
      const client = await connectRaw({ path: file })
      ends.push(() => client.destroy())
      expect(String(await client.echo('hello'))).toBe('hello')
      chmodSync(folder, 0o555)
      dropPrivileges()
      await within('the stop', server.stop())
      await client.whenEnded()
      expect(existsSync(file)).toBe(true)
      expect(logger.find('warn', file)).toHaveLength(1)
      expect(logger.lines.filter(({ level }) => level === 'warn' || level === 'error')).toHaveLength(1)
      expect(server.stats().total.connections).toBe(0)
    })
  }

  it(`${poller}: a path that no socket can have is refused as an option`, async () => {
    for (const wrong of [`/tmp/${'x'.repeat(103)}`, '/tmp/a\0b']) {
      const server = new Server(here, { address: { path: wrong }, poller, logger: false })
      await expect(server.start()).rejects.toMatchObject({ code: ErrorCode.OPTION })
      const loop = new EventLoop({ poller, logger: false })
      await expect(loop.connect({ path: wrong }, { handler: here })).rejects.toMatchObject({
        code: ErrorCode.OPTION,
      })
      await loop.stop()
    }
  })

  it(`${poller}: a relative one that does not fit when it is resolved is an error of listening`, async () => {
    const home = process.cwd()
    ends.unshift(() => process.chdir(home))
    process.chdir(tempFolder())
    const server = new Server(here, { address: { path: 'x'.repeat(100) }, poller, logger: false })
    await expect(server.start()).rejects.toMatchObject({
      code: ErrorCode.LISTEN,
      message: expect.stringMatching(/at most \d+ bytes/),
    })
  })
}
