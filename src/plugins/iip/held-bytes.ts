/**
 * How much the IIP connections of one protocol object, and so of one loop, hold together: unfinished requests, and what waits
 * for handlers. Beyond the limit the connections that hold much are not read until handlers have made room. Unfinished
 * requests make none by waiting: where they take more than half, the connection with most of them is closed. It keeps
 * numbers, and who is concerned; the bytes are the sessions'. The loop's thread only.
 */

import type { CloseReason } from '../../index.js'

/** A connection, as its neighbours see it. */
export interface Holder {
  /** Bytes of unfinished requests. */
  readonly unfinishedBytes: number
  /** All that it holds. */
  readonly heldBytes: number
  pauseReading(): void
  resumeReading(): void
  /** Closes, and holds nothing any more. */
  giveUp(reason: CloseReason): void
}

/** Who holds no more is always read: small requests go on beside large ones. */
const ALWAYS_READ = 64 * 1024

export class HeldBytes {
  readonly #limit: number
  #unfinished = 0
  #waiting = 0
  readonly #unfinishedHolders = new Set<Holder>()
  readonly #heldBack = new Set<Holder>()

  constructor(limit: number) {
    this.#limit = limit
  }

  get #isFull(): boolean {
    return this.#unfinished + this.#waiting > this.#limit
  }

  /** `holder` has so many bytes of unfinished requests more, or less. */
  addUnfinished(holder: Holder, bytes: number): void {
    this.#unfinished += bytes
    if (holder.unfinishedBytes > 0) this.#unfinishedHolders.add(holder)
    else this.#unfinishedHolders.delete(holder)
    this.#relieve()
  }

  /** So many bytes more, or less, wait for handlers. */
  addWaiting(bytes: number): void {
    this.#waiting += bytes
    this.#relieve()
  }

  /** `holder` is over; what it held was taken off before. */
  remove(holder: Holder): void {
    this.#unfinishedHolders.delete(holder)
    this.#heldBack.delete(holder)
  }

  /** Asked before `holder` takes more. `true`: it is not to, for now or for good. */
  refuses(holder: Holder): boolean {
    while (this.#isFull && this.#unfinished > this.#limit / 2) {
      const largest = this.#largest()
      largest.giveUp({
        code: 'protocol-error',
        message: `unfinished requests of all connections of a loop take more than ${this.#limit / 2} bytes`,
      })
      if (largest === holder) return true
    }
    if (!this.#isFull || holder.heldBytes <= ALWAYS_READ) return false
    this.#heldBack.add(holder)
    holder.pauseReading()
    return true
  }

  /** `holder` was refused, and there has been no room since. */
  holdsBack(holder: Holder): boolean {
    return this.#heldBack.has(holder)
  }

  /** Of those with unfinished requests, the one with most of them. */
  #largest(): Holder {
    let largest: Holder | undefined
    for (const each of this.#unfinishedHolders) {
      if (largest === undefined || each.unfinishedBytes > largest.unfinishedBytes) largest = each
    }
    return largest!
  }

  #relieve(): void {
    if (this.#heldBack.size === 0 || this.#isFull) return
    for (const holder of this.#heldBack) holder.resumeReading()
    this.#heldBack.clear()
  }
}
