import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type ByteSource, ByteStream } from '../src/ringbuffer/byte-stream.js'
import { RingBuffer } from '../src/ringbuffer/ring-buffer.js'

function ringOf(bytes: Uint8Array | string): RingBuffer {
  const ring = new RingBuffer(0)
  ring.withData(Buffer.from(bytes as string))
  return ring
}

function write(stream: ByteStream, bytes: Uint8Array | string): number {
  const ring = ringOf(bytes)
  const { length } = ring
  const waiting = stream.write(ring, length)
  expect(ring.isEmpty).toBe(true)
  return waiting
}

/** A source that notes what it is told. */
function noting(): { readonly said: string[]; readonly source: ByteSource } {
  const said: string[] = []
  return {
    said,
    source: {
      begin: () => said.push('begin'),
      pause: () => said.push('pause'),
      resume: () => said.push('resume'),
      taken: (bytes) => said.push(`taken ${bytes}`),
    },
  }
}

describe('a stream of bytes', () => {
  it('gives all bytes in their order, however they came and whenever they are read', async () => {
    const step = fc.oneof(fc.nat({ max: 9000 }), fc.constant('read' as const))
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const stream = new ByteStream()
        const sent: Buffer[] = []
        const got: Promise<IteratorResult<Buffer, undefined>>[] = []
        let next = 0
        let waits = false
        for (const each of steps) {
          if (each !== 'read') {
            const bytes = Buffer.from(Array.from({ length: each }, () => next++ & 0xff))
            sent.push(bytes)
            write(stream, bytes)
            if (each > 0) waits = false
          } else if (!waits) {
            waits = stream.length === 0
            got.push(stream.next())
          }
        }
        stream.end()
        const rest = waits ? Buffer.alloc(0) : await stream.bytes()
        const chunks = (await Promise.all(got)).flatMap(({ value }) => (value === undefined ? [] : [value]))
        expect(Buffer.concat([...chunks, rest]).equals(Buffer.concat(sent))).toBe(true)
        expect(stream.length).toBe(0)
      }),
      { numRuns: 200 },
    )
  })

  it('hands what comes to a reader that waits, and counts only what waits', async () => {
    const { said, source } = noting()
    const stream = new ByteStream(source)
    const first = stream.next()
    expect(said).toEqual(['begin'])
    expect(write(stream, 'one')).toBe(0)
    expect(write(stream, 'two')).toBe(3)
    expect(write(stream, '')).toBe(0)
    expect(stream.length).toBe(3)
    expect(String((await first).value)).toBe('one')
    expect(String((await stream.next()).value)).toBe('two')
    expect(said).toEqual(['begin', 'taken 3'])
  })

  it('gathers small pieces, so that they are few chunks', async () => {
    const stream = new ByteStream()
    for (let i = 0; i < 10_000; i++) write(stream, 'x')
    stream.end()
    let chunks = 0
    for await (const chunk of stream) chunks += chunk.length > 0 ? 1 : 0
    expect(chunks).toBeLessThanOrEqual(3)
  })

  it('asks its source to pause above the mark and to resume at half of it', async () => {
    const { said, source } = noting()
    const stream = new ByteStream(source, 10_000)
    write(stream, Buffer.alloc(6000))
    expect([said, stream.isFull]).toEqual([[], false])
    write(stream, Buffer.alloc(5000))
    write(stream, Buffer.alloc(5000))
    expect([said, stream.isFull]).toEqual([['pause'], true])
    await stream.next()
    expect(stream.isFull).toBe(true)
    await stream.next()
    expect(said).toEqual(['pause', 'begin', 'taken 6000', 'taken 5000', 'resume'])
    expect(stream.isFull).toBe(false)
  })

  it('lets its source go on when the reader leaves, and drops the rest', async () => {
    const { said, source } = noting()
    const stream = new ByteStream(source, 100)
    write(stream, Buffer.alloc(200))
    for await (const chunk of stream) {
      expect(chunk.length).toBe(200)
      write(stream, Buffer.alloc(300))
      break
    }
    expect(said).toEqual(['pause', 'begin', 'taken 200', 'resume', 'pause', 'taken 300', 'resume'])
    expect(write(stream, 'more')).toBe(0)
    expect(await stream.next()).toEqual({ done: true, value: undefined })
  })

  it('tells its source once that the reader has left before the end, and not after it', async () => {
    const told: string[] = []
    const source = {
      taken: (bytes: number) => told.push(`taken ${bytes}`),
      cancel: () => told.push('cancel'),
    }
    const left = new ByteStream(source)
    write(left, 'some')
    await left.return()
    left.discard()
    expect(told).toEqual(['taken 4', 'cancel'])
    const ended = new ByteStream(source)
    ended.end()
    await ended.return()
    expect(told.length).toBe(2)
  })

  it('gives an error at once, to a reader that waits and to one that comes', async () => {
    const { said, source } = noting()
    const waiting = new ByteStream()
    const next = waiting.next()
    waiting.fail(new Error('gone'))
    await expect(next).rejects.toThrow('gone')
    const stream = new ByteStream(source)
    write(stream, 'bytes')
    stream.fail(new Error('gone'))
    expect([said, stream.length]).toEqual([['taken 5'], 0])
    await expect(stream.next()).rejects.toThrow('gone')
    expect(write(stream, 'more')).toBe(0)
  })

  it('gives what waits before the error that it ends with', async () => {
    const stream = new ByteStream()
    write(stream, 'half')
    stream.end(new Error('gone'))
    expect(String((await stream.next()).value)).toBe('half')
    await expect(stream.next()).rejects.toThrow('gone')
    await expect(stream.next()).rejects.toThrow('gone')
  })

  it('does not end well where it fails without an error', async () => {
    const stream = new ByteStream()
    stream.fail(undefined)
    await expect(stream.next()).rejects.toMatchObject({ code: 'ERR_RINGLOOP_CLOSED' })
  })

  it('has no error after its end', async () => {
    const stream = new ByteStream()
    write(stream, 'all')
    stream.end()
    stream.fail(new Error('gone'))
    expect(String(await stream.bytes())).toBe('all')
  })

  it('is read by one', async () => {
    const stream = new ByteStream()
    const first = stream.next()
    await expect(stream.next()).rejects.toMatchObject({ code: 'ERR_RINGLOOP_STATE' })
    stream.end()
    expect(await first).toEqual({ done: true, value: undefined })
  })

  it('gives no more bytes as one than were asked for', async () => {
    const stream = new ByteStream()
    write(stream, 'too many')
    await expect(stream.bytes(7)).rejects.toThrow(RangeError)
    expect(stream.length).toBe(0)
  })
})
