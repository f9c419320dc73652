/**
 * Two connections as one: what one peer sends goes to the other, as it is, until both have ended. A peer that does not
 * read holds the other back: neither side keeps more than its `highWaterMark`. Both connections' loop's thread only.
 */
import type { Connection } from '../connection.js'
import { ErrorCode, RingloopError } from '../errors.js'
import type { Diversion } from './receive-side.js'
import { TcpConnection } from './tcp-connection.js'

/** One direction: from the connection that it is given to as a diversion, to another one. */
class OneWay implements Diversion {
  readonly #from: TcpConnection
  readonly #to: TcpConnection
  readonly #onClosed: () => void

  constructor(from: TcpConnection, to: TcpConnection, onClosed: () => void) {
    this.#from = from
    this.#to = to
    this.#onClosed = onClosed
  }

  take(bytes: Uint8Array): boolean {
    if (this.#to.sendRaw(bytes)) return true
    if (this.#to.canSend) {
      void this.#resume()
      return false
    }
    // It broke, and nobody reads it who would see that: its reason says why.
    this.#to.close()
    return true
  }

  async #resume(): Promise<void> {
    await this.#to.drained()
    this.#from.diversionDrained()
  }

  end(): void {
    this.#to.shutdownWrite()
  }

  closed({ message }: { readonly message: string }): void {
    this.#to.close({ code: 'closed', message: `the other end of the pipe: ${message}` })
    this.#onClosed()
  }
}

/**
 * Connects two connections: the bytes of each go to the other from now on, raw, without `unPacket`, `onMessage` or
 * `packet`. The end of one peer's side becomes the end of ours to the other (half-close, whatever `allowHalfOpen` says),
 * and a connection that closes takes the other with it, after what is unsent. Resolves when both have closed; it never
 * rejects. `onClose` of both handlers is called as always. An answer that is pending when it is called goes out when it is
 * there. Call it in or after `onConnect`, on the loop of both.
 * Throws `ERR_RINGLOOP_OPTION` for what is not two connections of one loop, `ERR_RINGLOOP_STATE` where one cannot
 * send any more or is piped already.
 */
export function pipe(a: Connection<never>, b: Connection<never>): Promise<void> {
  const left = checkEnd(a)
  const right = checkEnd(b)
  if (left === right || left.loop !== right.loop) throw notTwo()
  const closed = (from: TcpConnection, to: TcpConnection): Promise<void> =>
    new Promise((resolve) => from.divert(new OneWay(from, to, resolve)))
  return Promise.all([closed(left, right), closed(right, left)]).then(() => {})
}

function checkEnd(c: Connection<never>): TcpConnection {
  if (!(c instanceof TcpConnection)) throw notTwo()
  if (!c.canSend || c.isDiverted) {
    throw new RingloopError(
      ErrorCode.STATE,
      'a connection that is piped must be able to send, and not be piped already',
    )
  }
  return c as TcpConnection
}

function notTwo(): RingloopError {
  return new RingloopError(ErrorCode.OPTION, 'pipe takes two connections of the same loop')
}
