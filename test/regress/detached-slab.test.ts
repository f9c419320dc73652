// Transferring the buffer of a view that a protocol was lent freed the memory that the addon went on reading into.
import { afterEach, expect, it } from 'vitest'
import { type Child, fixture, startChild } from '../support/child.js'

const children: Child[] = []

afterEach(() => {
  for (const child of children.splice(0)) child.kill()
})

it.each(['stream', 'clone', 'post', ...('transfer' in ArrayBuffer.prototype ? ['transfer'] : [])])(
  '%s: is refused, or ends with an error that says so, and never by a signal',
  async (way) => {
    const child = startChild(fixture('detach-slab.mjs'), { args: [way], execArgv: ['--expose-gc'] })
    children.push(child)
    const { code, signal } = await child.exit()
    expect(signal, child.stderr).toBeNull()
    if (code === 0) expect(child.stdout).toContain('served')
    else expect(child.stdout).toMatch(/^uncaught .*(transferred away|range of the storage)$/m)
  },
)
