/** Logging: pino to standard error by default, or whatever logger with the same four methods the user brings. */
import { pino } from 'pino'
import { ErrorCode, RingloopError, toError } from './errors.js'

/** The part of pino's interface that ringloop uses; a pino logger fits as it is. */
export interface Logger {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent'

/** A logger, the lowest level of the built-in one (default `info`), or `false` for none. */
export type LoggerOption = Logger | LogLevel | false

const LEVELS: readonly string[] = ['debug', 'info', 'warn', 'error', 'silent']

const METHODS = ['debug', 'info', 'warn', 'error'] as const

/** Bytes of lines that the built-in logger keeps while they cannot be written, on a full disk; more are dropped. */
const MAX_UNWRITTEN = 1024 * 1024

/** No logger's failure, now or later, must take a connection's end or the process with it. */
function guarded(logger: Logger): Logger {
  const call = (method: (typeof METHODS)[number], fields: object, message: string): void => {
    try {
      const result: unknown = logger[method](fields, message)
      if (result instanceof Promise) result.catch(warn)
    } catch (error) {
      warn(error)
    }
  }
  return {
    debug: (fields, message) => call('debug', fields, message),
    info: (fields, message) => call('info', fields, message),
    warn: (fields, message) => call('warn', fields, message),
    error: (fields, message) => call('error', fields, message),
  }
}

function warn(error: unknown): void {
  process.emitWarning(`the logger failed: ${String(toError(error).message)}`)
}

/** Pino to standard error. A line is written when the call returns, unless nothing can be written there. */
function createBuiltIn(level: string): Logger {
  const destination = pino.destination({ fd: 2, sync: true, maxLength: MAX_UNWRITTEN })
  // There is nowhere left to say it. What was not written is tried again with the next line.
  destination.on('error', () => {})
  return guarded(pino({ name: 'ringloop', level }, destination))
}

/** Throws `ERR_RINGLOOP_OPTION`. The methods of what it returns never throw. */
export function createLogger(option: LoggerOption = 'info'): Logger {
  if (option === false) return pino({ enabled: false })
  if (typeof option === 'string') {
    if (!LEVELS.includes(option)) {
      throw new RingloopError(ErrorCode.OPTION, `logger must be one of ${LEVELS.join(', ')}, not '${option}'`)
    }
    return createBuiltIn(option)
  }
  if (METHODS.every((method) => typeof option?.[method] === 'function')) return guarded(option)
  throw new RingloopError(
    ErrorCode.OPTION,
    'logger must be a level, false, or an object with debug, info, warn and error',
  )
}
