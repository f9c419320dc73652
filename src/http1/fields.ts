/**
 * What may stand in the head of an answer: the checks for whoever writes one from what a handler gives. Heads go out as
 * latin1, so a character above U+00FF would become another byte, also a line end: it is refused, like those. Pure.
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
