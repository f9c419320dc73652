/**
 * One channel as a client sees it: the calls that were sent on it and wait for their answers, which come in the same
 * order. It belongs to its connection. The loop's thread only.
 */
import Denque from 'denque'
import type { Call } from './client-call.js'
import type { ClientConnection } from './client-connection.js'

export class ClientChannel {
  /** Another one after {@link renewing}. */
  id: number
  readonly connection: ClientConnection
  /** Sent, and not answered; the first one's answer comes next. */
  readonly pending: Denque<Call> = new Denque()
  /** For a channel that somebody has for himself: calls that wait until data can be sent. */
  readonly outbox: Denque<Call> = new Denque()
  /** Somebody has it for himself. */
  taken = false
  /** A call was given up whose answer is still to come: no further calls until it is here. */
  retired = false
  closed = false
  /** A request's chunks are being sent. */
  sending = false
  /** The last call is one that no other may follow before it is answered. */
  exclusive = false
  /** More answers to a request than one may come: to be renewed once that request is out. */
  stale = false
  /** The server was asked to forget it, and for another one in its place. */
  renewing = false
  /** When the server was asked to forget it, in ms of `performance.now()`: what comes for it is dropped. 0: it was not. */
  deletedAt = 0
  /** An answer has begun and not ended. */
  answering = false

  constructor(connection: ClientConnection, id: number) {
    this.connection = connection
    this.id = id
  }

  get usable(): boolean {
    const waits = this.retired || this.sending || this.exclusive || this.renewing
    return !(this.closed || waits || !this.connection.writable)
  }

  /** Calls that somebody waits for. */
  get live(): number {
    let count = this.outbox.length
    for (let i = 0; i < this.pending.length; i++) {
      const call = this.pending.peekAt(i)!
      if (!call.settled && !call.quiet) count++
    }
    return count
  }

  /** Sends what waits for this channel, as far as the connection takes it. */
  flush(): void {
    while (this.usable) {
      const call = this.outbox.shift()
      if (call === undefined) return
      if (!call.settled && !this.connection.send(this, call)) this.outbox.unshift(call)
    }
  }

  /** Ends it; the peer is not told. */
  close(error: (sent: boolean) => Error): void {
    this.closed = true
    for (const queue of [this.pending, this.outbox]) {
      for (let call = queue.shift(); call !== undefined; call = queue.shift()) call.fail(error(call.sent))
    }
  }
}
