/** Logging: pino to standard error by default, or whatever logger with the same four methods the user brings. */
import { pino } from 'pino'
import { ErrorCode, RingloopError } from './errors.js'

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

export function createLogger(option: LoggerOption = 'info'): Logger {
  if (option === false) return pino({ enabled: false })
  if (typeof option === 'string') {
    if (!LEVELS.includes(option)) {
      throw new RingloopError(ErrorCode.OPTION, `logger must be one of ${LEVELS.join(', ')}, not '${option}'`)
    }
    return pino({ name: 'ringloop', level: option }, pino.destination({ fd: 2, sync: true }))
  }
  if (typeof option?.error === 'function' && typeof option.warn === 'function') return option
  throw new RingloopError(
    ErrorCode.OPTION,
    'logger must be a level, false, or an object with debug, info, warn and error',
  )
}
