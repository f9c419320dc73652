/**
 * WebSocket: RFC 6455 and permessage-deflate (RFC 7692), server and client.
 *
 *     import { Server } from 'ringloop'
 *     import { WebSocketProtocol } from 'ringloop/websocket'
 *
 *     const handler = { onMessage: (c, ctx, data) => data }
 *     await new Server(handler, { address: ':1833', protocol: new WebSocketProtocol() }).start()
 */

export type { SendOptions, WebSocketContext, WebSocketMessage, WebSocketOut } from './message.js'
export type {
  ClientOptions,
  DeflateOptions,
  HeartbeatOptions,
  HttpAnswer,
  WebSocketOptions,
} from './options.js'
export { type WebSocketSession, webSocketOf } from './session.js'
export type { UpgradeRequest } from './upgrade-request.js'
export { WebSocketProtocol } from './websocket-protocol.js'
