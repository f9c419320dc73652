// The console's page: takes a frame each second from the WebSocket and draws it. No build step, no library. What a frame
// holds is in ../frame.ts.

const SVG = 'http://www.w3.org/2000/svg'
const RETRY_MS = 1000
const COLORS = 16
/** Frames that are further apart than so many intervals are not joined by a line. */
const GAP = 2.5
const MARGIN = { top: 8, right: 8, bottom: 20, left: 58 }
const NARROW = 280

let about = { address: '', started: Date.now(), interval: RETRY_MS, frames: 120 }
let frames = []
/** The time that the pointer is at, or null: then the last frame is shown. */
let cursor = null
let live = false

// ---- numbers as text: [number, unit] -------------------------------------------------------------------------------

/** Three digits that count, always: so that columns line up. */
function digits(value) {
  if (value === 0 || value >= 100) return value.toFixed(0)
  return value >= 10 ? value.toFixed(1) : value.toFixed(2)
}

const scaled =
  (steps) =>
  (value, like = value) => {
    if (value === null) return ['–', '']
    const [factor, unit] = steps.find(([at]) => like >= at) ?? steps.at(-1)
    return [digits(value / factor), unit]
  }

const count = (value) => [Math.round(value).toLocaleString('en'), '']
const rate = scaled([
  [1e9, 'G/s'],
  [1e6, 'M/s'],
  [1e3, 'k/s'],
  [1, '/s'],
])
const largeBytes = scaled([
  [1e9, 'GB'],
  [1e6, 'MB'],
  [1e3, 'kB'],
])
const bytes = (value) => (value < 1e3 ? [String(value), 'B'] : largeBytes(value))
const byteRate = scaled([
  [1e9, 'GB/s'],
  [1e6, 'MB/s'],
  [1e3, 'kB/s'],
  [1, 'B/s'],
])
const time = scaled([
  [1e3, 's'],
  [1, 'ms'],
  [1e-3, 'µs'],
])
const percent = (value) => [(value * 100).toFixed(1), '%']

const text = (format, value) => format(value).join('\u202f').trim()

/** On an axis all numbers have the unit of the largest, and no more decimals than they need. */
function tickText(format, value, max) {
  const [number, unit] = format(value, max)
  const short = number.replace(/\.?0+$/, (zeros) => (number.includes('.') ? '' : zeros))
  return value === 0 ? '0' : `${short}\u202f${unit}`
}

// ---- what is plotted -----------------------------------------------------------------------------------------------

const highest = (frame, of) => Math.max(...frame.loops.map(of))

/** Loops on top of each other: the upper edge is the sum. */
const stacked = (title, of, format) => ({
  title,
  stacked: true,
  format,
  series: (frame) => frame.loops.map(of),
  values: (frame) => [{ value: of(frame.total) }],
})

/** A line for each loop. */
const each = (title, of, format, max) => ({
  title,
  format,
  max,
  series: (frame) => frame.loops.map(of),
  values: (frame) =>
    frame.loops.length === 1
      ? [{ value: of(frame.total) }]
      : [
          { name: 'mean', value: of(frame.total) },
          { name: 'highest', value: highest(frame, of) },
        ],
})

/** Two lines for all loops together. */
const pair = (title, lines, format) => ({
  title,
  format,
  classes: ['strong', 'faint'],
  series: (frame) => lines.map(([, of]) => of(frame.total)),
  values: (frame) => lines.map(([name, of], i) => ({ name, key: i, value: of(frame.total) })),
})

const PANELS = [
  stacked('Connections', (at) => at.connections, count),
  stacked('Messages received', (at) => at.messagesIn, rate),
  pair(
    'Bytes',
    [
      ['in', (at) => at.bytesIn],
      ['out', (at) => at.bytesOut],
    ],
    byteRate,
  ),
  pair(
    'Handler time',
    [
      ['p99', (at) => at.p99],
      ['p50', (at) => at.p50],
    ],
    time,
  ),
  each('Loop utilisation', (at) => at.utilisation, percent, 1),
  each('Loop delay', (at) => at.delay, time),
]

const COLUMNS = [
  ['Connections', (at) => at.connections, count],
  ['Received', (at) => at.messagesIn, rate],
  ['Sent', (at) => at.messagesOut, rate],
  ['In', (at) => at.bytesIn, byteRate],
  ['Out', (at) => at.bytesOut, byteRate],
  ['Handler p50', (at) => at.p50, time],
  ['p99', (at) => at.p99, time],
  ['Utilisation', (at) => at.utilisation, percent],
  ['Delay', (at) => at.delay, time],
  ['Unsent', (at) => at.waiting, bytes],
]

