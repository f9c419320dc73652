/** HTTP: a short answer, a stream without end whose source is always ready, an upload that is read part by part. */
import { type HttpOutput, HttpProtocol, type HttpRequest, httpHandler } from 'ringloop/http'

/** `/stream/N` answers in parts of N bytes. */
async function* endless(part: Uint8Array): AsyncGenerator<Uint8Array> {
  for (;;) yield part
}

async function upload(request: HttpRequest): Promise<string> {
  let bytes = 0
  for await (const part of request.stream!) bytes += (part as Buffer).length
  return `${bytes}`
}

function answer(request: HttpRequest): HttpOutput | Promise<HttpOutput> {
  if (request.method === 'POST') return upload(request)
  const [, what, bytes] = request.path.split('/')
  if (what === 'stream') return { status: 200, body: endless(Buffer.alloc(Number(bytes), '.')) }
  return 'witness'
}

const handler: ReturnType<typeof httpHandler> = httpHandler(answer)
export default handler

export const protocol: HttpProtocol = new HttpProtocol({ streamBody: true, maxBodyBytes: 2 ** 40 })
