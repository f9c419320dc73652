/**
 * Reads of histories, and how many of them are under way: loops whose subscribers come back all at once ask for the same, and get
 * it by one read. The server's thread only.
 */
import type { Broker, BrokerPosition, KeptMessage, KeptMessages } from '../broker.js'
import type { InFlight } from './in-flight.js'
import { isPosition, positionText } from './position.js'
import { SharedAnswers } from './shared-answers.js'

export class SharedReads {
  readonly #broker: Broker
  /** Its own: many reads take long, and are no reason to refuse publications. */
  readonly #inFlight: InFlight
  readonly #answers = new SharedAnswers<KeptMessages>()

  constructor(broker: Broker, inFlight: InFlight) {
    this.#broker = broker
    this.#inFlight = inFlight
  }

  /** What is kept of `topic` after `since`, at a moment from now on. */
  read(topic: string, since: BrokerPosition | undefined): Promise<KeptMessages> {
    const key = since === undefined ? topic : `${positionText(since)} ${topic}`
    return this.#answers.get(key, () => this.#inFlight.run(0, () => this.#read(topic, since)))
  }

  async #read(topic: string, since: BrokerPosition | undefined): Promise<KeptMessages> {
    const kept = await this.#broker.read!(topic, since)
    if (isSound(kept)) return kept
    throw new TypeError(`what the broker ${this.#broker.name} has read is not what a broker gives`)
  }

  stop(): void {
    this.#inFlight.stop()
  }
}

/** Anybody may have written the broker: nonsense is to fail here, and not where it is delivered. */
function isSound(kept: KeptMessages | undefined): boolean {
  if (!isPosition(kept?.position) || !Array.isArray(kept?.messages)) return false
  return kept.messages.every(
    (each?: KeptMessage) => Number.isSafeInteger(each?.offset) && each?.bytes instanceof Uint8Array,
  )
}