const SINCE = [
  ['Accepted', (since) => since.accepted],
  ['Rejected at accept', (since) => since.rejected],
  ['Messages left out', (since) => since.slowConsumerDrops],
  ['Protocol errors', (since) => since.protocolErrors],
  ['Handler errors', (since) => since.handlerErrors, 'bad'],
  ['Threads replaced', (since) => since.restarts, 'bad'],
  ['Connections lost with them', (since) => since.lost, 'bad'],
]

const SINCE_OF_BROKER = [
  ['topics now', (broker) => broker.topics],
  ['published', (broker) => broker.published],
  ['rejected', (broker) => broker.rejected, 'bad'],
  ['received', (broker) => broker.received],
  ['gaps', (broker) => broker.gaps, 'bad'],
  ['messages missed', (broker) => broker.missed, 'bad'],
  ['not from ringloop', (broker) => broker.strangers],
]

// ---- elements ------------------------------------------------------------------------------------------------------

const byId = (id) => document.getElementById(id)

function element(name, className, ...children) {
  const made = document.createElement(name)
  if (className !== '') made.className = className
  made.append(...children)
  return made
}

function shape(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

const colorOf = (panel, i) => panel.classes?.[i] ?? `s${i % COLORS}`

function key(className, name) {
  return element('span', 'key', element('span', `swatch ${className}`), name)
}

class PanelView {
  constructor(panel) {
    this.panel = panel
    this.values = element('div', 'values')
    this.plot = shape('svg', { class: 'plot', role: 'img' })
    this.root = element('article', 'panel', element('h3', '', panel.title), this.values, this.plot)
    this.width = 0
    this.height = 0
    new ResizeObserver(([entry]) => {
      this.width = entry.contentRect.width
      this.height = entry.contentRect.height
      this.draw()
    }).observe(this.plot)
    this.plot.addEventListener('pointermove', (event) => moveCursor(this.timeAt(event.offsetX)))
    this.plot.addEventListener('pointerdown', (event) => moveCursor(this.timeAt(event.offsetX)))
    this.plot.addEventListener('pointerleave', () => moveCursor(null))
  }

  get right() {
    return this.width - MARGIN.right
  }

  get bottom() {
    return this.height - MARGIN.bottom
  }

  x(time) {
    const { from, span } = timeRange()
    return MARGIN.left + ((time - from) / span) * (this.right - MARGIN.left)
  }

  timeAt(x) {
    const { from, span } = timeRange()
    return from + ((x - MARGIN.left) / (this.right - MARGIN.left)) * span
  }

  y(value, max) {
    return this.bottom - (value / max) * (this.bottom - MARGIN.top)
  }

  draw() {
    if (this.width === 0) return
    const { panel } = this
    const rows = frames.map((frame) =>
      panel.stacked ? runningSums(panel.series(frame)) : panel.series(frame),
    )
    const top = Math.max(0, ...rows.flat().filter((value) => value !== null))
    const axis = axisFor(top, panel)
    this.plot.setAttribute('viewBox', `0 0 ${this.width} ${this.height}`)
    this.plot.replaceChildren(
      ...this.axes(axis),
      ...this.drawSeries(rows, axis.max),
      ...this.drawCursor(rows, axis.max),
    )
    this.drawValues()
  }

  axes({ ticks, max }) {
    const shapes = []
    for (const tick of ticks) {
      const y = this.y(tick, max)
      shapes.push(
        shape('line', { class: tick === 0 ? 'base' : 'grid', x1: MARGIN.left, x2: this.right, y1: y, y2: y }),
        shape(
          'text',
          { x: MARGIN.left - 8, y: y + 4, 'text-anchor': 'end' },
          tickText(this.panel.format, tick, max),
        ),
      )
    }
    const { from, span } = timeRange()
    const parts = this.right - MARGIN.left < NARROW ? 2 : 4
    for (let i = 0; i <= parts; i++) {
      const seconds = Math.round(((parts - i) / parts) * (span / 1000))
      const anchor = i === 0 ? 'start' : i === parts ? 'end' : 'middle'
      const at = { x: this.x(from + (span * i) / parts), y: this.height - 5, 'text-anchor': anchor }
      shapes.push(shape('text', at, seconds === 0 ? 'now' : `−${seconds} s`))
    }
    return shapes
  }

  drawSeries(rows, max) {
    const size = rows.at(-1)?.length ?? 0
    const shapes = []
    for (let i = 0; i < size; i++) {
      const className = colorOf(this.panel, i)
      const d = this.panel.stacked ? this.band(rows, i, max) : this.line(rows, i, max)
      shapes.push(shape('path', { class: `${this.panel.stacked ? 'band' : 'line'} ${className}`, d }))
    }
    return shapes.reverse()
  }

  point(at, value, max) {
    return `${this.x(frames[at].time).toFixed(1)} ${this.y(value, max).toFixed(1)}`
  }

  line(rows, i, max) {
    let d = ''
    for (const { from, to } of runs((at) => (rows[at][i] ?? null) !== null)) {
      for (let at = from; at <= to; at++) d += `${at === from ? 'M' : 'L'}${this.point(at, rows[at][i], max)}`
    }
    return d
  }

  band(rows, i, max) {
    let d = ''
    for (const { from, to } of runs(() => true)) {
      for (let at = from; at <= to; at++) d += `${at === from ? 'M' : 'L'}${this.point(at, rows[at][i], max)}`
      for (let at = to; at >= from; at--) d += `L${this.point(at, i === 0 ? 0 : rows[at][i - 1], max)}`
      d += 'Z'
    }
    return d
  }

  drawCursor(rows, max) {
    const at = cursorIndex()
    if (cursor === null || at < 0) return []
    const x = this.x(frames[at].time)
    const line = shape('line', { class: 'cursor', x1: x, x2: x, y1: MARGIN.top, y2: this.bottom })
    const points = rows[at].map((value, i) =>
      value === null
        ? ''
        : shape('circle', {
            class: `point ${colorOf(this.panel, i)}`,
            cx: x,
            cy: this.y(value, max),
            r: 3.5,
          }),
    )
    return [line, ...points]
  }

  drawValues() {
    const { panel } = this
    const frame = shownFrame()
    const values = frame === undefined ? [] : panel.values(frame)
    this.values.replaceChildren(
      ...values.map(({ name, key: i, value }) => {
        const [number, unit] = panel.format(value)
        const label = i === undefined ? element('span', 'key', name ?? '') : key(colorOf(panel, i), name)
        return element('span', 'value', ...(name ? [label] : []), number, element('span', 'unit', unit))
      }),
    )
    const said = values.map(({ name, value }) => `${name ?? ''} ${text(panel.format, value)}`.trim())
    this.plot.setAttribute('aria-label', `${panel.title}: ${said.join(', ')}`)
  }
}

// ---- time and scale ------------------------------------------------------------------------------------------------

function timeRange() {
  const span = about.frames * about.interval
  return { span, from: (frames.at(-1)?.time ?? Date.now()) - span }
}

/** The frame nearest to the pointer, or the last one. */
function cursorIndex() {
  if (cursor === null) return frames.length - 1
  let best = frames.length - 1
  for (let i = 0; i < frames.length; i++) {
    if (Math.abs(frames[i].time - cursor) < Math.abs(frames[best].time - cursor)) best = i
  }
  return best
}

const shownFrame = () => frames[cursorIndex()]

/** Frames that follow each other closely and have a value. */
function runs(has) {
  const found = []
  let from = -1
  for (let at = 0; at <= frames.length; at++) {
    const joined =
      at > 0 && at < frames.length && frames[at].time - frames[at - 1].time <= GAP * about.interval
    if (from >= 0 && !(joined && has(at))) {
      found.push({ from, to: at - 1 })
      from = -1
    }
    if (from < 0 && at < frames.length && has(at)) from = at
  }
  return found
}

function runningSums(values) {
  let sum = 0
  return values.map((value) => {
    sum += value
    return sum
  })
}

/** Ticks at round numbers from 0 to a little above `top`. */
function axisFor(top, panel) {
  if (panel.max !== undefined)
    return { max: panel.max, ticks: [0, 0.25, 0.5, 0.75, 1].map((part) => part * panel.max) }
  const wanted = top > 0 ? top * 1.05 : 1
  const power = 10 ** Math.floor(Math.log10(wanted / 3))
  let step = [1, 2, 5, 10].map((each) => each * power).find((each) => wanted / each <= 4)
  if (panel.format === count) step = Math.max(1, step)
  const ticks = []
  for (let i = 0; (i - 1) * step < wanted; i++) ticks.push(Number((i * step).toPrecision(6)))
  return { max: ticks.at(-1), ticks }
}

// ---- the page ------------------------------------------------------------------------------------------------------

const views = PANELS.map((panel) => new PanelView(panel))
byId('panels').append(...views.map(({ root }) => root))
byId('loops').tHead.append(
  element('tr', '', ...['Loop', ...COLUMNS.map(([name]) => name)].map((name) => element('th', '', name))),
)

function moveCursor(time) {
  cursor = time
  draw()
}

function draw() {
  for (const view of views) view.draw()
  drawTable()
  drawState()
}

function drawTable() {
  const frame = shownFrame()
  const table = byId('loops')
  if (frame === undefined) {
    table.tBodies[0].replaceChildren()
    return
  }
  const row = (head, at) => {
    const cells = COLUMNS.map(([, of, format]) => element('td', '', text(format, of(at))))
    return element('tr', '', element('th', '', head), ...cells)
  }
  table.tBodies[0].replaceChildren(...frame.loops.map((at, i) => row(key(`s${i % COLORS}`, String(i)), at)))
  table.tFoot.replaceChildren(...(frame.loops.length > 1 ? [row('all', frame.total)] : []))
}

function drawState() {
  const frame = shownFrame()
  const ago = frame === undefined ? 0 : Math.round((frames.at(-1).time - frame.time) / 1000)
  byId('state').dataset.state = live ? 'live' : 'lost'
  byId('state-text').textContent = !live ? 'no connection, trying again' : ago > 0 ? `${ago} s ago` : 'live'
  if (frame !== undefined) byId('uptime').textContent = `up ${duration(frame.time - about.started)}`
}

function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000))
  const parts = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'min'],
    [seconds % 60, 's'],
  ]
  const first = parts.findIndex(([value]) => value > 0)
  return parts
    .slice(first < 0 ? 3 : first)
    .slice(0, 2)
    .map(([value, unit]) => `${value} ${unit}`)
    .join(' ')
}

