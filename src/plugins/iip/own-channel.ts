/**
 * A channel that one caller has for himself, out of a client's pool and back to it. The client's thread only.
 */
import type { IipBody } from './body.js'
import { type Call, NO_OPTIONS, type RequestData, type RequestOptions } from './client-call.js'
import type { ClientChannel } from './client-channel.js'
import { IipError, IipErrorCode } from './errors.js'

/** See {@link IipClient.channel}. */
export interface IipChannel {
  /** Its id on its connection; another one after a request that went in several packets. */
  readonly id: number

  /** `true` once it was closed or its connection has ended: every request rejects. */
  readonly closed: boolean

  /**
   * See {@link IipClient.request}. After one was given up (timeout or signal), later ones wait until its answer has come:
   * they would not be handled earlier anyway.
   */
  request(path: string, data?: RequestData, options?: RequestOptions): Promise<Buffer>

  /** See {@link IipClient.stream}. */
  stream(path: string, data?: RequestData, options?: RequestOptions): IipBody

  /** Gives it back. Requests that are pending are still answered. */
  close(): void
}

/** Where calls can be sent. */
export interface CallTarget {
  submit(call: Call): void
}

/** What a channel needs of its client. */
export interface ChannelOwner {
  request(
    target: CallTarget,
    path: string,
    data: RequestData | undefined,
    options: RequestOptions,
  ): Promise<Buffer>
  stream(target: CallTarget, path: string, data: RequestData | undefined, options: RequestOptions): IipBody
}

export class OwnChannel implements IipChannel, CallTarget {
  readonly #channel: ClientChannel
  readonly #owner: ChannelOwner
  readonly #giveBack: () => void
  #closed = false

  constructor(channel: ClientChannel, owner: ChannelOwner, giveBack: () => void) {
    channel.taken = true
    this.#channel = channel
    this.#owner = owner
    this.#giveBack = giveBack
  }

  get id(): number {
    return this.#channel.id
  }

  get closed(): boolean {
    return this.#closed || this.#channel.closed
  }

  request(path: string, data?: RequestData, options: RequestOptions = NO_OPTIONS): Promise<Buffer> {
    return this.#owner.request(this, path, data, options)
  }

  stream(path: string, data?: RequestData, options: RequestOptions = NO_OPTIONS): IipBody {
    return this.#owner.stream(this, path, data, options)
  }

  /** The client's way in: a call that was made for this channel. */
  submit(call: Call): void {
    if (this.closed) {
      call.fail(new IipError(IipErrorCode.CLOSED, 'the channel is closed', false))
      return
    }
    this.#channel.outbox.push(call)
    this.#channel.flush()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#channel.taken = false
    this.#giveBack()
  }
}
