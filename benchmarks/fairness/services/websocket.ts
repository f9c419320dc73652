/** WebSocket with compression: short messages are echoed, long ones are only inflated. */
import type { Handler } from 'ringloop'
import { type WebSocketContext, type WebSocketOut, WebSocketProtocol } from 'ringloop/websocket'

const SHORT = 1024

const handler: Handler<WebSocketContext, WebSocketOut> = {
  onMessage: (_c, _ctx, data) => (data.length > SHORT ? undefined : data),
}
export default handler

export const protocol: WebSocketProtocol = new WebSocketProtocol({ perMessageDeflate: true })
