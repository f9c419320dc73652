// HTTP hello: text, JSON, a body, a stream.   npm run example -- http-hello   then: curl -i 127.0.0.1:1833/
import { setTimeout as sleep } from 'node:timers/promises'
import { isMainThread } from 'node:worker_threads'
import { Server } from 'ringloop'
import { type HttpOutput, HttpProtocol, type HttpRequest, httpHandler } from 'ringloop/http'
import { exampleFlags, serve } from './flags.js'

/** Each loop's thread imports this very file and takes these two from here. */
export const protocol: HttpProtocol = new HttpProtocol()

const handler: ReturnType<typeof httpHandler> = httpHandler(hello)
export default handler

function hello(request: HttpRequest): HttpOutput {
  switch (request.path) {
    case '/':
      return 'Hello World'
    case '/json':
      return json({ method: request.method, query: request.query, host: request.headers.get('host') })
    case '/echo':
      return request.body
    case '/count':
      return { headers: { 'content-type': 'text/plain' }, body: count() }
    default:
      return { status: 404, body: 'not found\n' }
  }
}

function json(value: unknown): HttpOutput {
  return { headers: { 'content-type': 'application/json' }, body: `${JSON.stringify(value)}\n` }
}

async function* count(): AsyncGenerator<string> {
  for (let i = 1; i <= 5; i++) {
    yield `${i}\n`
    await sleep(200)
  }
}

if (isMainThread) {
  const flags = exampleFlags()
  // One loop runs here, more import this file.
  const server =
    flags.loops === 1
      ? new Server(handler, { ...flags.oneLoop(), protocol })
      : new Server<HttpRequest, HttpOutput>(import.meta.url, flags.options)
  await serve(server)
}
