/**
 * What may stand in a head, and how lists in it are read. Heads go out as latin1, so a character above U+00FF would become
 * another byte, also a line end: it is refused, like those. Pure.
 */

/** RFC 9110, section 5.6.2: a token. */
const TOKEN = /^[\w!#$%&'*+\-.^`|~]+$/
/** RFC 9110, section 5.5: field-content, with obs-text. */
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/
const MIN_STATUS = 200
const MAX_STATUS = 599

export function isFieldName(name: unknown): name is string {
  return typeof name === 'string' && TOKEN.test(name)
}

export function isFieldValue(value: unknown): value is string {
  return typeof value === 'string' && VALUE.test(value)
}

/** The status of a final answer. */
export function isStatus(status: unknown): status is number {
  return Number.isInteger(status) && (status as number) >= MIN_STATUS && (status as number) <= MAX_STATUS
}

/** The elements of a comma-separated value, empty ones left out (RFC 9110, section 5.6.1). */
export function listOf(value: string | undefined): string[] {
  return value === undefined ? [] : elementsOf(value).filter((each) => each !== '')
}

/** The same with the empty ones. */
export function elementsOf(value: string): string[] {
  return value.split(',').map(trim)
}

/**
 * Without the blanks around it, and only what HTTP takes for one: `String.trim` takes more, and what two servers read
 * differently is a way to smuggle. A loop, because an expression for the end is quadratic.
 */
function trim(text: string): string {
  let start = 0
  let end = text.length
  while (start < end && isBlank(text.charCodeAt(start))) start++
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--
  return text.slice(start, end)
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09
}
