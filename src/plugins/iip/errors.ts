/**
 * The errors of IIP: what a client's promises reject with, and the answers that stand for an error on the wire, where
 * there is no flag for it: a caller sees JSON data.
 */

import { ErrorCode, RingloopError } from '../../index.js'

/** What is thrown for a value of the caller's that cannot be. */
export function badValue(message: string): RingloopError {
  return new RingloopError(ErrorCode.OPTION, message)
}

/** The stable codes of {@link IipError}; the sentence beside each says when it is used. */
export const IipErrorCode = {
  /** The request was not answered, or not sent, within its timeout. */
  TIMEOUT: 'ERR_IIP_TIMEOUT',
  /** The connection ended before the answer was whole, or the client or channel was closed. */
  CLOSED: 'ERR_IIP_CLOSED',
  /** No connection could be made; `cause` is the error. */
  CONNECT: 'ERR_IIP_CONNECT',
  /** The server refused a channel; the message is the server's. */
  CHANNEL: 'ERR_IIP_CHANNEL',
  /** The response is longer than `maxResponseBytes`. */
  TOO_LARGE: 'ERR_IIP_TOO_LARGE',
  /** The balancer has no backend that can be asked. */
  NO_BACKEND: 'ERR_IIP_NO_BACKEND',
  /** The server answered with an error; see {@link IipRemoteError}. */
  REMOTE: 'ERR_IIP_REMOTE',
} as const

export type IipErrorCode = (typeof IipErrorCode)[keyof typeof IipErrorCode]

/** What the promises of a client reject with, unless an `AbortSignal` gave its own reason. */
export class IipError extends Error {
  override readonly name: string = 'IipError'
  readonly code: IipErrorCode
  /** `false`: nothing of the request has left this process, so it can be tried again without being done twice. */
  readonly sent: boolean

  constructor(code: IipErrorCode, message: string, sent: boolean, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    this.sent = sent
  }
}

/**
 * The server's answer was an error: JSON with a `code` other than 0 and a `message`, and nothing else, that begins with
 * `{"code":`. The same JSON with spaces there, or the other way round, is data. The request was handled: the connection
 * and the server are well.
 */
export class IipRemoteError extends IipError {
  override readonly name: string = 'IipRemoteError'
  /** The `code` of the answer: -1 where the handler failed, 101 where it gave nothing back, 102 where there is none. */
  readonly remoteCode: number

  /** `message` is that of the answer. */
  constructor(remoteCode: number, message: string) {
    super(IipErrorCode.REMOTE, message, true)
    this.remoteCode = remoteCode
  }
}

/** A longer answer is never taken for an error. */
export const MAX_ERROR_BYTES: number = 64 * 1024
const ERROR_BEGIN: Buffer = Buffer.from('{"code":')

/** Whether bytes begin as an error answer does; `undefined`: there are too few of them to say. */
export function beginsAsError(bytes: Buffer, start: number, end: number): boolean | undefined {
  const count = Math.min(end - start, ERROR_BEGIN.length)
  for (let i = 0; i < count; i++) if (bytes[start + i] !== ERROR_BEGIN[i]) return false
  return count === ERROR_BEGIN.length ? true : undefined
}

/** The error that a whole answer stands for; `undefined`: it is none. */
export function remoteError(answer: Buffer): IipRemoteError | undefined {
  if (answer.length > MAX_ERROR_BYTES || beginsAsError(answer, 0, answer.length) !== true) return undefined
  try {
    const value = JSON.parse(answer.toString()) as { readonly code: unknown; readonly message?: unknown }
    const { code, message } = value
    const isError = Number.isInteger(code) && code !== 0 && typeof message === 'string'
    return isError && Object.keys(value).length === 2
      ? new IipRemoteError(code as number, message)
      : undefined
  } catch {
    return undefined
  }
}

/** Go's encoder writes these as escapes. */
const GO_ESCAPES = /[<>&\u2028\u2029]/g

/** JSON as Go's encoder writes it. */
export function goJson(value: unknown): string {
  return JSON.stringify(value).replace(
    GO_ESCAPES,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** The codes in the `code` of an error answer, as in Go. */
export const HANDLER_FAILED = -1
const NO_RESPONSE_CODE = 101
const NO_HANDLER_CODE = 102
const TOO_MANY_CHANNELS_CODE = 106

function errorAnswer(code: number, message: string): Buffer {
  return Buffer.from(goJson({ code, message }))
}

/** A handler gave nothing back. */
export const NO_RESPONSE: Buffer = errorAnswer(NO_RESPONSE_CODE, 'handle no response')
/** There is no handler for the path. */
export const NO_HANDLER: Buffer = errorAnswer(NO_HANDLER_CODE, 'handle error')
/** The connection has as many channels as it may. */
export const TOO_MANY_CHANNELS: Buffer = errorAnswer(TOO_MANY_CHANNELS_CODE, 'channel create limited')

/** The server is about to end the connection: ask no more on it. No error. */
export const DRAINING: Buffer = Buffer.from('{"code":0}')

/** A handler failed; how is for the log alone. */
export const HANDLER_FAIL: Buffer = errorAnswer(HANDLER_FAILED, 'handler fail')

/** A handler failed and says how. Behind Go's code its text stands as Go writes it. */
export function failAnswer(message: string, code: number = HANDLER_FAILED): Buffer {
  return errorAnswer(code, code === HANDLER_FAILED ? `handler fail:${message}` : message)
}
