/** What a letter between loops holds comes out of it as it went in, whatever else is in it. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LetterReader, LetterWriter } from '../src/threads/letter.js'
import type { Answer } from '../src/threads/questions.js'

const FROM = -7

/** As the other thread gets it. */
function delivered(writer: LetterWriter): LetterReader {
  let bytes = Buffer.alloc(0)
  writer.finish((all, length) => {
    bytes = Buffer.from(all.subarray(0, length))
  })
  return new LetterReader(bytes)
}

const outs = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 300 }),
  fc.string({ unit: 'binary-ascii', maxLength: 300 }),
  fc.array(fc.integer({ min: 0xd7ff, max: 0xe000 })).map((codes) => String.fromCharCode(...codes)),
  fc.uint8Array({ maxLength: 300 }),
  fc.integer({ min: 50_000, max: 200_000 }).map((length) => Buffer.alloc(length, 'large')),
)
const topics = fc.constantFrom('t', 'é'.repeat(127), 'x'.repeat(255), '🔔')

describe('a letter', () => {
  it('gives back each publication, in order', () => {
    const publications = fc.array(
      fc.record({
        id: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
        topic: topics,
        out: outs,
        slow: fc.constantFrom('drop' as const, 'close' as const),
      }),
      { minLength: 1 },
    )
    const writer = new LetterWriter(FROM)
    fc.assert(
      fc.property(publications, (all) => {
        for (const { id, topic, out, slow } of all) writer.addPublication(id, topic, out, slow)
        const letter = delivered(writer)
        expect([letter.from, letter.isOfAnswers, writer.isEmpty]).toEqual([FROM, false, true])
        for (const { id, topic, out, slow } of all) {
          expect(letter.hasMore).toBe(true)
          const { publication, ...head } = letter.publication()
          expect(head).toEqual({ type: 'publish', id })
          expect({ ...publication, out: asText(publication.out) }).toEqual({
            topic,
            out: asText(out),
            options: { slow },
          })
        }
        expect(letter.hasMore).toBe(false)
      }),
      { numRuns: 50 },
    )
  })

  /** Comparing large buffers item by item takes long. */
  function asText(out: unknown): string {
    return typeof out === 'string' ? `text ${out}` : `bytes ${Buffer.from(out as Uint8Array).toString('hex')}`
  }

  it('gives back each answer', () => {
    const counts = fc.integer({ min: 0, max: 2 ** 32 - 1 })
    const answers = fc.record({ sent: counts, dropped: counts, closed: counts }).map((result) => ({ result }))
    const errors = fc.string({ unit: 'grapheme', maxLength: 5000 }).map((error) => ({ error }))
    const writer = new LetterWriter(FROM)
    fc.assert(
      fc.property(fc.array(fc.oneof(answers, errors), { minLength: 1 }), (all) => {
        const given = all.map(
          (one, id): Answer => ({
            type: 'answer',
            id,
            result: undefined,
            error: undefined,
            code: undefined,
            ...one,
          }),
        )
        for (const one of given) writer.addAnswer(one)
        const letter = delivered(writer)
        expect([letter.from, letter.isOfAnswers]).toEqual([FROM, true])
        const read: Answer[] = []
        while (letter.hasMore) read.push(letter.answer())
        expect(read).toEqual(given)
      }),
    )
  })

  it('says when it is full, and the next one begins empty', () => {
    const writer = new LetterWriter(FROM)
    let count = 0
    for (; !writer.isFull; count++) writer.addPublication(count, 't', 'x'.repeat(1000), undefined)
    expect(count).toBeGreaterThan(60)
    expect(count).toBeLessThan(66)
    delivered(writer)
    expect([writer.isEmpty, writer.isFull]).toEqual([true, false])
  })
})
