/** A logger that keeps its lines, so that tests can ask for them and the output stays readable. */
import type { Logger } from '../../src/log.js'

export interface Line {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly fields: { readonly err?: unknown }
  readonly message: string
}

export interface MemoryLogger extends Logger {
  readonly lines: Line[]
  /** Lines of the level whose message or error contains `text`. */
  find(level: Line['level'], text: string): Line[]
}

export function memoryLogger(): MemoryLogger {
  const lines: Line[] = []
  const at =
    (level: Line['level']) =>
    (fields: object, message: string): void => {
      lines.push({ level, fields, message })
    }
  const textOf = (line: Line): string => {
    const err = line.fields.err
    return `${line.message} ${err instanceof Error ? err.message : ''}`
  }
  return {
    lines,
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    find: (level, text) => lines.filter((line) => line.level === level && textOf(line).includes(text)),
  }
}
