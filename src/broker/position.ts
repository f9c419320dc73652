/** A place in the history of a topic as handlers and their clients see it: `EPOCH-OFFSET`, to be given back as it is. Pure. */
import type { BrokerPosition } from '../broker.js'

const TEXT = /^([A-Za-z0-9_]{1,64})-(0|[1-9]\d{0,15})$/

export function positionText({ epoch, offset }: BrokerPosition): string {
  return `${epoch}-${offset}`
}

/** Whether it is one that can be given to a client and comes back. */
export function isPosition(position: BrokerPosition | undefined): position is BrokerPosition {
  return position !== undefined && parsePosition(positionText(position)) !== undefined
}

/** `undefined` for what is none: a client may send anything. */
export function parsePosition(text: string): BrokerPosition | undefined {
  const match = TEXT.exec(text)
  if (match === null) return undefined
  const offset = Number(match[2])
  return Number.isSafeInteger(offset) ? { epoch: match[1]!, offset } : undefined
}
