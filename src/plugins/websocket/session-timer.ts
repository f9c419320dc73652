/** The one timer of a WebSocket: for its handshake, then its heartbeat, then its close. Lives on the loop's wheel. */
import { Timer } from '../../index.js'
import type { Session } from './session.js'

export class SessionTimer extends Timer {
  readonly #session: Session

  constructor(session: Session) {
    super()
    this.#session = session
    this.unref()
  }

  fire(): void {
    this.#session.shared.lifecycle.handleTimer(this.#session)
  }
}
