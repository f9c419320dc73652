/** ringloop on its node:net poller. */
import { serveEcho } from './ringloop-echo.js'

await serveEcho('net')
