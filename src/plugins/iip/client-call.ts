/**
 * One request of a client, from the call to the moment its promise settles, which happens exactly once. It outlives that
 * moment where its answer is still to come: the answer is then taken off the wire and dropped.
 */
import {
  type ByteSource,
  type ByteStream,
  checkOptions,
  type Loop,
  type OptionNames,
  type Timer,
} from '../../index.js'
import { Assembly } from './assembly.js'
import { IipError, IipErrorCode } from './errors.js'

export interface RequestOptions {
  /** Milliseconds until the request is given up, waiting and connecting included; 0 is never. Default: the client's. */
  readonly timeout?: number
  /** Gives the request up; its promise rejects with the signal's reason. */
  readonly signal?: AbortSignal
}

export const REQUEST_OPTIONS: OptionNames<RequestOptions> = {
  timeout: true,
  signal: true,
}

/** The options of a request that was given none: they need no check. */
export const NO_OPTIONS: RequestOptions = {}

/** Throws `ERR_RINGLOOP_OPTION`. */
export function checkRequestOptions(options: RequestOptions): void {
  if (options !== NO_OPTIONS) checkOptions('a request', options, REQUEST_OPTIONS)
}

/** What can be sent: bytes, a string as UTF-8, or chunks that go out as they come. */
export type RequestData = Uint8Array | string | AsyncIterable<Uint8Array | string>

export class Call {
  /** With its NUL. */
  readonly path: Buffer
  readonly data: Uint8Array | AsyncIterable<Uint8Array | string>
  /** Takes the answer's bytes if they are wanted as they come. */
  readonly body: ByteStream | undefined
  /** Who counts the bytes of the body. */
  bodyOwner: ByteSource | undefined = undefined
  /** Where it was sent. */
  channel = 0
  /** Bytes of it may have left this process. */
  sent = false
  settled = false
  /** Told when it is given up after it was sent, or before. */
  onAbandon: (() => void) | undefined = undefined
  /** Told once, however it ends. */
  onSettled: (() => void) | undefined = undefined
  #assembly: Assembly | undefined = undefined
  #timer: Timer | undefined = undefined
  #signal: AbortSignal | undefined = undefined
  readonly #resolve: (data: Buffer) => void
  readonly #reject: (error: unknown) => void
  readonly #abort = (): void => this.#giveUp(this.#signal!.reason)

  constructor(
    path: Buffer,
    data: Call['data'],
    body: ByteStream | undefined,
    resolve: (data: Buffer) => void,
    reject: (error: unknown) => void,
  ) {
    this.path = path
    this.data = data
    this.body = body
    this.#resolve = resolve
    this.#reject = reject
  }

  /** Starts what may end it early. */
  watch(loop: Loop, timeout: number, signal: AbortSignal | undefined): void {
    if (signal !== undefined) {
      if (signal.aborted) {
        this.fail(signal.reason)
        return
      }
      this.#signal = signal
      signal.addEventListener('abort', this.#abort, { once: true })
    }
    if (timeout > 0 && timeout !== Number.POSITIVE_INFINITY) {
      this.#timer = loop.runAfter(timeout, () => this.#giveUp(timeoutError(timeout, this.sent)))
    }
  }

  #giveUp(reason: unknown): void {
    if (this.settled) return
    this.fail(reason)
    this.onAbandon?.()
  }

  get assembly(): Assembly {
    this.#assembly ??= new Assembly()
    return this.#assembly
  }

  /** The whole answer is here; of a streamed one, the end. */
  finish(data: Buffer): void {
    if (this.settled) return
    this.#settle()
    this.body?.end()
    this.#resolve(data)
  }

  fail(error: unknown): void {
    if (this.settled) return
    this.#settle()
    this.body?.fail(error)
    this.#reject(error)
  }

  #settle(): void {
    this.settled = true
    this.onSettled?.()
    this.#assembly = undefined
    this.#timer?.stop()
    this.#signal?.removeEventListener('abort', this.#abort)
  }
}

function timeoutError(timeout: number, sent: boolean): IipError {
  const what = sent ? 'no answer came' : 'the request could not be sent'
  return new IipError(IipErrorCode.TIMEOUT, `${what} within ${timeout} ms`, sent)
}
