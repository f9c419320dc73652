/** What the protocol remembers of one connection: the request under way, the body that comes in, the one that goes out. */
import type { HeadParser } from '../../http1/index.js'
import { ByteStream, type ProtocolConnection } from '../../index.js'
import type { BodyReader } from './body-reader.js'
import type { BodyWriter } from './body-writer.js'
import type { HttpClock } from './clock.js'
import type { IncomingRequest } from './request.js'
import type { HttpOutput } from './response.js'

const CONTINUE = Buffer.from('HTTP/1.1 100 Continue\r\n\r\n')

export class HttpSession {
  readonly clock: HttpClock
  readonly parser: HeadParser
  /** The clock when the wait began that is under way. */
  since: number
  /** No request has come yet. */
  isFresh = true
  /** The first bytes of a head have been seen. */
  inHead = false
  /** Handed over, or waiting for its body, and not yet answered. */
  request: IncomingRequest | undefined = undefined
  /** A body that is still coming in. */
  reader: BodyReader | undefined = undefined
  /** The client still waits for 100 Continue. */
  owesContinue = false
  /** A body that is still going out. */
  writer: BodyWriter | undefined = undefined
  /** The client has ended its side. */
  isEnded = false
  /** Bytes of the write buffer at the last look, less those of the body: while they change the client takes its answer. */
  untaken = 0
  /** Paused, because more requests came than can wait. */
  isPaused = false

  constructor(clock: HttpClock, parser: HeadParser) {
    this.clock = clock
    this.parser = parser
    this.since = clock.now
  }

  sendContinue(c: ProtocolConnection<HttpOutput>): void {
    if (!this.owesContinue) return
    this.owesContinue = false
    c.sendRaw(CONTINUE)
  }

  /** The body of a request on its way to the handler: while much of it waits, the client does. */
  openStream(c: ProtocolConnection<HttpOutput>): ByteStream {
    return new ByteStream({
      begin: () => this.sendContinue(c),
      pause: () => {
        this.since = this.clock.now
        c.pause()
      },
      resume: () => {
        this.since = this.clock.now
        c.resume()
      },
    })
  }
}
