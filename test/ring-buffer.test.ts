import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { RingBuffer, RingBufferError } from '../src/ringbuffer/ring-buffer.js'

const LIMIT = 'ERR_RINGLOOP_BUFFER_LIMIT'
const UNDERFLOW = 'ERR_RINGLOOP_BUFFER_UNDERFLOW'

/** A ring of `capacity` whose first readable byte lies at index `start` of its storage. */
function ringAt(start: number, bytes: Uint8Array | string, capacity = 16): RingBuffer {
  const ring = new RingBuffer(capacity)
  ring.write(Buffer.alloc(start + 1))
  ring.retrieve(start)
  ring.write(Buffer.from(bytes as string))
  ring.retrieve(1)
  expect(ring.capacity).toBe(capacity)
  return ring
}

/** Runs `check` on rings of 16 holding `bytes` (at most 15) with the wrap before, within and after them, and on a view. */
function everywhere(bytes: Uint8Array | string, check: (ring: RingBuffer) => void): void {
  for (let start = 0; start < 15; start++) check(ringAt(start, bytes))
  const view = new RingBuffer()
  const memory = Buffer.concat([Buffer.from('##'), Buffer.from(bytes as string), Buffer.from('##')])
  view.attach(memory, 2, memory.length - 2)
  check(view)
}

function thrown(act: () => void): unknown {
  try {
    act()
  } catch (error) {
    return error
  }
  return undefined
}

describe('the two faults of the original', () => {
  it('is not empty after everything was read virtually and reverted', () => {
    const ring = new RingBuffer(8)
    ring.writeString('abcd')
    expect(ring.virtualRead(Buffer.alloc(4))).toBe(4)
    expect(ring.isEmpty).toBe(false)
    ring.virtualRevert()
    expect([ring.length, ring.virtualLength, ring.isEmpty]).toEqual([4, 4, false])
    expect(ring.take(4).toString()).toBe('abcd')
    expect(ring.isEmpty).toBe(true)
  })

  it('has nothing left to read virtually after a full and wrapped ring was read virtually', () => {
    const ring = new RingBuffer(6)
    ring.writeString('abcdef')
    ring.retrieve(3)
    ring.writeString('ghi')
    expect([ring.isFull, ring.contiguous]).toEqual([true, 3])
    expect(ring.virtualRead(Buffer.alloc(6))).toBe(6)
    expect([ring.virtualLength, ring.length, ring.isFull]).toEqual([0, 6, true])
    expect(ring.virtualRead(Buffer.alloc(6))).toBe(0)
    ring.virtualFlush()
    expect([ring.length, ring.isEmpty]).toEqual([0, true])
  })
})

