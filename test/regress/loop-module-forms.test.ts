// The forms in which a loop module may give its handler and protocol; TypeScript's CommonJS output was refused.
import { Server } from 'ringloop'
import { afterEach, describe, expect, it } from 'vitest'
import { fixtureUrl } from '../support/child.js'
import { connectRaw, type RawClient } from '../support/raw-client.js'
import { within } from '../support/wait.js'

let client: RawClient | undefined
let server: Server | undefined

afterEach(async () => {
  client?.destroy()
  await within('the stop', server!.stop())
})

describe('a loop module may be', () => {
  for (const [name, file, answer] of [
    ['classes compiled to CommonJS by TypeScript', 'compiled.cjs', 'compiled 0 hello\n'],
    ['CommonJS by hand', 'plain.cjs', 'plain 0 hello\n'],
    ['async factories', 'async-factories.mjs', 'async 0 of 0 hello\n\n'],
  ] as const) {
    it(name, async () => {
      server = new Server(fixtureUrl(file), { address: '127.0.0.1:0', numLoops: 1, logger: false })
      await within('the start', server.start())
      client = await connectRaw({ port: server.address.port })
      client.write('hello\n')
      await client.bytes(answer.length)
      expect(client.text).toBe(answer)
    })
  }
})
