/** Lines, echoed; a word in front says how: at once, by a promise, after a second, or as a stream without end. */
import { type Connection, type Handler, LineProtocol, type Protocol } from 'ringloop'

const SLOW_MS = 1000
const PART: Buffer = Buffer.alloc(64 * 1024, '.')

async function flow(c: Connection): Promise<void> {
  while (await c.drained()) c.send(PART)
}

function handle(c: Connection, data: Buffer): Uint8Array | Promise<Uint8Array> | undefined {
  if (data.length < 4 || data.length > 5) return data
  switch (data.toString('latin1')) {
    case 'later':
      return Promise.resolve(data)
    case 'slow':
      return new Promise((resolve) => setTimeout(resolve, SLOW_MS, data))
    case 'flow':
      void flow(c)
      return undefined
    default:
      return data
  }
}

const handler: Handler = { onMessage: (c, _ctx, data) => handle(c, data) }
export default handler

export const protocol: Protocol = new LineProtocol({ maxPacket: 1024 })
