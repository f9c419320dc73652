/** WebSocket echo over TLS on the epoll addon. */
import { credentials } from '../harness/credentials.js'
import { serveWebSocket } from './websocket-ringloop.js'

await serveWebSocket('native', credentials())
