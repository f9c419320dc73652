/** What goes to another thread together: a message costs much less than a post. One at each end; its thread only. */
export class Outbox<Message> {
  readonly #post: (messages: readonly Message[]) => void
  #messages: Message[] = []

  /** `post` is called at the end of the tick. It must not throw: what goes in can be cloned, and is not changed any more. */
  constructor(post: (messages: readonly Message[]) => void) {
    this.#post = post
  }

  add(message: Message): void {
    if (this.#messages.push(message) === 1) process.nextTick(() => this.#flush())
  }

  #flush(): void {
    const messages = this.#messages
    this.#messages = []
    this.#post(messages)
  }
}
