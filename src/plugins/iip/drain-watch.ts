/**
 * Asks the server of one connection to say when it begins to drain: a request on a channel of its own that is answered
 * only then. Servers that do not know the path answer at once that there is no handler: they give no notice. The loop's
 * thread only.
 */
import type { Loop, Timer } from '../../index.js'
import { Call } from './client-call.js'
import type { ClientChannel } from './client-channel.js'
import { framePath } from './frame.js'

const DRAIN: Buffer = framePath('/sys/drain')
const EMPTY_OBJECT: Buffer = Buffer.from('{}')
/** Milliseconds after the first answer: a client that asks one thing and leaves costs the server no second channel. */
const AFTER_ANSWER = 20
/** Milliseconds after the first channel, where no answer comes. */
const AFTER_CHANNEL = 1000

/** The connection that is watched. */
export interface Drainable {
  /** A channel besides those that calls are sent on. `undefined`: there is none. Never rejects. */
  openSpare(): Promise<ClientChannel | undefined>
  send(channel: ClientChannel, call: Call): boolean
  /** The channel is of no more use. */
  forget(channel: ClientChannel): void
  /** No more calls are to be sent on it. */
  drain(): void
}

export class DrainWatch {
  readonly #connection: Drainable
  readonly #loop: Loop
  #timer: Timer | undefined = undefined
  #answered = false

  constructor(connection: Drainable, loop: Loop) {
    this.#connection = connection
    this.#loop = loop
  }

  /** The connection has a channel for calls. */
  channelOpened(): void {
    this.#timer ??= this.#loop.runAfter(AFTER_CHANNEL, () => void this.#ask())
  }

  /** A call was answered. */
  answered(): void {
    if (this.#answered) return
    this.#answered = true
    if (this.#timer?.active === true) this.#timer.restart(AFTER_ANSWER)
  }

  /** The connection ends. */
  stop(): void {
    this.#timer?.stop()
  }

  async #ask(): Promise<void> {
    const channel = await this.#connection.openSpare()
    if (channel === undefined) return
    const told = (answer: Buffer): void => {
      if (isNotice(answer)) this.#connection.drain()
      else this.#connection.forget(channel)
    }
    const call = new Call(DRAIN, EMPTY_OBJECT, undefined, told, () => {})
    call.quiet = true
    this.#connection.send(channel, call)
  }
}

function isNotice(answer: Buffer): boolean {
  try {
    return (JSON.parse(answer.toString()) as { readonly code?: unknown } | null)?.code === 0
  } catch {
    return false
  }
}
