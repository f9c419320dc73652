/**
 * One message on its way to many connections of a loop, by a broadcast or to a topic: packed once for each protocol
 * object, and what became of it counted. Lives until all of them had their turn. The loop's thread only.
 */
import type { AnyConnection } from '../connection/host.js'
import type { CloseReason } from '../errors.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import { CELL, type LoopCounters } from './stats.js'

const SLOW: CloseReason = { code: 'slow-consumer', message: 'above the high-water mark at a message to many' }

type AnyProtocol = AnyConnection['protocol']
type Packer = ReturnType<NonNullable<AnyProtocol['broadcast']>> | undefined

export class Delivery {
  #sent = 0
  #dropped = 0
  #closed = 0
  readonly out: unknown
  readonly #slow: BroadcastOptions['slow']
  readonly #counters: LoopCounters
  /** Of the last connection, which most often is that of the next. */
  #protocol: AnyProtocol | undefined = undefined
  #pack: Packer = undefined
  /** Where there are several protocols: those before. */
  #packers: Map<AnyProtocol, Packer> | undefined = undefined

  /** Protocols that cannot pack it, and why. */
  #refusals: Map<AnyProtocol, unknown> | undefined = undefined

  constructor(out: unknown, slow: BroadcastOptions['slow'], counters: LoopCounters) {
    this.out = out
    this.#slow = slow
    this.#counters = counters
  }

  /** Once for all connections of the protocol that it was last packed for. */
  get isPacked(): boolean {
    return this.#pack !== undefined
  }

  /** Packs it for the connections of `protocol`, where that can be done once. Throws what the protocol throws. */
  packFor(protocol: AnyProtocol): void {
    if (protocol === this.#protocol) return
    if (this.#protocol !== undefined) {
      this.#packers ??= new Map()
      this.#packers.set(this.#protocol, this.#pack)
    }
    const isNew = this.#packers?.has(protocol) !== true
    this.#pack = isNew ? this.#packerOf(protocol) : this.#packers?.get(protocol)
    this.#protocol = protocol
  }

  /** Packs it for the first of `list` whose protocol can. Throws what the first protocol throws where none can. */
  packForAny(list: readonly AnyConnection[]): void {
    for (const { protocol } of list) {
      if (this.#refusals?.has(protocol) === true) continue
      try {
        this.packFor(protocol)
        return
      } catch {
        // It is among the refusals.
      }
    }
    throw this.#refusals?.values().next().value
  }

  #packerOf(protocol: AnyProtocol): Packer {
    if (this.#refusals?.has(protocol) === true) throw this.#refusals.get(protocol)
    try {
      return protocol.broadcast?.(this.out)
    } catch (error) {
      this.#refusals ??= new Map()
      this.#refusals.set(protocol, error)
      throw error
    }
  }

  /** To one that can be sent to: it gets the message, or is left out where it is above its mark. */
  offer(c: AnyConnection): void {
    if (c.isThrottled) {
      this.#dropped++
      this.#counters.add(CELL.slowConsumerDrops, 1)
      if (this.#slow !== 'close') return
      c.beginClose(SLOW)
      this.#closed++
      return
    }
    this.packFor(c.protocol)
    if (this.#pack === undefined) {
      c.send(this.out)
      this.#sent++
    } else {
      this.#sendPacked(c, this.#pack)
    }
  }

  /** A packer that fails for one connection ends that one, and the others get theirs. */
  #sendPacked(c: AnyConnection, pack: NonNullable<Packer>): void {
    try {
      if (!c.sendPacked(pack)) return
      c.host.traffic.messagesOut++
      this.#sent++
    } catch (error) {
      c.fail('the packing of a broadcast', error)
    }
  }

  get result(): BroadcastResult {
    return { sent: this.#sent, dropped: this.#dropped, closed: this.#closed }
  }
}
