// What making a context leaves behind. In a file of its own: servers with the net poller leave secrets in the same memory.
import { afterAll, expect, it } from 'vitest'
import { loadNativeAddon, type NativeAddon } from '../src/loop/poller/native-addon.js'
import { serverContext } from '../src/loop/poller/secure-context.js'
import { Authority } from './support/certificates.js'

const authority = new Authority()
const secret = authority.issue({ passphrase: 'open sesame' })
afterAll(() => authority.remove())

it('what is copied of a key and its passphrase is wiped', () => {
  const addon = loadNativeAddon() as NativeAddon
  const pool = (): Buffer => Buffer.from(Buffer.from('small ones lie in it').buffer)
  const before = pool()
  addon.dropContext(serverContext(addon, { ...secret, passphrase: 'open sesame' }))
  for (const memory of [before, pool()]) {
    expect(memory.includes('open sesame')).toBe(false)
    expect(memory.includes(secret.key.slice(40, 80))).toBe(false)
  }
})
