/** The dashboard and docs/metrics.md name the metrics that are served, and no others. */
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { SharedStats } from '../src/loop/stats.js'
import { registerMetrics } from '../src/plugins/metrics/metrics.js'
import { MetricsText } from './metrics-text.js'

const read = (name: string): string => readFileSync(new URL(`../docs/${name}`, import.meta.url), 'utf8')

const broker = {
  name: 'redis',
  connected: true,
  ...{ topics: 0, published: 0, rejected: 0, received: 0, gaps: 0, missed: 0, strangers: 0 },
}
const stats = { ...new SharedStats(2).snapshot(), broker }
const served = new MetricsText(await registerMetrics({ stats: () => stats }).metrics())

interface Target {
  readonly expr: string
  readonly refId: string
  readonly datasource: { readonly uid: string }
}

interface Panel {
  readonly id: number
  readonly title: string
  readonly type: string
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly datasource?: { readonly uid: string }
  readonly targets?: readonly Target[]
}

interface Variable {
  readonly name: string
  readonly type: string
}

const dashboard = JSON.parse(read('grafana-dashboard.json')) as {
  readonly panels: readonly Panel[]
  readonly templating: { readonly list: readonly Variable[] }
}
const targets = dashboard.panels.flatMap((panel) => panel.targets ?? [])

/** What a query may ask for: of a histogram its series, of the others the name. */
const series = new Set(
  [...served.families.values()].flatMap(({ samples }) => samples.map(({ name }) => name)),
)

describe('the dashboard', () => {
  it('asks for series that are served, with labels that they have', () => {
    for (const { expr } of targets) {
      const names = expr.match(/\bringloop_\w+/g) ?? []
      expect(names, expr).not.toHaveLength(0)
      for (const name of names) {
        expect(series, expr).toContain(name)
        const labels = new Set(served.samples(name).flatMap((sample) => Object.keys(sample.labels)))
        for (const [, by] of expr.matchAll(/by \(([^)]*)\)/g)) {
          for (const label of by!.split(',')) expect([...labels], expr).toContain(label.trim())
        }
      }
    }
  })

  it('shows every metric', () => {
    const shown = targets.map(({ expr }) => expr).join('\n')
    for (const name of served.families.keys()) expect(shown).toMatch(new RegExp(`\\b${name}(_\\w+)?\\{`))
  })

  it('takes rates of counters and histograms, and not of gauges', () => {
    for (const { expr } of targets) {
      for (const [name, { type }] of served.families) {
        const asked =
          expr.match(new RegExp(`(rate\\(|increase\\()?\\b${name}(_bucket|_sum|_count)?\\{`, 'g')) ?? []
        for (const each of asked) expect(/^(rate|increase)/.test(each), expr).toBe(type !== 'gauge')
      }
    }
  })

  it('lets its reader choose the data source', () => {
    expect(dashboard.templating.list.find(({ type }) => type === 'datasource')?.name).toBe('datasource')
    for (const { datasource } of [...targets, ...dashboard.panels.filter(({ type }) => type !== 'row')]) {
      expect(datasource?.uid).toMatch(/^\$\{datasource\}$/)
    }
  })

  it('has panels that do not lie on each other', () => {
    expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length)
    const taken = new Map<string, string>()
    for (const { title, gridPos } of dashboard.panels) {
      expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24)
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.get(`${x},${y}`), title).toBeUndefined()
          taken.set(`${x},${y}`, title)
        }
      }
    }
  })
})

describe('docs/metrics.md', () => {
  it('lists every metric with its type, and no other', () => {
    const rows = [...read('metrics.md').matchAll(/^\| `(ringloop_\w+)` \| (\w+) \|/gm)]
    expect(rows.map(([, name, type]) => `${name} ${type}`)).toEqual(
      [...served.families.values()].map(({ name, type }) => `${name} ${type}`),
    )
  })
})