describe('a ring', () => {
  it('takes no memory before the first write', () => {
    const ring = new RingBuffer(1 << 30)
    expect([ring.capacity, ring.length, ring.storage.length]).toEqual([1 << 30, 0, 0])
    expect([ring.isEmpty, ring.isFull, new RingBuffer(0).isFull]).toEqual([true, false, false])
  })

  it('grows by doubling from any capacity, keeping its bytes and its virtual position', () => {
    for (const capacity of [0, 1, 3, 8, 10]) {
      const ring = new RingBuffer(capacity)
      for (let i = 0; i < 100; i++) {
        ring.writeByte(i)
        if (i === 4) ring.virtualRead(Buffer.alloc(3))
      }
      expect(ring.virtualLength).toBe(97)
      expect([...ring.bytes()]).toEqual(Array.from({ length: 100 }, (_, i) => i))
      expect(ring.capacity).toBe(128)
    }
  })

  it('lies in one piece again once it was emptied', () => {
    const ring = ringAt(10, 'abcdefgh')
    expect(ring.contiguous).toBeLessThan(ring.length)
    ring.take(8)
    expect(ring.start).toBe(0)
    ring.write(Buffer.alloc(16))
    expect(ring.contiguous).toBe(16)
  })

  it('refuses a write beyond its limit and changes nothing', () => {
    const ring = new RingBuffer(4, 10)
    ring.writeString('abcdefghi')
    expect(ring.capacity).toBe(10)
    const writes = [
      () => ring.writeString('jk'),
      () => ring.write(Buffer.alloc(2)),
      () => ring.writeRange(Buffer.alloc(5), 1, 3),
      () => ring.withData(Buffer.alloc(11)),
    ]
    for (const write of writes) {
      const error = thrown(write)
      expect(error).toBeInstanceOf(RangeError)
      expect(error).toBeInstanceOf(RingBufferError)
      expect(error).toHaveProperty('code', LIMIT)
      expect(ring.toString()).toBe('abcdefghi')
    }
    ring.writeByte(0x6a)
    expect(thrown(() => ring.writeByte(0x6b))).toHaveProperty('code', LIMIT)
    expect(ring.toString()).toBe('abcdefghij')
  })

  it('refuses to read more than there is and changes nothing', () => {
    const ring = new RingBuffer(4)
    const reads = [
      () => ring.take(1),
      () => ring.readByte(),
      () => ring.byteAt(0),
      () => ring.peekUint8(),
      () => ring.readUint16(),
      () => ring.readUint16LE(),
      () => ring.readUint32(),
      () => ring.readUint32LE(),
      () => ring.readUint64(),
      () => ring.readUint64LE(),
    ]
    for (const read of reads) expect(thrown(read)).toHaveProperty('code', UNDERFLOW)
    ring.writeString('abc')
    for (const offset of [-1, 2, 3, Number.NaN]) {
      expect(thrown(() => ring.peekUint16(offset))).toHaveProperty('code', UNDERFLOW)
    }
    for (const length of [-1, 4, Number.NaN]) {
      expect(thrown(() => ring.take(length))).toHaveProperty('code', UNDERFLOW)
    }
    expect(ring.toString()).toBe('abc')
  })

  it('is emptied by retrieving more than there is, and left alone by retrieving less than nothing', () => {
    const ring = ringAt(12, 'abcdef')
    ring.retrieve(-1)
    ring.retrieve(0)
    expect(ring.length).toBe(6)
    ring.retrieve(7)
    expect([ring.length, ring.start]).toEqual([0, 0])
  })

  it('takes copies that are independent of it and of each other', () => {
    for (const size of [0, 1, 3, 47, 64, 95, 96, 97, 256, 257, 4096, 16384, 16385, 100_000]) {
      const ring = new RingBuffer(64)
      ring.write(Buffer.alloc(size, 1))
      ring.write(Buffer.alloc(size, 2))
      const first = ring.take(size)
      const second = ring.take(size)
      ring.write(Buffer.alloc(2 * size, 9))
      first.fill(3)
      expect(Buffer.isBuffer(first)).toBe(true)
      expect(second.equals(Buffer.alloc(size, 2))).toBe(true)
      second.fill(4)
      expect(first.equals(Buffer.alloc(size, 3))).toBe(true)
      expect(ring.bytes().equals(Buffer.alloc(2 * size, 9))).toBe(true)
    }
  })

  it('takes any number of bytes up to the very end of its storage', () => {
    for (let length = 1; length <= 100; length++) {
      const data = Uint8Array.from({ length: length + 1 }, (_, i) => i)
      const ring = new RingBuffer()
      ring.withData(data)
      ring.retrieve(1)
      expect(ring.take(length).equals(data.subarray(1))).toBe(true)
    }
  })

  it('can take nothing as the very first copy of a thread', async () => {
    vi.resetModules()
    const fresh = await import('../src/ringbuffer/ring-buffer.js')
    expect(new fresh.RingBuffer().take(0).length).toBe(0)
  })

  it('keeps a thousand taken copies of many sizes as they were', () => {
    const ring = new RingBuffer(64)
    const kept: Buffer[] = []
    const size = (i: number) => (i * 37) % 700
    for (let i = 0; i < 1000; i++) {
      ring.write(Buffer.alloc(size(i), i))
      kept.push(ring.take(size(i)))
    }
    for (const [i, copy] of kept.entries()) expect(copy.equals(Buffer.alloc(size(i), i))).toBe(true)
  })

  it('takes data as its storage and writes into it', () => {
    const data = new Uint8Array([0, 1, 2, 3, 4, 0]).subarray(1, 5)
    const ring = new RingBuffer()
    ring.writeString('gone')
    ring.withData(data)
    expect([ring.length, ring.capacity, ring.isFull]).toEqual([4, 4, true])
    expect(ring.readUint16()).toBe(0x0102)
    ring.writeByte(9)
    expect([...data]).toEqual([9, 2, 3, 4])
    ring.write(Buffer.from([10, 11]))
    expect([...ring.bytes()]).toEqual([3, 4, 9, 10, 11])
    ring.withData(new Uint8Array(0))
    expect([ring.isEmpty, ring.isFull]).toEqual([true, false])
    ring.writeByte(1)
    expect(ring.readByte()).toBe(1)
  })

  it('writes text in every encoding, also across the wrap', () => {
    const texts: [string, BufferEncoding][] = [
      ['grüße€', 'utf8'],
      ['grü', 'latin1'],
      ['h€', 'utf16le'],
      ['00ff7f', 'hex'],
      ['00ffzz', 'hex'],
      ['AP9/gA==', 'base64'],
      ['', 'utf8'],
    ]
    for (const [text, encoding] of texts) {
      const encoded = Buffer.from(text, encoding)
      for (let start = 0; start < 14; start++) {
        const ring = ringAt(start, '')
        expect(ring.writeString(text, encoding)).toBe(encoded.length)
        expect(ring.bytes().equals(encoded)).toBe(true)
        expect(ring.toString(encoding)).toBe(encoded.toString(encoding))
      }
    }
  })

  it('cuts a range to what its source has', () => {
    const source = Buffer.from('abcdef')
    const ring = new RingBuffer(4)
    expect(ring.writeRange(source, 1, 3)).toBe(2)
    expect(ring.writeRange(source, -2, 1)).toBe(1)
    expect(ring.writeRange(source, 5, 100)).toBe(1)
    expect(ring.writeRange(source, 4, 4)).toBe(0)
    expect(ring.writeRange(source, 5, 2)).toBe(0)
    expect(ring.toString()).toBe('bcaf')
  })

  it('copies a range of its bytes without consuming them', () => {
    everywhere('abcdefghijkl', (ring) => {
      const target = Buffer.alloc(6, '.')
      expect(ring.copyTo(target, 1, 2, 5)).toBe(3)
      expect(target.toString()).toBe('.cde..')
      expect(ring.copyTo(target, 0, 8)).toBe(4)
      expect(target.toString()).toBe('ijkl..')
      expect(ring.copyTo(target, 4)).toBe(2)
      expect(ring.copyTo(target, 0, 12)).toBe(0)
      expect(target.toString()).toBe('ijklab')
      expect(ring.length).toBe(12)
    })
  })

  it('peeks in place where the bytes lie in one piece and joins them where they wrap', () => {
    const ring = ringAt(9, 'abcdefghij')
    expect(ring.contiguous).toBe(6)
    expect(ring.peek(6).buffer).toBe(ring.storage.buffer)
    expect(ring.peek(7).toString()).toBe('abcdefg')
    expect(ring.peek(99).toString()).toBe('abcdefghij')
    expect([ring.peek(0).length, ring.peek(-1).length]).toEqual([0, 0])
    expect(ring.peekAll().toString()).toBe('abcdefghij')
  })

  it('makes its bytes lie in one piece wherever the wrap is', () => {
    for (let start = 0; start < 15; start++) {
      for (let length = 0; length <= 15; length++) {
        const ring = ringAt(start, 'abcdefghijklmno'.slice(0, length))
        ring.virtualRead(Buffer.alloc(2))
        ring.linearize()
        expect(ring.contiguous).toBe(length)
        expect(ring.virtualLength).toBe(Math.max(0, length - 2))
        expect(ring.toString()).toBe('abcdefghijklmno'.slice(0, length))
      }
    }
  })

  it('ends a virtual read when bytes are consumed', () => {
    const ring = new RingBuffer(8)
    ring.writeString('abcdef')
    ring.virtualRead(Buffer.alloc(3))
    expect(ring.readByte()).toBe(0x61)
    expect(ring.virtualLength).toBe(5)
    ring.virtualFlush()
    expect(ring.toString()).toBe('bcdef')
  })
})

