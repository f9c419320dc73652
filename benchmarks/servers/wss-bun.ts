/** WebSocket echo over TLS in Bun. */
import { credentials } from '../harness/credentials.js'
import { serveBun } from './bun-websockets.js'

serveBun((socket, data) => socket.send(data), credentials())
