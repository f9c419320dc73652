/** ringloop over TLS with the poller `net`. */
import { serveTls } from './ringloop-tls.js'

await serveTls('net')
