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

/** A logger that throws must not take a connection's end with it. */
function guarded(logger: Logger): Logger {
  const call = (method: (typeof METHODS)[number], fields: object, message: string): void => {
    try {
      logger[method](fields, message)
    } catch (error) {
      process.emitWarning(`the logger failed: ${toError(error).message}`)
    }
  }
  return {
    debug: (fields, message) => call('debug', fields, message),
    info: (fields, message) => call('info', fields, message),
    warn: (fields, message) => call('warn', fields, message),
    error: (fields, message) => call('error', fields, message),
  }
}

export function createLogger(option: LoggerOption = 'info'): Logger {
  if (option === false) return pino({ enabled: false })
  if (typeof option === 'string') {
    if (!LEVELS.includes(option)) {
      throw new RingloopError(ErrorCode.OPTION, `logger must be one of ${LEVELS.join(', ')}, not '${option}'`)
    }
    return pino({ name: 'ringloop', level: option }, pino.destination({ fd: 2, sync: true }))
  }
  if (METHODS.every((method) => typeof option?.[method] === 'function')) return guarded(option)
  throw new RingloopError(
    ErrorCode.OPTION,
    'logger must be a level, false, or an object with debug, info, warn and error',
  )
}
