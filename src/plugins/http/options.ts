/** What an HTTP server holds its clients to: the options, their defaults, their checks. */
import { checkInteger, checkOptions, type OptionNames } from '../../index.js'

export interface HttpOptions {
  /** Bytes of a request's line and fields, and once more of its trailers. Beyond: 414 or 431. Default 16 KiB. */
  readonly maxHeaderBytes?: number
  /** Header fields of a request. Beyond: 431. Default 100. */
  readonly maxHeaders?: number
  /** Bytes of a request's body. Beyond: 413. Default 1 MiB. */
  readonly maxBodyBytes?: number
  /** Milliseconds from the first byte of a head, or from the connect, to its end. Beyond: 408. 0 is never. Default 30 s. */
  readonly headersTimeout?: number
  /**
   * Milliseconds from the head to the end of the body. Beyond: 408. Also how long a client may take nothing of a streamed
   * answer until it is closed. 0 is never. Default 60 s.
   */
  readonly bodyTimeout?: number
  /**
   * Milliseconds that a connection may wait for its next request until it is closed; a client that is still taking the
   * answer does not wait. 0 is never. Default 5 s.
   */
  readonly keepAliveTimeout?: number
  /**
   * Milliseconds that a handler may take for its answer, or for the next part of a streamed one. Beyond: 503, or the
   * answer is broken off. 0 is never. Default 5 min.
   */
  readonly responseTimeout?: number
  /** Answer POST, PUT and PATCH that say nothing about their body with 411; else they have none. Default `true`. */
  readonly requireLength?: boolean
  /** Hand requests over before their body has come, which is then read from `request.stream`. Default `false`. */
  readonly streamBody?: boolean
}

export type HttpSettings = Required<HttpOptions>

const OPTIONS = {
  maxHeaderBytes: true,
  maxHeaders: true,
  maxBodyBytes: true,
  headersTimeout: true,
  bodyTimeout: true,
  keepAliveTimeout: true,
  responseTimeout: true,
  requireLength: true,
  streamBody: true,
} as const satisfies OptionNames<HttpOptions>

const KIB = 1024

/** Throws `ERR_RINGLOOP_OPTION`. */
export function httpSettings(options: HttpOptions): HttpSettings {
  checkOptions('HttpProtocol', options, OPTIONS)
  return {
    maxHeaderBytes: checkInteger('maxHeaderBytes', options.maxHeaderBytes, 16 * KIB, 64),
    maxHeaders: checkInteger('maxHeaders', options.maxHeaders, 100, 1),
    maxBodyBytes: checkInteger('maxBodyBytes', options.maxBodyBytes, KIB * KIB, 0),
    headersTimeout: checkInteger('headersTimeout', options.headersTimeout, 30_000, 0),
    bodyTimeout: checkInteger('bodyTimeout', options.bodyTimeout, 60_000, 0),
    keepAliveTimeout: checkInteger('keepAliveTimeout', options.keepAliveTimeout, 5_000, 0),
    responseTimeout: checkInteger('responseTimeout', options.responseTimeout, 300_000, 0),
    requireLength: options.requireLength ?? true,
    streamBody: options.streamBody ?? false,
  }
}
