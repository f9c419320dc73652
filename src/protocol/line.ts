/** Lines of text. `c.session` is how far the unfinished line has been searched. */
import { checkOptions, type OptionNames } from '../check-options.js'
import type { ProtocolConnection } from '../connection.js'
import { ErrorCode, RingloopError } from '../errors.js'
import type { RingBuffer } from '../ringbuffer/ring-buffer.js'
import { DelimiterProtocol } from './delimiter.js'
import type { Packet } from './protocol.js'

export interface LineOptions {
  /** What ends the lines that are sent. Lines that come may end with either. Default `'\n'`. */
  readonly newline?: '\n' | '\r\n' | undefined
  /** Bytes of a line without its end; the peer that sends more is closed. Default 1 MiB. */
  readonly maxPacket?: number | undefined
}

const OPTIONS = { newline: true, maxPacket: true } as const satisfies OptionNames<LineOptions>

const LF = 0x0a
const CR = 0x0d

/**
 * A packet is a line, ended by LF or CR LF and handed over without either.
 *
 *     const protocol = new LineProtocol({ newline: '\r\n', maxPacket: 512 })
 *     const server = new Server({ onMessage: (c, ctx, data) => `you said ${data}` }, { protocol })
 *     await server.start()
 */
export class LineProtocol extends DelimiterProtocol {
  /** Throws `ERR_RINGLOOP_OPTION`. */
  constructor(options: LineOptions = {}) {
    checkOptions('LineProtocol', options, OPTIONS)
    const { newline = '\n', maxPacket } = options
    if (newline !== '\n' && newline !== '\r\n') {
      throw new RingloopError(ErrorCode.OPTION, "newline must be '\\n' or '\\r\\n'")
    }
    super(maxPacket === undefined ? { delimiter: newline } : { delimiter: newline, maxPacket })
  }

  override unPacket(c: ProtocolConnection, buffer: RingBuffer): Packet | undefined {
    if (buffer.isEmpty) return undefined
    const found = buffer.indexOf(LF, c.session as number)
    const end = found === -1 ? buffer.length : found
    const length = end > 0 && buffer.byteAt(end - 1) === CR ? end - 1 : end
    if (length > this.maxPacket) throw this.tooLong()
    if (found === -1) {
      c.session = end
      return undefined
    }
    c.session = 0
    this.cut.data = buffer.take(length)
    buffer.retrieve(found + 1 - length)
    return this.cut
  }
}
