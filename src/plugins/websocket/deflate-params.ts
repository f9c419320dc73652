/** What both sides agree on for `permessage-deflate` (RFC 7692, section 7.1): offers, answers, and their checks. Pure. */
import { type ExtensionOffer, parseExtensions } from './extension-header.js'
import type { DeflateSettings } from './options.js'

const EXTENSION = 'permessage-deflate'
const MAX_BITS = 15

const SERVER_NO_TAKEOVER = 'server_no_context_takeover'
const CLIENT_NO_TAKEOVER = 'client_no_context_takeover'
const SERVER_BITS = 'server_max_window_bits'
const CLIENT_BITS = 'client_max_window_bits'

/** One side's part: whether its messages build on earlier ones, and how far back they may refer. */
export interface DeflateSide {
  readonly takeover: boolean
  readonly windowBits: number
}

export interface DeflateParams {
  readonly server: DeflateSide
  readonly client: DeflateSide
}

/** The first offer that can be met, and the header that answers it; `undefined` declines all of them. */
export function acceptOffer(
  offers: readonly ExtensionOffer[],
  settings: DeflateSettings,
): { readonly params: DeflateParams; readonly header: string } | undefined {
  for (const offer of offers) {
    if (offer.name !== EXTENSION || !isValid(offer, true)) continue
    const params = meet(offer, settings)
    return { params, header: answer(params, offer) }
  }
  return undefined
}

/** Section 7.1: an offer with an unknown, a repeated or a wrong parameter must be declined. */
function isValid(offer: ExtensionOffer, isOffer: boolean): boolean {
  if (offer.repeated) return false
  for (const [name, value] of offer.params) {
    if (name === SERVER_NO_TAKEOVER || name === CLIENT_NO_TAKEOVER) {
      if (value !== true) return false
    } else if (name === SERVER_BITS) {
      if (!isBits(value)) return false
    } else if (name === CLIENT_BITS) {
      if (!(isOffer && value === true) && !isBits(value)) return false
    } else {
      return false
    }
  }
  return true
}

function isBits(value: string | true): boolean {
  return value !== true && /^(?:[89]|1[0-5])$/.test(value)
}

function bits(offer: ExtensionOffer, name: string): number {
  const value = offer.params.get(name)
  return typeof value === 'string' ? Number(value) : MAX_BITS
}

function meet(offer: ExtensionOffer, settings: DeflateSettings): DeflateParams {
  const { params } = offer
  const canLimitClient = params.has(CLIENT_BITS)
  return {
    server: {
      takeover: !settings.serverNoContextTakeover && !params.has(SERVER_NO_TAKEOVER),
      windowBits: Math.min(settings.serverMaxWindowBits, bits(offer, SERVER_BITS)),
    },
    client: {
      takeover: !settings.clientNoContextTakeover && !params.has(CLIENT_NO_TAKEOVER),
      windowBits: canLimitClient
        ? Math.min(settings.clientMaxWindowBits, bits(offer, CLIENT_BITS))
        : MAX_BITS,
    },
  }
}

function answer({ server, client }: DeflateParams, offer: ExtensionOffer): string {
  let header = EXTENSION
  if (!server.takeover) header += `; ${SERVER_NO_TAKEOVER}`
  if (!client.takeover) header += `; ${CLIENT_NO_TAKEOVER}`
  if (server.windowBits < MAX_BITS || offer.params.has(SERVER_BITS)) {
    header += `; ${SERVER_BITS}=${server.windowBits}`
  }
  if (client.windowBits < MAX_BITS) header += `; ${CLIENT_BITS}=${client.windowBits}`
  return header
}

/** What a client asks for. */
export function makeOffer(settings: DeflateSettings): string {
  let header = EXTENSION
  if (settings.serverNoContextTakeover) header += `; ${SERVER_NO_TAKEOVER}`
  if (settings.clientNoContextTakeover) header += `; ${CLIENT_NO_TAKEOVER}`
  if (settings.serverMaxWindowBits < MAX_BITS) header += `; ${SERVER_BITS}=${settings.serverMaxWindowBits}`
  header += `; ${CLIENT_BITS}`
  if (settings.clientMaxWindowBits < MAX_BITS) header += `=${settings.clientMaxWindowBits}`
  return header
}

/**
 * What the server made of the offer: the parameters, `undefined` when it declined, or a sentence that says what is wrong
 * with its answer.
 */
export function readAnswer(
  text: string | undefined,
  settings: DeflateSettings | undefined,
): DeflateParams | string | undefined {
  if (text === undefined) return undefined
  const answers = parseExtensions(text)
  const [first] = answers ?? []
  if (answers?.length !== 1 || first?.name !== EXTENSION || settings === undefined) {
    return 'the server chose an extension that was not offered'
  }
  if (!isValid(first, false)) return `the server answered ${EXTENSION} with wrong parameters`
  const serverBits = bits(first, SERVER_BITS)
  if (serverBits > settings.serverMaxWindowBits) return `the server answered with a larger ${SERVER_BITS}`
  const clientBits = bits(first, CLIENT_BITS)
  if (clientBits > settings.clientMaxWindowBits && first.params.has(CLIENT_BITS)) {
    return `the server answered with a larger ${CLIENT_BITS}`
  }
  const serverTakeover = !first.params.has(SERVER_NO_TAKEOVER)
  if (serverTakeover && settings.serverNoContextTakeover) return `the server ignored ${SERVER_NO_TAKEOVER}`
  return {
    server: { takeover: serverTakeover, windowBits: serverBits },
    client: {
      takeover: !settings.clientNoContextTakeover && !first.params.has(CLIENT_NO_TAKEOVER),
      windowBits: Math.min(clientBits, settings.clientMaxWindowBits),
    },
  }
}
