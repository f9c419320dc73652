/** IIP on the node:net poller. */
import { serveIip } from './iip-ringloop.js'

await serveIip('net')
