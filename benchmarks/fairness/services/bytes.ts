/** Bytes as they come, echoed. */
import type { Handler } from 'ringloop'
import { RawProtocol } from 'ringloop'

const handler: Handler = { onMessage: (_c, _ctx, data) => data }
export default handler

export const protocol: RawProtocol = new RawProtocol()
