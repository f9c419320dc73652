/** ringloop over TLS with the poller `native`. */
import { serveTls } from './ringloop-tls.js'

await serveTls('native')
