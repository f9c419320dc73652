/** What goes in and out of a handler under the WebSocket protocol. Types, and the two contexts that exist. */

/** With which kind of message `data` came. One of two objects that are the same for all messages. */
export interface WebSocketContext {
  readonly type: 'text' | 'binary'
  readonly binary: boolean
}

export const TEXT: WebSocketContext = Object.freeze({ type: 'text', binary: false })
export const BINARY: WebSocketContext = Object.freeze({ type: 'binary', binary: true })

/** A message with its options said. Plain data, so that it can be broadcast from another thread. */
export interface WebSocketMessage extends SendOptions {
  readonly data: string | Uint8Array
}

export interface SendOptions {
  /** Default: strings are text, bytes are binary. Bytes that go out as text must be UTF-8. */
  readonly binary?: boolean
  /** Where compression was agreed on. Default: from `threshold` bytes on. */
  readonly compress?: boolean
}

/**
 * What may be returned and sent: a string goes out as text. Bytes that answer a message take its kind; bytes that are
 * sent go out as binary.
 */
export type WebSocketOut = string | Uint8Array | WebSocketMessage
