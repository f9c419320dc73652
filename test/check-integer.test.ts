import { describe, expect, it } from 'vitest'
import { checkInteger } from '../src/check-integer.js'

describe('the check of integer options', () => {
  it('gives the value, or the default where there is none', () => {
    expect(checkInteger('size', 5, 1)).toBe(5)
    expect(checkInteger('size', undefined, 1)).toBe(1)
    expect(checkInteger('size', 0, 1)).toBe(0)
    expect(checkInteger('size', -3, 1, -5)).toBe(-3)
    expect(checkInteger('size', Number.POSITIVE_INFINITY, 1, 1, Number.POSITIVE_INFINITY)).toBe(
      Number.POSITIVE_INFINITY,
    )
  })

  it.each([
    [1.5, 0, undefined, 'size must be an integer, 0 or more, not 1.5'],
    [-1, 0, undefined, 'size must be an integer, 0 or more, not -1'],
    ['5', 0, undefined, "size must be an integer, 0 or more, not '5'"],
    [null, 1, undefined, 'size must be an integer, 1 or more, not null'],
    [Number.NaN, 1, undefined, 'size must be an integer, 1 or more, not NaN'],
    [Number.POSITIVE_INFINITY, 1, undefined, 'size must be an integer, 1 or more, not Infinity'],
    [2 ** 53, 1, Number.POSITIVE_INFINITY, 'size must be an integer, 1 or more, not 9007199254740992'],
    [10, 1, 9, 'size must be an integer from 1 to 9, not 10'],
    [Symbol('x'), 1, 9, 'size must be an integer from 1 to 9, not Symbol(x)'],
    [Object.create(null), 1, 9, 'size must be an integer from 1 to 9, not [Object: null prototype] {}'],
  ])('says what is wrong with %s', (value, min, max, message) => {
    expect(() => checkInteger('size', value, 1, min, max)).toThrow(
      expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION', message }),
    )
  })
})
