// A log line that could not be written ended the process: at the first bad packet of a peer.
import { spawn } from 'node:child_process'
import { closeSync, existsSync, openSync } from 'node:fs'
import { afterEach, describe, expect, it } from 'vitest'
import { Child, fixture } from '../support/child.js'
import { connectRaw } from '../support/raw-client.js'

let child: Child | undefined

afterEach(() => child?.kill())

function startUnwritable(args: readonly string[]): Child {
  const full = openSync('/dev/full', 'w')
  try {
    return new Child(
      spawn(process.execPath, [fixture('idle-server.mjs'), ...args], { stdio: ['pipe', 'pipe', full] }),
    )
  } finally {
    closeSync(full)
  }
}

describe.skipIf(!existsSync('/dev/full'))('with 2>/dev/full', () => {
  for (const poller of ['native', 'net']) {
    for (const args of [['--here'], ['--loops', '2']]) {
      it(`${poller} ${args.join(' ')}: connections that fail are closed, others are served, and it stops`, async () => {
        child = startUnwritable(['--poller', poller, ...args])
        const port = Number(await child.line('listening'))
        const other = await connectRaw({ port })
        for (let i = 0; i < 5; i++) {
          const failing = await connectRaw({ port })
          failing.write('throw')
          await failing.whenEnded()
        }
        expect(String(await other.echo('alive'))).toBe('alive')
        other.destroy()
        child.say('stop')
        expect(await child.exit()).toEqual({ code: 0, signal: null })
      })
    }
  }
})
