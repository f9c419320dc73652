/** What goes over a broker: it comes back as it was, and what is not ours is seen. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeFrame, encodeFrame, type Frame } from '../../src/broker/frame.js'

const PUBLISHER = '00112233445566ff'
const frame = (out: unknown): Frame => ({ publisher: PUBLISHER, sequence: 7, out, slow: 'drop' })

describe('a frame', () => {
  it('brings back what was put in', () => {
    const out = fc.oneof(
      fc.string({ unit: 'grapheme' }),
      fc.uint8Array(),
      fc.record({
        text: fc.string({ unit: 'grapheme' }),
        data: fc.uint8Array(),
        list: fc.array(fc.integer()),
      }),
    )
    fc.assert(
      fc.property(
        out,
        fc.nat({ max: 2 ** 48 - 1 }),
        fc.constantFrom<'drop' | 'close'>('drop', 'close'),
        (value, sequence, slow) => {
          const back = decodeFrame(encodeFrame({ publisher: PUBLISHER, sequence, out: value, slow }))!
          expect({ ...back, out: undefined }).toEqual({
            publisher: PUBLISHER,
            sequence,
            out: undefined,
            slow,
          })
          if (value instanceof Uint8Array) expect(Buffer.compare(back.out as Buffer, value)).toBe(0)
          else expect(back.out).toEqual(value)
        },
      ),
    )
  })

  it('has the layout that its file says', () => {
    expect(encodeFrame({ ...frame('hé'), sequence: 0x010203040506, slow: 'close' }).toString('hex')).toBe(
      `524c0104${PUBLISHER}01020304050668c3a9`,
    )
  })

  it.each([
    ['nothing', Buffer.alloc(0)],
    ['a header cut short', encodeFrame(frame('x')).subarray(0, 17)],
    ['other letters', Buffer.from(`XL${'x'.repeat(20)}`)],
    ['a later version', Buffer.from(encodeFrame(frame('x'))).fill(2, 2, 3)],
    ['flags of a later version', Buffer.from(encodeFrame(frame('x'))).fill(8, 3, 4)],
    ['a kind that there is not', Buffer.from(encodeFrame(frame('x'))).fill(3, 3, 4)],
    ['text that is no UTF-8', Buffer.concat([encodeFrame(frame('')), Buffer.from([0xff])])],
    ['a value that is none', Buffer.concat([encodeFrame(frame('')).fill(2, 3, 4), Buffer.from('garbage')])],
  ])('is not %s', (_what, bytes) => {
    expect(decodeFrame(bytes)).toBeUndefined()
  })

  it('is not made of random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        fc.pre(bytes[0] !== 0x52)
        expect(decodeFrame(bytes)).toBeUndefined()
      }),
    )
  })

  it('of what cannot be cloned throws to the publisher', () => {
    expect(() => encodeFrame(frame(() => {}))).toThrow(
      expect.objectContaining({ code: 'ERR_RINGLOOP_PACKET' }),
    )
  })
})
