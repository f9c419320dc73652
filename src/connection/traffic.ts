/**
 * What the connections of one poller have moved in this turn, in plain fields: cheap to count, and published to the
 * shared counters once per turn. The loop's thread only.
 */
export class Traffic {
  messagesIn = 0
  messagesOut = 0
  bytesIn = 0
  bytesOut = 0
  /** Bytes that wait now because the kernel refused them: not of this turn, but of all. */
  backlogBytes = 0

  /** What was published is counted no more. */
  reset(): void {
    this.messagesIn = 0
    this.messagesOut = 0
    this.bytesIn = 0
    this.bytesOut = 0
  }
}
