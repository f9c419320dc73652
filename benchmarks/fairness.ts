/**
 * Does one connection hurt another? A witness asks one thing at a time while others flood the same loop; see
 * `fairness/floods.ts`. The aim: p99 below 20 ms on an otherwise idle machine, by each flood on each poller.
 *
 *     node dist/benchmarks/fairness.js [--poller native|net] [--flood NAME] [--seconds N] [--loops N]
 */
import { parseArgs } from 'node:util'
import { FLOODS, floodCalled } from './fairness/floods.js'
import { measure } from './fairness/measure.js'
import { Unavailable } from './harness/processes.js'

const POLLERS = ['native', 'net'] as const

const { values } = parseArgs({
  options: {
    poller: { type: 'string' },
    flood: { type: 'string' },
    seconds: { type: 'string', default: '5' },
    loops: { type: 'string', default: '1' },
  },
})
const pollers = POLLERS.filter((poller) => values.poller === undefined || values.poller === poller)
const floods = values.flood === undefined ? FLOODS : [floodCalled(values.flood)]

function row(...cells: readonly (string | number)[]): string {
  return cells
    .map((cell, i) => (i < 2 ? String(cell).padEnd(i === 0 ? 13 : 8) : String(cell).padStart(12)))
    .join('')
}

console.log(
  row('flood', 'poller', 'requests', 'p50 ms', 'p99 ms', 'max ms', 'unanswered', 'failed', 'server CPU'),
)
for (const flood of floods) {
  for (const poller of pollers) {
    try {
      const figure = await measure({
        flood,
        poller,
        seconds: Number(values.seconds),
        loops: Number(values.loops),
      })
      const times = [figure.p50, figure.p99, figure.max].map((ms) => ms.toFixed(2))
      const cpu = `${Math.round(figure.serverCpu * 100)} %`
      console.log(row(flood.name, poller, figure.requests, ...times, figure.unanswered, figure.errors, cpu))
    } catch (error) {
      if (!(error instanceof Unavailable)) throw error
      console.log(row(flood.name, poller, error.message))
    }
  }
}
