/** What one HTTP client may take of a turn: a body of very many chunks takes several, and is the same body. */
import { describe, expect, it, vi } from 'vitest'
import { HttpProtocol, type HttpRequest, httpHandler } from '../src/plugins/http/index.js'
import { type FakeLoop, fakeLoop } from './support/fake-loop.js'
import { until } from './support/wait.js'

const CHUNKS = 5000
const CHUNKS_PER_TURN = 128
const POST = 'POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n'
const GET = 'GET /polite HTTP/1.1\r\nHost: x\r\n\r\n'
const LAST_CHUNK = '0\r\n\r\n'

function chunksOf(text: string): string {
  return Array.from(text, (byte) => `1\r\n${byte}\r\n`).join('')
}

async function bodyOf(request: HttpRequest): Promise<string> {
  if (request.stream === undefined) return request.text()
  let text = ''
  for await (const part of request.stream) text += part
  return text
}

describe.each([false, true])('with streamBody: %s, a body in very many chunks', (streamBody) => {
  async function serve(): Promise<{ fake: FakeLoop; seen: string[] }> {
    const seen: string[] = []
    const answer = async (request: HttpRequest): Promise<string> => {
      seen.push(await bodyOf(request))
      return 'yes'
    }
    const protocol = new HttpProtocol({ streamBody })
    return { fake: await fakeLoop(httpHandler(answer), { protocol }), seen }
  }

  it('is read in turns, and others have theirs', async () => {
    const { fake, seen } = await serve()
    const push = vi.spyOn(fake.loop.turns, 'push')
    const body = 'abcdefghij'.repeat(CHUNKS / 10)
    const many = fake.accept()
    many.socket.read(POST + chunksOf(body) + LAST_CHUNK)
    const polite = fake.accept()
    polite.socket.read(GET)
    await until('both are answered', () => seen.length === 2)
    expect(seen).toEqual(['', body])
    expect(push.mock.calls.filter(([c]) => c === many.c).length).toBeGreaterThanOrEqual(
      Math.floor(CHUNKS / CHUNKS_PER_TURN),
    )
    await until('the answer is sent', () => many.socket.out.includes('yes'))
    await until('no ring is out', () => fake.ringsOut() === 0)
  })

  it('is whole also where the client has ended its side behind it', async () => {
    const { fake, seen } = await serve()
    const { socket } = fake.accept()
    const body = '.'.repeat(CHUNKS)
    socket.read(POST + chunksOf(body) + LAST_CHUNK)
    socket.end()
    await until('it is closed', () => socket.closed !== undefined)
    expect(seen).toEqual([body])
    expect(socket.out.toString('latin1')).toContain('200 OK')
  })

  it('is broken off where the client has ended in the middle of it', async () => {
    const { fake, seen } = await serve()
    const { socket } = fake.accept()
    socket.read(POST + chunksOf('.'.repeat(CHUNKS)))
    socket.end()
    await until('it is closed', () => socket.closed !== undefined)
    expect(seen).toEqual([])
  })
})
