/** Subjects of NATS: names of topics as one token, behind the prefix. Pure. */

const AS_IT_IS = /^[\w-]+$/
/** What `encodeURIComponent` leaves as it is, besides letters, digits, `-` and `_`. */
const LEFT_ALONE = /[!'()*.~]/g
/** Tokens between dots: `*`, `>` and white space mean something to NATS. */
const PREFIX = /^[\w$-]+(?:\.[\w$-]+)*$/

/**
 * The subject of a topic: every byte of its UTF-8 but letters, digits, `-` and `_` is written as `=` and two hexadecimal
 * digits, so that no two topics have the same one.
 */
export function subjectOf(prefix: string, topic: string): string {
  return `${prefix}.${AS_IT_IS.test(topic) ? topic : tokenOf(topic)}`
}

function tokenOf(topic: string): string {
  return encodeURIComponent(topic).replace(LEFT_ALONE, percentOf).replaceAll('%', '=')
}

function percentOf(character: string): string {
  return `%${character.charCodeAt(0).toString(16).toUpperCase()}`
}

export function isSubjectPrefix(text: unknown): boolean {
  return typeof text === 'string' && PREFIX.test(text)
}
