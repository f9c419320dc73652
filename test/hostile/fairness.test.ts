/**
 * One connection may not hurt another: the floods of `benchmarks/fairness`, in a process of their own, and a witness in
 * another. The bounds are for two busy cores; what was measured is printed, and the aim is a p99 below 20 ms.
 */
import { afterAll, describe, expect, it } from 'vitest'
import { FLOODS, floodCalled } from '../../benchmarks/fairness/floods.js'
import { type Figure, figureText, measure } from '../../benchmarks/fairness/measure.js'

const SECONDS = 1.5
const P99_MS = 500
const MAX_MS = 1000
const REQUESTS = 20

const figures: string[] = []

function expectFair(name: string, figure: Figure): void {
  figures.push(`${name}: ${figureText(figure)}`)
  expect(figure.errors, 'requests that failed').toBe(0)
  expect(figure.unanswered, 'requests without an answer').toBe(0)
  expect(figure.p99, 'p99 in ms').toBeLessThan(P99_MS)
  expect(figure.max, 'the slowest in ms').toBeLessThan(MAX_MS)
  expect(figure.requests, 'requests that got through').toBeGreaterThan(REQUESTS)
}

afterAll(() => console.error(figures.join('\n')))

describe.skipIf(process.platform !== 'linux')('another client is answered while', () => {
  for (const poller of ['native', 'net'] as const) {
    for (const flood of FLOODS) {
      it(`${poller}: ${flood.name} by ${flood.connections} client(s)`, async () => {
        expectFair(`${poller} ${flood.name}`, await measure({ flood, poller, seconds: SECONDS }))
      })
    }

    it(`${poller}, two loops: both are flooded with lines`, async () => {
      const flood = floodCalled('lines')
      expectFair(`${poller} lines, two loops`, await measure({ flood, poller, seconds: SECONDS, loops: 2 }))
    })
  }
})
