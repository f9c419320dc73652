/** WebSocket echo on the epoll addon. */
import { serveWebSocket } from './websocket-ringloop.js'

await serveWebSocket('native')
