/** The one timer of a WebSocket: for its handshake, then its heartbeat, then its close. Lives on the loop's wheel. */
import { Timer } from '../../index.js'
import type { WebSocketSession } from './session.js'

export class SessionTimer extends Timer {
  readonly #session: WebSocketSession

  constructor(session: WebSocketSession) {
    super()
    this.#session = session
    this.unref()
  }

  fire(): void {
    this.#session.owner.handleTimer(this.#session)
  }
}
