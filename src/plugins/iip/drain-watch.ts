/**
 * Asks the server of one connection to say when it begins to drain: a request on a channel of its own that is answered
 * only then. It is asked before the first call goes out, so that a server that has a call has the question, too. Servers
 * that do not know the path answer at once that there is no handler: they give no notice. The loop's thread only.
 */
import { Call } from './client-call.js'
import type { ClientChannel } from './client-channel.js'
import { framePath } from './frame.js'

const DRAIN: Buffer = framePath('/sys/drain')
const EMPTY_OBJECT: Buffer = Buffer.from('{}')

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
  #asked: Promise<void> | undefined = undefined

  constructor(connection: Drainable) {
    this.#connection = connection
  }

  /** Resolves when the question is out, or there is no channel for it. Asks once, however often it is called. */
  begin(): Promise<void> {
    this.#asked ??= this.#ask()
    return this.#asked
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
