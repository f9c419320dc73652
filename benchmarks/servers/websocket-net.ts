/** WebSocket echo on the node:net poller. */
import { serveWebSocket } from './websocket-ringloop.js'

await serveWebSocket('net')