function drawSince(since) {
  const rows = SINCE.map(([name, of, kind]) => [name, of(since), kind])
  const { broker } = since
  if (broker !== undefined) {
    for (const [name, of, kind] of SINCE_OF_BROKER) rows.push([`${broker.name}: ${name}`, of(broker), kind])
  }
  for (const [reason, value] of Object.entries(since.closed)) rows.push([`Closed: ${reason}`, value])
  rows.push(...tlsRows(since))
  byId('since').replaceChildren(
    ...rows.map(([name, value, kind]) =>
      element(
        'div',
        kind === 'bad' && value > 0 ? 'bad' : '',
        element('dt', '', name),
        element('dd', '', value.toLocaleString('en')),
      ),
    ),
  )
}

/** Nothing where there is no broker, or nothing is known of it. Drawn when it changes: what is drawn is read out. */
function drawBroker(broker) {
  const state = byId('broker')
  const said = broker === undefined ? '' : `${broker.name} ${broker.connected ? 'connected' : 'away'}`
  if (state.textContent === said) return
  state.dataset.state = broker?.connected === false ? 'lost' : 'live'
  const dot = element('span', 'dot')
  dot.ariaHidden = 'true'
  state.replaceChildren(...(said === '' ? [] : [dot, said]))
}

/** Nothing where there is no TLS, and of what fails only what has failed. */
function tlsRows({ tlsHandshakes, tlsResumed, tlsFailures }) {
  const failed = Object.entries(tlsFailures).filter(([, value]) => value > 0)
  if (tlsHandshakes === 0 && failed.length === 0) return []
  const rows = failed.map(([reason, value]) => [`TLS failed: ${reason}`, value])
  return [['TLS handshakes', tlsHandshakes], ['TLS resumed', tlsResumed], ...rows]
}

function drawLegend() {
  const loops = frames.at(-1)?.loops.length ?? 0
  const legend = byId('legend')
  if (legend.childElementCount === (loops > 1 ? loops : 0)) return
  const items = Array.from({ length: loops > 1 ? loops : 0 }, (_, i) =>
    element('li', '', key(`s${i % COLORS}`, `loop ${i}`)),
  )
  legend.replaceChildren(...items)
}

// ---- the WebSocket -------------------------------------------------------------------------------------------------

const messages = {
  hello(message) {
    about = message.about
    frames = message.frames
    byId('address').textContent = about.address
    document.title = `${about.address} · ringloop console`
  },
  frame(message) {
    frames.push(message.frame)
    if (frames.length > about.frames + 1) frames.shift()
  },
}

function connect() {
  const url = new URL('.', location.href)
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:'
  const socket = new WebSocket(url)
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data)
    live = true
    messages[message.type](message)
    drawLegend()
    drawSince(message.since)
    drawBroker(message.since.broker)
    draw()
  }
  socket.onclose = () => {
    live = false
    drawBroker(undefined)
    draw()
    setTimeout(connect, RETRY_MS)
  }
}

connect()