describe('numbers', () => {
  it('reads every width and byte order across the wrap and on a view', () => {
    const bytes = Buffer.from([0xf1, 0xe2, 0xd3, 0xc4, 0xb5, 0xa6, 0x97, 0x88, 0x79])
    const peeks: [
      number,
      (ring: RingBuffer, offset?: number) => number | bigint,
      (at: number) => number | bigint,
    ][] = [
      [1, (r, o) => r.peekUint8(o), (at) => bytes.readUInt8(at)],
      [1, (r, o) => r.byteAt(o ?? 0), (at) => bytes.readUInt8(at)],
      [2, (r, o) => r.peekUint16(o), (at) => bytes.readUInt16BE(at)],
      [2, (r, o) => r.peekUint16LE(o), (at) => bytes.readUInt16LE(at)],
      [4, (r, o) => r.peekUint32(o), (at) => bytes.readUInt32BE(at)],
      [4, (r, o) => r.peekUint32LE(o), (at) => bytes.readUInt32LE(at)],
      [8, (r, o) => r.peekUint64(o), (at) => bytes.readBigUInt64BE(at)],
      [8, (r, o) => r.peekUint64LE(o), (at) => bytes.readBigUInt64LE(at)],
    ]
    everywhere(bytes, (ring) => {
      for (const [width, peek, expected] of peeks) {
        expect(peek(ring)).toBe(expected(0))
        for (let at = 0; at + width <= bytes.length; at++) expect(peek(ring, at)).toBe(expected(at))
        expect(thrown(() => peek(ring, bytes.length - width + 1))).toHaveProperty('code', UNDERFLOW)
      }
    })
  })

  it('consumes what it reads, across the wrap and on a view', () => {
    const bytes = Buffer.from([0xf1, 0xe2, 0xd3, 0xc4, 0xb5, 0xa6, 0x97, 0x88, 0x79])
    const reads: [number, (ring: RingBuffer) => number | bigint, number | bigint][] = [
      [1, (r) => r.readByte(), bytes.readUInt8()],
      [1, (r) => r.readUint8(), bytes.readUInt8()],
      [2, (r) => r.readUint16(), bytes.readUInt16BE()],
      [2, (r) => r.readUint16LE(), bytes.readUInt16LE()],
      [4, (r) => r.readUint32(), bytes.readUInt32BE()],
      [4, (r) => r.readUint32LE(), bytes.readUInt32LE()],
      [8, (r) => r.readUint64(), bytes.readBigUInt64BE()],
      [8, (r) => r.readUint64LE(), bytes.readBigUInt64LE()],
    ]
    for (const [width, read, expected] of reads) {
      everywhere(bytes, (ring) => {
        expect(read(ring)).toBe(expected)
        expect(ring.bytes().equals(bytes.subarray(width))).toBe(true)
      })
    }
  })
})

