import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HeadMemo, HeadParser, HttpError, type RequestHead } from '../src/http1/index.js'
import { RingBuffer } from '../src/ringbuffer/ring-buffer.js'

const LIMITS = { maxHeaderBytes: 1024, maxHeaders: 16 }

function parse(text: string, limits: typeof LIMITS = LIMITS): RequestHead | undefined {
  const ring = new RingBuffer()
  ring.write(Buffer.from(text, 'latin1'))
  return new HeadParser(limits).parse(ring)
}

function statusOf(text: string, limits: typeof LIMITS = LIMITS): number | 'incomplete' | 'ok' {
  try {
    return parse(text, limits) === undefined ? 'incomplete' : 'ok'
  } catch (error) {
    if (error instanceof HttpError) return error.status
    throw error
  }
}

/** What any split must give: a list of what was parsed, ended by the status of an error. */
function parseAll(text: string, cuts: readonly number[], capacity = 4096): unknown[] {
  const bytes = Buffer.from(text, 'latin1')
  const ring = new RingBuffer(capacity)
  const parser = new HeadParser(LIMITS)
  const seen: unknown[] = []
  let from = 0
  for (const to of [...new Set([...cuts.map((cut) => Math.min(cut, bytes.length)), bytes.length])].sort(
    (a, b) => a - b,
  )) {
    ring.write(bytes.subarray(from, to))
    from = to
    try {
      for (let head = parser.parse(ring); head !== undefined; head = parser.parse(ring)) {
        seen.push([head.method, head.target, head.version, ...head.headers])
      }
    } catch (error) {
      if (!(error instanceof HttpError)) throw error
      return [...seen, error.status]
    }
  }
  return [...seen, ring.length]
}

