/**
 * One topic with history, as this server follows it: every message in its place, those that were missed read from the
 * history first. The server's thread only.
 */
import type { BrokerPosition, KeptMessages } from '../broker.js'
import type { Gap } from '../handler.js'

/** So many messages wait while the history is read; where there are more it is read again. */
const MAX_WAITING = 1024
/** A history that could not be read although the broker is there is read again after so many ms. */
const RETRY_MS = 1000

/** Whom a feed serves. */
export interface FeedOwner {
  read(since: BrokerPosition | undefined): Promise<KeptMessages>
  /** Each message once, in order. */
  deliver(bytes: Uint8Array, position: BrokerPosition): void
  gap(gap: Gap): void
  /** It is live now, or not any more. */
  changed(): void
  readFailed(error: unknown): void
}

interface Waiting {
  readonly bytes: Uint8Array
  readonly position: BrokerPosition
}

export class KeptFeed {
  readonly #owner: FeedOwner
  /** Up to where it was delivered. */
  #last: BrokerPosition | undefined
  #waiting: Waiting[] = []
  #isComplete = true
  #isLive = false
  /** Counts up when what is under way is not wanted any more. */
  #run = 0
  #retry: NodeJS.Timeout | undefined

  constructor(owner: FeedOwner) {
    this.#owner = owner
  }

  /** Every message is delivered when it comes: none is missing before it. */
  get isLive(): boolean {
    return this.#isLive
  }

  /** It has a place in the history, from which on it misses nothing unseen. */
  get hasBegun(): boolean {
    return this.#last !== undefined
  }

  /** What is at `position` will be delivered while it is joined, unless a gap is told. */
  awaits(position: BrokerPosition | undefined): boolean {
    return this.hasBegun && !this.#hasPassed(position)
  }

  #hasPassed(position: BrokerPosition | undefined): boolean {
    const last = this.#last
    if (position === undefined || last === undefined) return false
    return position.epoch === last.epoch && position.offset <= last.offset
  }

  /** Messages come: catches up with the history. */
  joined(): void {
    void this.#catchUp()
  }

  parted(): void {
    this.#run++
    clearTimeout(this.#retry)
    this.#forgetWaiting()
    if (!this.#isLive) return
    this.#isLive = false
    this.#owner.changed()
  }

  message(bytes: Uint8Array, position: BrokerPosition): void {
    if (!this.#isLive) {
      // From here on nothing is to be missed, whenever it is known where the topic is.
      this.#last ??= { epoch: position.epoch, offset: position.offset - 1 }
      this.#wait(bytes, position)
      return
    }
    if (this.#hasPassed(position)) return
    const { epoch, offset } = this.#last!
    if (position.epoch === epoch && position.offset === offset + 1) {
      this.#last = position
      this.#owner.deliver(bytes, position)
      return
    }
    this.#isLive = false
    void this.#catchUp()
  }

  #wait(bytes: Uint8Array, position: BrokerPosition): void {
    if (this.#waiting.length < MAX_WAITING) this.#waiting.push({ bytes, position })
    else this.#isComplete = false
  }

  #forgetWaiting(): void {
    this.#waiting = []
    this.#isComplete = true
  }

  async #catchUp(): Promise<void> {
    clearTimeout(this.#retry)
    const run = ++this.#run
    // What has come so far the history has, or it is lost, or none of ours: waited for, that would be read for ever.
    this.#forgetWaiting()
    const since = this.#last
    let kept: KeptMessages
    try {
      kept = await this.#owner.read(since)
    } catch (error) {
      if (run !== this.#run) return
      this.#owner.readFailed(error)
      this.#retry = setTimeout(() => void this.#catchUp(), RETRY_MS).unref()
      return
    }
    if (run === this.#run) this.#take(kept, since)
  }

  #take(kept: KeptMessages, since: BrokerPosition | undefined): void {
    const { epoch } = kept.position
    if (since !== undefined && !kept.recovered) this.#owner.gap(gapBefore(kept, since))
    for (const { bytes, offset } of kept.messages) this.#owner.deliver(bytes, { epoch, offset })
    if (since !== undefined || this.#last === undefined) this.#last = kept.position
    if (!this.#isComplete) {
      void this.#catchUp()
      return
    }
    const waiting = this.#waiting
    this.#forgetWaiting()
    this.#isLive = true
    for (const { bytes, position } of waiting) this.message(bytes, position)
    if (this.#isLive) this.#owner.changed()
  }
}

function gapBefore({ position, messages }: KeptMessages, last: BrokerPosition): Gap {
  const first = messages[0]?.offset ?? position.offset + 1
  const isSame = position.epoch === last.epoch && first > last.offset
  return { missed: isSame ? first - last.offset - 1 : undefined, reason: 'history-lost' }
}