describe('indexOf', () => {
  it('finds bytes, sequences and text across the wrap and on a view', () => {
    const text = 'aab\r\n\r\nab\r\n'
    everywhere(text, (ring) => {
      for (let from = 0; from <= text.length + 1; from++) {
        for (const part of ['a', 'b', '\r\n', '\r\n\r\n', 'b\r\n', 'aab', 'abc', '\n', 'x', '#']) {
          const expected = text.indexOf(part, from)
          expect(ring.indexOf(part, from)).toBe(expected)
          expect(ring.indexOf(Buffer.from(part), from)).toBe(expected)
          expect(ring.indexOf(new Uint8Array(Buffer.from(part)), from)).toBe(expected)
          if (part.length === 1) expect(ring.indexOf(part.charCodeAt(0), from)).toBe(expected)
        }
        expect(ring.indexOf('', from)).toBe(Math.min(from, text.length))
      }
      expect(ring.indexOf('aab', -5)).toBe(0)
      expect(ring.length).toBe(text.length)
    })
  })

  it('does not take old bytes behind the last readable one for the end of a sequence', () => {
    const ring = new RingBuffer(8)
    ring.writeString('xxb...ab')
    ring.retrieve(6)
    ring.writeString('ca')
    expect(ring.toString()).toBe('abca')
    expect([ring.indexOf('ab'), ring.indexOf('ab', 1)]).toEqual([0, -1])
  })

  it('finds what is far away, and never what lies beyond the readable bytes', () => {
    for (const start of [0, 1000, 3900, 4090]) {
      const ring = ringAt(start, `${'.'.repeat(3000)}\r\n${'.'.repeat(90)}`, 4096)
      expect([ring.indexOf(13), ring.indexOf('\r\n'), ring.indexOf(10, 3002)]).toEqual([3000, 3000, -1])
      const memory = ring.bytes()
      const view = new RingBuffer()
      view.attach(memory, 0, 3000)
      expect([view.indexOf(13), view.indexOf('\r\n'), view.indexOf('.\r\n')]).toEqual([-1, -1, -1])
    }
  })
})

