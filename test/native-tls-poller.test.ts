// What every poller must do, of the native one over TLS.
import { afterAll } from 'vitest'
import { NativePoller } from '../src/loop/poller/native-poller.js'
import { testHandshakes } from './handshakes.case.js'
import { testPoller } from './poller.case.js'
import { Authority } from './support/certificates.js'

const authority = new Authority()
afterAll(() => authority.remove())
const credentials = authority.issue()

testPoller('native, TLS 1.3', (sink, options) => new NativePoller(sink, options), credentials)
testPoller(
  'native, TLS 1.2',
  (sink, options) => {
    const { tls, ...rest } = options ?? {}
    return new NativePoller(
      sink,
      tls === undefined ? rest : { ...rest, tls: { ...tls, maxVersion: 'TLSv1.2' } },
    )
  },
  credentials,
)
testHandshakes('native', (sink, options) => new NativePoller(sink, options))
