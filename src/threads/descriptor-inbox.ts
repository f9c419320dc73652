/**
 * Receives descriptors that another thread has accepted, for a loop whose net poller will own them. It is a native
 * poller of which only the mailbox is used. The loop's thread only.
 */
import assert from 'node:assert'
import type { EventLoop } from '../loop/event-loop.js'
import { AcceptOnlySink } from '../loop/poller/accept-only-sink.js'
import { NativePoller } from '../loop/poller/native-poller.js'

export class DescriptorInbox extends AcceptOnlySink {
  readonly #loop: EventLoop
  readonly #adopt: (fd: number) => void
  readonly poller: NativePoller

  constructor(loop: EventLoop, adopt: (fd: number) => void) {
    super()
    this.#loop = loop
    this.#adopt = adopt
    this.poller = new NativePoller(this)
    this.poller.parkMailbox()
  }

  handleAccept(slot: number): void {
    const fd = this.poller.takeDescriptor(slot)
    if (fd >= 0) this.#adopt(fd)
  }

  handleAcceptError(): void {
    assert.fail('an inbox does not listen')
  }

  handleFileLeft(): void {
    assert.fail('an inbox does not listen')
  }

  handleLost(listener: number): void {
    this.#loop.table.handleLost(listener)
  }

  destroy(): void {
    this.poller.destroy()
  }
}