describe('a request head', () => {
  it('gives method, target, path, query, version and fields, and leaves the body', () => {
    const ring = new RingBuffer()
    ring.write(
      Buffer.from('POST /a/b?c=d?e HTTP/1.1\r\nHost: x\r\nContent-Length:  4 \t\r\nEmpty:\r\n\r\nbody'),
    )
    const head = new HeadParser(LIMITS).parse(ring)!
    expect(head).toMatchObject({ method: 'POST', target: '/a/b?c=d?e', path: '/a/b', query: 'c=d?e' })
    expect(head.version).toBe('1.1')
    expect([...head.headers]).toEqual([
      ['host', 'x'],
      ['content-length', '4'],
      ['empty', ''],
    ])
    expect(ring.toString()).toBe('body')
  })

  it('finds fields in any case, joins repeated ones and keeps them apart in getAll', () => {
    const { headers } = parse(
      'GET / HTTP/1.1\r\nAccept: a\r\nCOOKIE: x=1\r\naccept: b, c\r\ncookie: y=2\r\n\r\n',
    )!
    expect(headers.get('ACCEPT')).toBe('a, b, c')
    expect(headers.getAll('accept')).toEqual(['a', 'b, c'])
    expect(headers.get('Cookie')).toBe('x=1; y=2')
    expect(headers.has('accept')).toBe(true)
    expect(headers.get('accep')).toBeUndefined()
    expect(headers.get('accepŔ')).toBeUndefined()
    expect(headers.size).toBe(4)
  })

  it('reads each form of the target', () => {
    expect(parse('OPTIONS * HTTP/1.1\r\n\r\n')).toMatchObject({ target: '*', path: '*', query: '' })
    expect(parse('GET http://h:1/p?q HTTP/1.1\r\n\r\n')).toMatchObject({ path: '/p', query: 'q' })
    expect(parse('GET http://h?q HTTP/1.1\r\n\r\n')).toMatchObject({ path: '/', query: 'q' })
    expect(parse('GET http://h HTTP/1.1\r\n\r\n')).toMatchObject({ path: '/', query: '' })
    expect(parse('CONNECT h:443 HTTP/1.1\r\n\r\n')).toMatchObject({ path: 'h:443' })
  })

  it('reads HTTP/1.0 and takes a later minor version for 1.1', () => {
    expect(parse('GET / HTTP/1.0\r\n\r\n')?.version).toBe('1.0')
    expect(parse('GET / HTTP/1.7\r\n\r\n')?.version).toBe('1.1')
  })

  it('reads the bytes of a value as Latin-1', () => {
    expect(parse('GET / HTTP/1.1\r\nx: caf\xe9\r\n\r\n')?.headers.get('x')).toBe('caf\xe9')
  })

  it('skips a few empty lines before the request', () => {
    expect(parse(`${'\r\n'.repeat(4)}GET / HTTP/1.1\r\n\r\n`)?.method).toBe('GET')
    expect(statusOf(`${'\r\n'.repeat(5)}GET / HTTP/1.1\r\n\r\n`)).toBe(400)
  })

  it.each([
    ['a folded line', 'GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n'],
    ['a folded first line', 'GET / HTTP/1.1\r\n a: b\r\n\r\n'],
    ['a blank before the colon', 'GET / HTTP/1.1\r\na : b\r\n\r\n'],
    ['a tab before the colon', 'GET / HTTP/1.1\r\na\t: b\r\n\r\n'],
    ['a field without a name', 'GET / HTTP/1.1\r\n: b\r\n\r\n'],
    ['a field without a colon', 'GET / HTTP/1.1\r\nab\r\n\r\n'],
    ['a name that is no token', 'GET / HTTP/1.1\r\na(b: c\r\n\r\n'],
    ['a name outside ASCII', 'GET / HTTP/1.1\r\na\xe9: c\r\n\r\n'],
    ['a NUL in a value', 'GET / HTTP/1.1\r\na: b\0c\r\n\r\n'],
    ['a control character in a value', 'GET / HTTP/1.1\r\na: b\x01\r\n\r\n'],
    ['a DEL in a value', 'GET / HTTP/1.1\r\na: b\x7f\r\n\r\n'],
    ['a bare CR in a value', 'GET / HTTP/1.1\r\na: b\rc\r\n\r\n'],
    ['a bare CR at the start of a line', 'GET / HTTP/1.1\r\n\ra: b\r\n\r\n'],
    ['a bare LF after a value', 'GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n'],
    ['a bare LF after the request line', 'GET / HTTP/1.1\na: b\r\n\r\n'],
    ['a bare LF as the empty line', 'GET / HTTP/1.1\r\na: b\r\n\n'],
    ['a blank before the method', ' GET / HTTP/1.1\r\n\r\n'],
    ['two blanks after the method', 'GET  / HTTP/1.1\r\n\r\n'],
    ['two blanks after the target', 'GET /  HTTP/1.1\r\n\r\n'],
    ['a tab after the method', 'GET\t/ HTTP/1.1\r\n\r\n'],
    ['a method that is no token', 'G=T / HTTP/1.1\r\n\r\n'],
    ['no target', 'GET HTTP/1.1\r\n\r\n'],
    ['no version', 'GET /\r\n\r\n'],
    ['a version in lower case', 'GET / http/1.1\r\n\r\n'],
    ['a version of two digits', 'GET / HTTP/1.10\r\n\r\n'],
    ['a version without a minor one', 'GET / HTTP/1\r\n\r\n'],
    ['another protocol', 'GET / RTSP/1.0\r\n\r\n'],
    ['a blank after the version', 'GET / HTTP/1.1 \r\n\r\n'],
    ['a fragment in the target', 'GET /a#b HTTP/1.1\r\n\r\n'],
    ['a control character in the target', 'GET /\x01 HTTP/1.1\r\n\r\n'],
    ['a target outside ASCII', 'GET /\xe9 HTTP/1.1\r\n\r\n'],
    ['a relative target', 'GET a/b HTTP/1.1\r\n\r\n'],
    ['an asterisk for another method than OPTIONS', 'GET * HTTP/1.1\r\n\r\n'],
    ['an absolute target without a host', 'GET http:///a HTTP/1.1\r\n\r\n'],
    ['a path for CONNECT', 'CONNECT /a HTTP/1.1\r\n\r\n'],
    ['the first bytes of TLS', '\x16\x03\x01\x02\0\x01'],
  ])('refuses %s with 400', (_name, text) => {
    expect(statusOf(text)).toBe(400)
  })

  it('refuses another major version with 505', () => {
    expect(statusOf('GET / HTTP/2.0\r\n\r\n')).toBe(505)
    expect(statusOf('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')).toBe(505)
  })

  it('refuses a method longer than any with 501', () => {
    expect(statusOf(`${'A'.repeat(33)} / HTTP/1.1\r\n\r\n`)).toBe(501)
    expect(statusOf(`${'A'.repeat(32)} / HTTP/1.1\r\n\r\n`)).toBe('ok')
  })

  it('refuses a request line above the limit with 414, whole or not', () => {
    expect(statusOf(`GET /${'a'.repeat(1100)}`)).toBe(414)
    expect(statusOf(`GET /${'a'.repeat(1100)} HTTP/1.1\r\n\r\n`)).toBe(414)
  })

  it('refuses a head above the limit with 431, whole or not, and takes one of exactly the limit', () => {
    const start = 'GET / HTTP/1.1\r\na: '
    const fill = 'b'.repeat(1024 - start.length - 4)
    expect(statusOf(`${start}${fill}\r\n\r\n`)).toBe('ok')
    expect(statusOf(`${start}${fill}b\r\n\r\n`)).toBe(431)
    expect(statusOf(`${start}${fill}bbbbbbb`)).toBe(431)
  })

  it('takes maxHeaders fields and refuses one more with 431', () => {
    expect(statusOf(`GET / HTTP/1.1\r\n${'a: b\r\n'.repeat(16)}\r\n`)).toBe('ok')
    expect(statusOf(`GET / HTTP/1.1\r\n${'a: b\r\n'.repeat(17)}\r\n`)).toBe(431)
  })

  it('says "not yet" for every prefix of a head', () => {
    const text = 'GET /a?b HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n'
    for (let length = 0; length < text.length; length++) {
      expect(statusOf(text.slice(0, length))).toBe('incomplete')
      expect(statusOf(`\r\n${text}`.slice(0, length))).toBe('incomplete')
    }
    expect(statusOf(text)).toBe('ok')
  })

  it('looks at a head that comes byte by byte only a few times', () => {
    const text = `GET / HTTP/1.1\r\n${`a: ${'b'.repeat(60_000)}\r\n`.repeat(4)}\r\n`
    const ring = new RingBuffer()
    const parser = new HeadParser({ maxHeaderBytes: 1 << 20, maxHeaders: 16 })
    const began = performance.now()
    let head: RequestHead | undefined
    for (const byte of Buffer.from(text)) {
      ring.writeByte(byte)
      head = parser.parse(ring)
    }
    expect(head?.headers.size).toBe(4)
    expect(performance.now() - began).toBeLessThan(5000)
  })

  it('gives the same for every split, also where the ring wraps', () => {
    const line = fc.constantFrom(
      'Host: a\r\n',
      'x:\r\n',
      'Cookie: a=b; c\r\n',
      ' fold\r\n',
      'bad : x\r\n',
      'a: b\n',
      'a: b\rc\r\n',
      `long: ${'z'.repeat(500)}\r\n`,
    )
    const request = fc
      .tuple(
        fc.constantFrom(
          'GET / HTTP/1.1\r\n',
          'POST /a?b HTTP/1.0\r\n',
          '\r\nPUT /x HTTP/1.1\r\n',
          'GET / HTTP/3.0\r\n',
        ),
        fc.array(line, { maxLength: 4 }),
      )
      .map(([start, lines]) => `${start}${lines.join('')}\r\n`)
    fc.assert(
      fc.property(
        fc.array(request, { minLength: 1, maxLength: 4 }),
        fc.array(fc.nat(2000), { maxLength: 12 }),
        (requests, cuts) => {
          const text = requests.join('')
          const whole = parseAll(text, [])
          expect(parseAll(text, cuts, 64)).toEqual(whole)
          expect(
            parseAll(
              text,
              Array.from({ length: text.length }, (_, i) => i),
              16,
            ),
          ).toEqual(whole)
        },
      ),
      { numRuns: 150 },
    )
  })
})

describe('a head that requests share', () => {
  it('cannot be changed by one of them', () => {
    const memo = new HeadMemo()
    const text = 'GET /same HTTP/1.1\r\nHost: a\r\n\r\n'
    const heads = Array.from({ length: 4 }, () => {
      const ring = new RingBuffer()
      ring.write(Buffer.from(text))
      return new HeadParser(LIMITS, memo).parse(ring)!
    })
    const [, shared, ...same] = heads
    for (const head of same) expect(head).toBe(shared)
    expect(() => Object.assign(shared!, { method: 'POST' })).toThrow(TypeError)
    expect(() => Object.assign(shared!, { user: 'mine' })).toThrow(TypeError)
    expect(() => Object.assign(shared!.headers, { user: 'mine' })).toThrow(TypeError)
    expect([shared!.method, shared!.headers.get('host')]).toEqual(['GET', 'a'])
  })
})
