/**
 * One request of a client, from the call to the moment its promise settles, which happens exactly once. It outlives that
 * moment where its answer is still to come: the answer is then taken off the wire and dropped. The loop's thread only.
 */
import {
  type ByteStream,
  checkLimit,
  checkOptions,
  ErrorCode,
  type Loop,
  type OptionNames,
  RingloopError,
  type Timer,
} from '../../index.js'
import { Assembly } from './assembly.js'
import type { ClientChannel } from './client-channel.js'
import { IipError, IipErrorCode, remoteError } from './errors.js'
import { type Abortable, unwatchSignal, watchSignal } from './shared-signal.js'

export interface RequestOptions {
  /** Milliseconds until the request is given up, waiting and connecting included; 0 is never. Default: the client's. */
  readonly timeout?: number
  /** Gives the request up; its promise rejects with the signal's reason. */
  readonly signal?: AbortSignal
  /**
   * Waits, as long as its time lasts, where the server cannot be reached; otherwise it rejects at once with
   * `ERR_IIP_CONNECT`. Default: the client's.
   */
  readonly waitForReady?: boolean
  /** An answer that stands for an error is data like any other, instead of an {@link IipRemoteError}. Default: the client's. */
  readonly raw?: boolean
}

export const REQUEST_OPTIONS: OptionNames<RequestOptions> = {
  timeout: true,
  signal: true,
  waitForReady: true,
  raw: true,
}

/** The options of a request that was given none: they need no check. */
export const NO_OPTIONS: RequestOptions = {}

/** Throws `ERR_RINGLOOP_OPTION`. */
export function checkRequestOptions(
  options: RequestOptions,
  known: Readonly<Record<string, true>> = REQUEST_OPTIONS,
): void {
  if (options === NO_OPTIONS) return
  checkOptions('a request', options, known)
  const { timeout, signal } = options
  checkLimit('timeout', timeout, 0, 0)
  checkSwitches(options)
  if (signal === undefined || signal instanceof AbortSignal) return
  throw new RingloopError(ErrorCode.OPTION, 'signal must be an AbortSignal')
}

/** Throws `ERR_RINGLOOP_OPTION`. */
export function checkSwitches(options: Pick<RequestOptions, 'waitForReady' | 'raw'>): void {
  for (const name of ['waitForReady', 'raw'] as const) {
    const value: unknown = options[name]
    if (value === undefined || typeof value === 'boolean') continue
    throw new RingloopError(ErrorCode.OPTION, `${name} must be true or false, not ${typeof value}`)
  }
}

/** What can be sent: bytes, a string as UTF-8, or chunks that go out as they come. */
export type RequestData = Uint8Array | string | AsyncIterable<Uint8Array | string>

/** Of a client, for requests that do not say so themselves. */
export interface CallDefaults {
  readonly timeout: number
  readonly waitForReady: boolean
  readonly raw: boolean
}

export class Call implements Abortable {
  /** With its NUL. */
  readonly path: Buffer
  readonly data: Uint8Array | AsyncIterable<Uint8Array | string>
  /** Takes the answer's bytes if they are wanted as they come. */
  readonly body: ByteStream | undefined
  /** See {@link RequestOptions.raw}. */
  raw = true
  /** See {@link RequestOptions.waitForReady}. */
  waitForReady = false
  /** The client's own business, for which nobody waits. */
  quiet = false
  /** Where it was sent. */
  channel: ClientChannel | undefined = undefined
  /** Bytes of it may have left this process. */
  sent = false
  /** It went in several packets: a server that answers each of them sends more than one answer. */
  inParts = false
  settled = false
  /** Told once, however it ends; with the error, if it failed. */
  onSettled: ((error?: unknown) => void) | undefined = undefined
  /** Told when the first packet of a streamed answer is here. */
  onBegun: (() => void) | undefined = undefined
  #assembly: Assembly | undefined = undefined
  #timer: Timer | undefined = undefined
  #signal: AbortSignal | undefined = undefined
  readonly #resolve: (data: Buffer) => void
  readonly #reject: (error: unknown) => void

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

  /** Takes over what the caller wants, and starts what may end it early. */
  begin(loop: Loop, options: RequestOptions, defaults: CallDefaults): void {
    this.raw = options.raw ?? defaults.raw
    this.waitForReady = options.waitForReady ?? defaults.waitForReady
    this.watch(loop, options.timeout ?? defaults.timeout, options.signal)
  }

  /** Starts what may end it early. */
  watch(loop: Loop, timeout: number, signal?: AbortSignal): void {
    if (signal !== undefined) {
      if (signal.aborted) {
        this.fail(signal.reason)
        return
      }
      this.#signal = signal
      watchSignal(signal, this)
    }
    if (timeout > 0 && timeout !== Number.POSITIVE_INFINITY) {
      this.#timer = loop.runAfter(timeout, () => this.#giveUp(timeoutError(timeout, this.sent)))
    }
  }

  aborted(signal: AbortSignal): void {
    this.#giveUp(signal.reason)
  }

  /** Nobody reads the answer any more: as if it had ended. */
  leave(): void {
    if (this.settled) return
    this.finish(NO_DATA)
    this.channel?.connection.abandoned(this.channel)
  }

  #giveUp(reason: unknown): void {
    if (this.settled) return
    this.fail(reason)
    this.channel?.connection.abandoned(this.channel)
  }

  get assembly(): Assembly {
    this.#assembly ??= new Assembly()
    return this.#assembly
  }

  /** The whole answer is here; of a streamed one, the end. */
  finish(data: Buffer): void {
    if (this.settled) return
    const error = this.raw ? undefined : remoteError(data)
    if (error !== undefined) {
      this.fail(error)
      return
    }
    this.#settle()
    this.body?.end()
    this.#resolve(data)
  }

  fail(error: unknown): void {
    if (this.settled) return
    this.#settle(error)
    this.body?.fail(error)
    this.#reject(error)
  }

  #settle(error?: unknown): void {
    this.settled = true
    this.onSettled?.(error)
    this.#assembly = undefined
    this.#timer?.stop()
    if (this.#signal !== undefined) unwatchSignal(this.#signal, this)
  }
}

const NO_DATA: Buffer = Buffer.alloc(0)

export function timeoutError(timeout: number, sent: boolean): IipError {
  const what = sent ? 'no answer came' : 'the request could not be sent'
  return new IipError(IipErrorCode.TIMEOUT, `${what} within ${timeout} ms`, sent)
}