describe('a view', () => {
  it('reads foreign memory in place', () => {
    const memory = Buffer.from('##abcdef##')
    const ring = new RingBuffer()
    ring.attach(memory, 2, 8)
    expect([ring.isView, ring.length, ring.capacity, ring.start, ring.contiguous]).toEqual([true, 6, 6, 2, 6])
    expect(ring.storage).toBe(memory)
    expect(ring.peek(3).buffer).toBe(memory.buffer)
    memory[2] = 0x41
    expect(ring.take(2).toString()).toBe('Ab')
    expect(ring.start).toBe(4)
  })

  it('moves to memory of its own before the first write, and never writes to foreign memory', () => {
    const writes: ((ring: RingBuffer) => void)[] = [
      (ring) => ring.writeByte(0x7a),
      (ring) => ring.writeString('z'),
      (ring) => ring.write(Buffer.from('z')),
      (ring) => ring.writeRange(Buffer.from('yz'), 1, 2),
    ]
    for (const write of writes) {
      const memory = Buffer.from('##abcdef##')
      const ring = new RingBuffer(4)
      ring.attach(memory, 2, 8)
      ring.retrieve(2)
      ring.virtualRead(Buffer.alloc(1))
      write(ring)
      expect([ring.isView, ring.toString(), ring.virtualLength]).toEqual([false, 'cdefz', 4])
      ring.write(Buffer.alloc(20))
      expect(memory.toString()).toBe('##abcdef##')
    }
  })

  it('comes back to the storage it had, however often it is attached', () => {
    const ring = new RingBuffer(16)
    ring.writeByte(1)
    const own = ring.storage
    for (let i = 0; i < 3; i++) {
      ring.reset()
      ring.attach(Buffer.from('abcdef'), 0, 6)
      ring.writeByte(0x67)
      expect(ring.storage).toBe(own)
      expect(ring.toString()).toBe('abcdefg')
    }
  })

  it('refuses a write beyond the limit and stays as it was', () => {
    const ring = new RingBuffer(4, 8)
    ring.attach(Buffer.from('abcdefgh'), 0, 8)
    expect(thrown(() => ring.writeByte(1))).toHaveProperty('code', LIMIT)
    expect([ring.isView, ring.toString()]).toEqual([true, 'abcdefgh'])
  })

  it('gives views of a copy that nobody else uses, however small, and copies of more than 16 KiB', () => {
    for (const length of [0, 1, 96, 5000, 16_384, 16_385, 60_000]) {
      const memory = Buffer.alloc(length + 4, 'a')
      memory.fill('#', 0, 2)
      const ring = new RingBuffer()
      ring.attachCopy(memory, 2, length + 2)
      expect([ring.isView, ring.length]).toEqual([true, length])
      const half = ring.take(length >> 1)
      const rest = ring.take(length - (length >> 1))
      memory.fill('x')
      ring.attachCopy(memory, 0, 4)
      half.fill('h')
      expect([...new Set(rest.toString())].join('')).toBe(length === 0 ? '' : 'a')
      expect([...new Set(half.toString())].join('')).toBe(length < 2 ? '' : 'h')
      expect([half.length + rest.length, ring.toString()]).toEqual([length, 'xxxx'])
      if (length === 0 || length > 16_384) continue
      expect([rest.buffer === half.buffer, rest.byteOffset]).toEqual([true, half.byteOffset + half.length])
    }
  })

  it('gives no views any more once it has written, or was attached to other memory', () => {
    const changes: ((ring: RingBuffer) => void)[] = [
      (ring) => ring.writeByte(0x7a),
      (ring) => ring.attach(Buffer.from('abcz'), 0, 4),
      (ring) => {
        ring.detach()
        ring.writeString('abcz')
      },
      (ring) => ring.withData(Buffer.from('abcz')),
    ]
    for (const change of changes) {
      const ring = new RingBuffer(16)
      ring.attachCopy(Buffer.from('abc'), 0, 3)
      change(ring)
      const taken = ring.take(4)
      expect(taken.toString()).toBe('abcz')
      ring.storage.fill('!')
      expect(taken.toString()).toBe('abcz')
    }
  })

  it('leaves nothing behind when it is attached again or detached', () => {
    const ring = new RingBuffer(8)
    ring.attach(Buffer.from('abcdef'), 0, 6)
    ring.virtualRead(Buffer.alloc(4))
    ring.attach(Buffer.from('uvwxyz'), 1, 5)
    expect([ring.virtualLength, ring.toString()]).toEqual([4, 'vwxy'])
    expect(ring.take(4).toString()).toBe('vwxy')
    expect([ring.isEmpty, ring.isView]).toEqual([true, true])
    ring.attach(Buffer.from('123456'), 2, 6)
    expect(ring.take(2).toString()).toBe('34')
    ring.virtualRead(Buffer.alloc(1))
    ring.detach()
    expect([ring.isView, ring.length, ring.virtualLength, ring.capacity]).toEqual([false, 0, 0, 8])
    ring.writeString('own')
    expect(ring.toString()).toBe('own')
  })

  it('is not made of a ring that holds bytes, nor of a range outside the memory', () => {
    const ring = new RingBuffer(8)
    for (const [start, end] of [
      [-1, 2],
      [0, 5],
      [3, 2],
    ] as const) {
      expect(() => ring.attach(Buffer.alloc(4), start, end)).toThrow(/range/)
    }
    ring.writeByte(1)
    expect(() => ring.attach(Buffer.alloc(4), 0, 4)).toThrow(/lose/)
    expect([...ring.bytes()]).toEqual([1])
  })
})

