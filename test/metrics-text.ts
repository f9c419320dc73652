/**
 * A strict reader of Prometheus' text format 0.0.4, for tests: throws a sentence for whatever its rules do not allow,
 * and for what its naming conventions ask of counters.
 */
export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface Family {
  readonly name: string
  readonly help: string
  readonly type: string
  readonly samples: Sample[]
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/
const LABEL_NAME = /^[a-zA-Z_][a-zA-Z0-9_]*$/
const TYPES = ['counter', 'gauge', 'histogram', 'summary', 'untyped']
const VALUE = /^([+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]Inf|NaN)$/

/** The families by name. */
export class MetricsText {
  readonly families: Map<string, Family>

  constructor(text: string) {
    if (!text.endsWith('\n')) throw new Error('the last line does not end')
    if (/\r/.test(text)) throw new Error('lines end with \\n alone')
    this.families = readFamilies(text.slice(0, -1).split('\n'))
    for (const family of this.families.values()) checkFamily(family)
  }

  /** The sum of the samples that have these labels. */
  sum(name: string, labels: Readonly<Record<string, string>> = {}): number {
    const found = this.samples(name).filter((sample) =>
      Object.entries(labels).every(([label, value]) => sample.labels[label] === value),
    )
    if (found.length === 0) throw new Error(`no sample ${name} ${JSON.stringify(labels)}`)
    return found.reduce((all, { value }) => all + value, 0)
  }

  samples(name: string): Sample[] {
    const family = this.families.get(name) ?? this.families.get(name.replace(/_(bucket|sum|count)$/, ''))
    return (family?.samples ?? []).filter((sample) => sample.name === name)
  }
}

function readFamilies(lines: readonly string[]): Map<string, Family> {
  const families = new Map<string, { name: string; help: string; type: string; samples: Sample[] }>()
  let current: { name: string; help: string; type: string; samples: Sample[] } | undefined
  for (const line of lines) {
    if (line === '') continue
    const comment = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line)
    if (comment !== null) {
      const [, kind, name, rest] = comment as unknown as [string, string, string, string]
      if (!NAME.test(name)) throw new Error(`not a name: ${name}`)
      if (kind === 'HELP') {
        if (families.has(name)) throw new Error(`${name} is described twice`)
        if (!/^(?:[^\\]|\\[\\n])*$/.test(rest)) throw new Error(`bad escape in the help of ${name}`)
        current = { name, help: rest, type: '', samples: [] }
        families.set(name, current)
      } else {
        if (current?.name !== name || current.type !== '')
          throw new Error(`TYPE of ${name} is not after its HELP`)
        if (!TYPES.includes(rest)) throw new Error(`${name} has the type ${rest}`)
        current.type = rest
      }
    } else if (line.startsWith('#')) {
      throw new Error(`a comment that says nothing: ${line}`)
    } else {
      const sample = readSample(line)
      if (current === undefined || familyOf(sample.name, current.type) !== current.name) {
        throw new Error(`${sample.name} is not with its family`)
      }
      if (current.type === '') throw new Error(`${current.name} has no TYPE`)
      current.samples.push(sample)
    }
  }
  return families
}

function familyOf(name: string, type: string): string {
  return type === 'histogram' ? name.replace(/_(bucket|sum|count)$/, '') : name
}

function readSample(line: string): Sample {
  const match = /^([^{ ]+)(?:\{(.*)\})? (\S+)$/.exec(line)
  if (match === null) throw new Error(`not a sample: ${line}`)
  const [, name, labels, value] = match as unknown as [string, string, string | undefined, string]
  if (!NAME.test(name)) throw new Error(`not a name: ${name}`)
  if (!VALUE.test(value)) throw new Error(`not a number: ${line}`)
  return { name, labels: readLabels(labels ?? ''), value: numberOf(value) }
}

function numberOf(text: string): number {
  return Number(text.replace('Inf', 'Infinity'))
}

function readLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {}
  let rest = text
  while (rest !== '') {
    const match = /^([^=]+)="((?:[^"\\\n]|\\[\\"n])*)"(?:,(?=.)|$)/.exec(rest)
    if (match === null) throw new Error(`bad labels: ${text}`)
    const [whole, name, value] = match as unknown as [string, string, string]
    if (!LABEL_NAME.test(name)) throw new Error(`not a label: ${name}`)
    if (Object.hasOwn(labels, name)) throw new Error(`the label ${name} twice: ${text}`)
    labels[name] = value.replace(/\\(.)/g, (_, escaped) => (escaped === 'n' ? '\n' : escaped))
    rest = rest.slice(whole.length)
  }
  return labels
}

function checkFamily({ name, type, samples }: Family): void {
  if (type === '') throw new Error(`${name} has no TYPE`)
  const seen = new Set<string>()
  for (const sample of samples) {
    const key = sample.name + seriesKey(sample.labels)
    if (seen.has(key)) throw new Error(`${key} twice`)
    seen.add(key)
  }
  if (type === 'counter') checkCounter(name, samples)
  else if (name.endsWith('_total')) throw new Error(`${name} is called a total but is a ${type}`)
  if (type === 'histogram') checkHistogram(name, samples)
}

function seriesKey(labels: Readonly<Record<string, string>>): string {
  return JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)))
}

function checkCounter(name: string, samples: readonly Sample[]): void {
  if (!name.endsWith('_total')) throw new Error(`the counter ${name} does not end in _total`)
  for (const { value } of samples) {
    if (!(value >= 0)) throw new Error(`the counter ${name} is ${value}`)
  }
}

interface Series {
  readonly buckets: { le: number; count: number }[]
  sum: number | undefined
  count: number | undefined
}

function checkHistogram(name: string, samples: readonly Sample[]): void {
  const all = new Map<string, Series>()
  for (const sample of samples) {
    const { le, ...labels } = sample.labels
    const key = seriesKey(labels)
    const series = all.get(key) ?? { buckets: [], sum: undefined, count: undefined }
    all.set(key, series)
    if (sample.name === `${name}_bucket`) {
      if (le === undefined || !VALUE.test(le)) throw new Error(`a bucket of ${name} has the bound ${le}`)
      series.buckets.push({ le: numberOf(le), count: sample.value })
    } else if (le !== undefined) throw new Error(`le at ${sample.name}`)
    else if (sample.name === `${name}_sum`) series.sum = sample.value
    else if (sample.name === `${name}_count`) series.count = sample.value
    else throw new Error(`${sample.name} in the histogram ${name}`)
  }
  for (const series of all.values()) checkSeries(name, series)
}

function checkSeries(name: string, { buckets, sum, count }: Series): void {
  if (sum === undefined || count === undefined) throw new Error(`${name} has no sum or no count`)
  for (let i = 1; i < buckets.length; i++) {
    if (buckets[i]!.le <= buckets[i - 1]!.le) throw new Error(`the bounds of ${name} do not ascend`)
    if (buckets[i]!.count < buckets[i - 1]!.count) throw new Error(`the buckets of ${name} do not add up`)
  }
  const last = buckets.at(-1)
  if (last?.le !== Number.POSITIVE_INFINITY) throw new Error(`${name} has no bucket +Inf at its end`)
  if (last.count !== count) throw new Error(`${name}: the bucket +Inf has ${last.count} of ${count}`)
}
