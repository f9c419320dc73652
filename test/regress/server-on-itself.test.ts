// A loop module that starts its own server without asking for isMainThread made threads without end.
import { Server } from 'ringloop'
import { afterEach, expect, it } from 'vitest'
import { type Child, fixture, fixtureUrl, startChild } from '../support/child.js'
import { within } from '../support/wait.js'

let child: Child | undefined

afterEach(() => child?.kill())

it('is refused with a sentence that says what to change, and ends', async () => {
  child = startChild(fixture('server-on-itself.mjs'))
  const failure = await child.line('failed')
  expect(failure).toContain('ERR_RINGLOOP_MODULE_LOAD')
  expect(failure).toContain('isMainThread')
  expect(await child.exit()).toEqual({ code: 1, signal: null })
})

it('is refused as another program’s loop module too', async () => {
  const server = new Server(fixtureUrl('server-on-itself.mjs'), {
    address: '127.0.0.1:0',
    numLoops: 2,
    logger: false,
  })
  await expect(within('the start', server.start())).rejects.toMatchObject({
    code: 'ERR_RINGLOOP_MODULE_LOAD',
    message: expect.stringContaining('isMainThread'),
  })
  await within('the stop', server.stop())
})