describe('against a naive model', () => {
  interface Model {
    bytes: number[]
    virtual: number
    view: boolean
  }
  type Step = (ring: RingBuffer, model: Model) => void
  const MAX = 300

  const size = fc.oneof({ weight: 4, arbitrary: fc.nat(20) }, { weight: 1, arbitrary: fc.nat(200) })
  const content = size.chain((n) => fc.uint8Array({ minLength: n, maxLength: n }))

  function consume(model: Model, count: number): number[] {
    model.virtual = 0
    return model.bytes.splice(0, count)
  }

  function write(model: Model, bytes: ArrayLike<number>, act: () => unknown): void {
    if (bytes.length > 0 && model.bytes.length + bytes.length > MAX) {
      expect(thrown(act)).toHaveProperty('code', LIMIT)
      return
    }
    act()
    if (bytes.length > 0) model.view = false
    model.bytes.push(...Array.from(bytes))
  }

  const steps: fc.Arbitrary<Step>[] = [
    content.map((b) => (ring, model) => write(model, b, () => ring.write(b))),
    fc.tuple(content, fc.nat(20), fc.nat(40)).map(([b, from, count]) => (ring, model) => {
      write(model, b.subarray(from, from + count), () => ring.writeRange(b, from, from + count))
    }),
    fc.nat(255).map((byte) => (ring, model) => write(model, [byte], () => ring.writeByte(byte))),
    fc.string({ maxLength: 12, unit: 'grapheme' }).map((text) => (ring, model) => {
      write(model, Buffer.from(text), () => ring.writeString(text))
    }),
    size.map((n) => (ring, model) => {
      const target = Buffer.alloc(n)
      const count = ring.read(target)
      expect([...target.subarray(0, count)]).toEqual(count === 0 ? [] : consume(model, n))
    }),
    size.map((n) => (ring, model) => {
      if (n > model.bytes.length) expect(thrown(() => ring.take(n))).toHaveProperty('code', UNDERFLOW)
      else if (n > 0) expect([...ring.take(n)]).toEqual(consume(model, n))
    }),
    size.map((n) => (ring, model) => {
      ring.retrieve(n)
      if (n > 0) consume(model, n)
    }),
    size.map((n) => (ring, model) => {
      const target = Buffer.alloc(n)
      const count = ring.virtualRead(target)
      expect([...target.subarray(0, count)]).toEqual(model.bytes.slice(model.virtual, model.virtual + n))
      model.virtual += count
    }),
    fc.constant((ring, model) => {
      ring.virtualFlush()
      if (model.virtual > 0) consume(model, model.virtual)
    }),
    fc.constant((ring, model) => {
      ring.virtualRevert()
      model.virtual = 0
    }),
    fc.constant((ring, model) => {
      ring.retrieveAll()
      consume(model, model.bytes.length)
    }),
    fc.constant((ring) => ring.linearize()),
    fc.tuple(fc.nat(255), fc.nat(40)).map(([byte, from]) => (ring, model) => {
      expect(ring.indexOf(byte, from)).toBe(model.bytes.indexOf(byte, from))
    }),
    fc.tuple(fc.nat(60), fc.integer({ min: 1, max: 5 }), fc.nat(40)).map(([at, n, from]) => (ring, model) => {
      const part = Buffer.from(model.bytes.slice(at, at + n))
      const whole = Buffer.from(model.bytes)
      if (part.length > 0) expect(ring.indexOf(part, from)).toBe(whole.indexOf(part, from))
    }),
    fc.tuple(size, size).map(([from, n]) => (ring, model) => {
      const target = Buffer.alloc(n)
      const expected = model.bytes.slice(from, from + n)
      expect(ring.copyTo(target, 0, from)).toBe(expected.length)
      expect([...target.subarray(0, expected.length)]).toEqual(expected)
    }),
    fc.tuple(content, fc.nat(5)).map(([b, offset]) => (ring, model) => {
      if (!model.view && model.bytes.length > 0) ring.reset()
      ring.attach(
        Buffer.concat([Buffer.alloc(offset, 255), b, Buffer.alloc(3, 255)]),
        offset,
        offset + b.length,
      )
      Object.assign(model, { bytes: [...b], virtual: 0, view: true })
    }),
    content.map((b) => (ring, model) => {
      ring.withData(Uint8Array.from(b))
      Object.assign(model, { bytes: [...b], virtual: 0, view: false })
    }),
    fc.constant((ring, model) => {
      ring.detach()
      Object.assign(model, { bytes: [], virtual: 0, view: false })
    }),
  ]

  function compare(ring: RingBuffer, model: Model): void {
    expect(ring.length).toBe(model.bytes.length)
    expect(ring.virtualLength).toBe(model.bytes.length - model.virtual)
    expect(ring.isEmpty).toBe(model.bytes.length === 0)
    expect(ring.isView).toBe(model.view)
    expect(ring.capacity).toBeGreaterThanOrEqual(ring.length)
    expect(ring.isFull).toBe(ring.length > 0 && ring.capacity === ring.length)
    const whole = Buffer.from(model.bytes)
    expect(ring.bytes().equals(whole)).toBe(true)
    expect(ring.peekAll().equals(whole)).toBe(true)
    expect(
      ring.storage
        .subarray(ring.start, ring.start + ring.contiguous)
        .equals(whole.subarray(0, ring.contiguous)),
    ).toBe(true)
  }

  it('does what an array would do, whatever the order of the calls', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(0, 1, 7, 16, 64),
        fc.array(fc.oneof(...steps), { minLength: 1, maxLength: 60 }),
        (capacity, sequence) => {
          const ring = new RingBuffer(capacity, MAX)
          const model: Model = { bytes: [], virtual: 0, view: false }
          for (const step of sequence) {
            step(ring, model)
            compare(ring, model)
          }
        },
      ),
      { numRuns: 1000 },
    )
  })
})
