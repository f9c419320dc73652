/** `Sec-WebSocket-Extensions` (RFC 6455, section 9.1): offers as they are written, whatever they mean. Pure. */

/** A parameter without a value is `true`. A repeated one is kept in `repeated`. */
export interface ExtensionOffer {
  readonly name: string
  readonly params: ReadonlyMap<string, string | true>
  /** A parameter was given twice: no extension that is known here allows that. */
  readonly repeated: boolean
}

const TOKEN = "[!#$%&'*+\\-.^_`|~\\dA-Za-z]+"
const QUOTED = '"(?:[\\t \\x21\\x23-\\x5b\\x5d-\\x7e]|\\\\[\\t\\x20-\\x7e])*"'
const BLANK = '[ \\t]*'
const PARAM = new RegExp(`${BLANK};${BLANK}(${TOKEN})(?:${BLANK}=${BLANK}(${TOKEN}|${QUOTED}))?`, 'y')
const NAME = new RegExp(`${BLANK}(${TOKEN})`, 'y')
const SEPARATOR = new RegExp(`${BLANK}(,|$)`, 'y')
const WHOLE_TOKEN = new RegExp(`^${TOKEN}$`)

/** Whether it is a token of RFC 9110, as names of subprotocols must be. */
export function isToken(text: string): boolean {
  return WHOLE_TOKEN.test(text)
}

/** The offers in the order of the peer's preference; `undefined` where the text breaks the grammar. */
export function parseExtensions(text: string): ExtensionOffer[] | undefined {
  const offers: ExtensionOffer[] = []
  let at = 0
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at
    const found = pattern.exec(text)
    if (found !== null) at = pattern.lastIndex
    return found
  }
  do {
    const name = match(NAME)
    if (name === null) return undefined
    const params = new Map<string, string | true>()
    let repeated = false
    for (let param = match(PARAM); param !== null; param = match(PARAM)) {
      const key = param[1]!.toLowerCase()
      repeated ||= params.has(key)
      params.set(key, param[2] === undefined ? true : unquote(param[2]))
    }
    offers.push({ name: name[1]!.toLowerCase(), params, repeated })
    if (match(SEPARATOR) === null) return undefined
  } while (at < text.length)
  return text.trimEnd().endsWith(',') ? undefined : offers
}

function unquote(value: string): string {
  return value.startsWith('"') ? value.slice(1, -1).replace(/\\(.)/g, '$1') : value
}
