/** WebSocket echo in Bun. */
import { serveBun } from './bun-websockets.js'

serveBun((socket, data) => socket.send(data))
