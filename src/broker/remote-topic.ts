/**
 * One topic that has subscribers in this process, as its messages come over the broker. The server's thread only.
 */
import type { BrokerPosition } from '../broker.js'
import { Echoes } from './echoes.js'
import { GapWatch } from './gap-watch.js'
import type { KeptFeed } from './kept-feed.js'

export class RemoteTopic {
  readonly name: string
  /** The engine has said that messages come. */
  isJoined = false
  /** Since it was wanted, messages may have been lost: subscribers are to be told once it is joined. */
  hasLost: boolean
  /** Of a topic with history. */
  feed: KeptFeed | undefined = undefined
  /** Of what was published here, with history. */
  #echoes: Echoes | undefined = undefined
  #watch: GapWatch | undefined = undefined
  #waiting: (() => void)[] = []

  /** `hasLost`: it is wanted while the broker is away. */
  constructor(name: string, hasLost: boolean) {
    this.name = name
    this.hasLost = hasLost
  }

  get echoes(): Echoes {
    this.#echoes ??= new Echoes()
    return this.#echoes
  }

  /** Of a topic without history: sees what is missing. */
  get watch(): GapWatch {
    this.#watch ??= new GapWatch()
    return this.#watch
  }

  /** What is published from now on reaches the subscribers here. */
  get isLive(): boolean {
    return this.isJoined && (this.feed?.isLive ?? true)
  }

  /** What was published at `position`, with history, is to come yet. */
  awaits(position: BrokerPosition | undefined): boolean {
    return this.isJoined && this.feed?.awaits(position) === true
  }

  /** What was published here may not come back any more. */
  giveUpEchoes(): void {
    this.#echoes?.giveUpAll()
  }

  /** Resolves when it may be live, or will not be so soon. */
  change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  changed(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve()
  }

  /** Nobody wants it any more, or it is lost for now. */
  leave(): void {
    this.isJoined = false
    this.feed?.parted()
    this.giveUpEchoes()
    this.#watch = undefined
    this.changed()
  }
}
