/** A sink that keeps what a poller reports, by slot, and checks that it reports inside of batches. */
import { expect } from 'vitest'
import type { Poller, PollerSink } from '../../src/loop/poller/poller.js'

export class Recorder implements PollerSink {
  poller!: Poller
  readonly log: string[] = []
  readonly accepted: number[] = []
  readonly data: Map<number, Buffer[]> = new Map()
  batches: number = 0
  inBatch: boolean = false
  onAccept: (slot: number) => void = () => {}
  onRead: (slot: number, bytes: Buffer) => void = () => {}

  #note(text: string): void {
    expect(this.inBatch, `${text} is reported inside a batch`).toBe(true)
    this.log.push(text)
  }
  handleBatchStart(): void {
    expect(this.inBatch).toBe(false)
    this.inBatch = true
    this.batches++
  }
  handleBatchEnd(): void {
    expect(this.inBatch).toBe(true)
    this.inBatch = false
  }
  admitted = 0
  mayEnter: () => boolean = () => true
  admit(): boolean {
    const enters = this.mayEnter()
    if (enters) this.admitted++
    return enters
  }
  handleAccept(slot: number, listener: number): void {
    this.#note(`accept ${slot} ${listener}`)
    this.accepted.push(slot)
    this.data.set(slot, [])
    this.onAccept(slot)
  }
  handleSecured(_ms: number, isResumed: boolean): void {
    if (isResumed) this.resumed++
  }
  resumed = 0
  readonly failures: string[] = []
  handleTlsFailure(_slot: number, failure: string): void {
    this.failures.push(failure)
  }
  handleLost(listener: number): void {
    this.#note(`lost ${listener}`)
  }
  handleConnect(slot: number): void {
    this.#note(`connect ${slot}`)
    this.data.set(slot, [])
  }
  handleRead(slot: number, storage: Buffer, start: number, end: number): void {
    this.#note(`read ${slot}`)
    const bytes = Buffer.from(storage.subarray(start, end))
    this.data.get(slot)?.push(bytes)
    this.onRead(slot, bytes)
  }
  handleEnd(slot: number): void {
    this.#note(`end ${slot}`)
  }
  handleError(slot: number, errno: number): void {
    this.#note(`error ${slot} ${errno}`)
  }
  handleHangup(slot: number): void {
    this.#note(`hangup ${slot}`)
  }
  handleLeft(slot: number): void {
    this.#note(`left ${slot}`)
  }
  handleWritable(slot: number): void {
    this.#note(`writable ${slot}`)
  }
  handleAcceptError(listener: number, errno: number): void {
    this.#note(`acceptError ${listener} ${errno}`)
  }

  /** Why the files of unix sockets were left behind. */
  readonly filesLeft: NodeJS.ErrnoException[] = []
  handleFileLeft(error: NodeJS.ErrnoException): void {
    this.filesLeft.push(error)
  }

  bytes(slot: number): Buffer {
    return Buffer.concat(this.data.get(slot) ?? [])
  }
  count(text: string): number {
    return this.log.filter((line) => line.startsWith(text)).length
  }
  has(text: string): boolean {
    return this.count(text) > 0
  }
}
