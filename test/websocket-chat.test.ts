/** The chat example in a real browser. Skipped, and said so, where there is none. */
import { once } from 'node:events'
import { accessSync } from 'node:fs'
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { endExamples, startExample } from './example-process.js'
import { ENGINES, type ExampleEngine } from './support/example-engines.js'
import { until, within } from './support/wait.js'

const BROWSER = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((file) => {
  try {
    accessSync(file)
    return true
  } catch {
    return false
  }
})

if (BROWSER === undefined) {
  console.error(
    'websocket-chat: skipped, there is no Chromium in /usr/bin (on Debian: apt-get install chromium)',
  )
}

const engines: ExampleEngine[] = []
let browser: Browser | undefined

afterEach(async () => {
  await Promise.all((browser?.contexts() ?? []).map((context) => context.close()))
  await endExamples()
  await Promise.all(engines.splice(0).map(({ engine }) => engine.close()))
})

async function join(url: string, name: string): Promise<Page> {
  const page = await (await browser!.newContext()).newPage()
  await page.goto(url)
  await page.fill('#name', name)
  await page.click('#join button')
  await page.waitForSelector('#state.open')
  return page
}

/** It is told that it is in this room. */
async function inRoom(page: Page, room: string): Promise<void> {
  await page.locator('#rooms [aria-pressed=true]').getByText(room, { exact: true }).waitFor()
}

/** Its list has so many names. */
async function sees(page: Page, count: number): Promise<void> {
  await expect.poll(() => page.locator('#people li').count(), { timeout: 20_000 }).toBe(count)
}

async function say(page: Page, text: string): Promise<void> {
  await page.fill('#text', text)
  await page.press('#text', 'Enter')
}

const LONG = encodeURIComponent('👋'.repeat(90))

it.each([
  ['none', '', 'lobby'],
  ['control characters', 'name=%00&room=%00%0a%20', 'lobby'],
  ['long ones', `name=${LONG}&room=${LONG}`, '👋'.repeat(24)],
  ['no UTF-8', 'room=%ED%A0%80', '\ufffd'.repeat(3)],
  ['a path', 'room=%252e%2F..%2F', '%2e/../'],
])('a visitor may ask for any name and room: %s', async (_what, query, room) => {
  const chat = await startExample('websocket-chat')
  const socket = new WebSocket(`ws://127.0.0.1:${chat.port}/chat?${query}`)
  const [told] = await within('the room', once(socket, 'message'))
  expect(JSON.parse(String(told))).toEqual({ type: 'room', room })
  socket.send(`/join ${room}!`)
  socket.terminate()
  expect(await chat.stop()).toMatchObject({ code: 0, stderr: '' })
})

describe.skipIf(BROWSER === undefined)('websocket-chat in Chromium', () => {
  beforeAll(async () => {
    browser = await chromium.launch({ executablePath: BROWSER!, args: ['--no-sandbox', '--disable-gpu'] })
  })
  afterAll(() => browser?.close())

  it.each(['1', '2'])('two tabs see each other’s messages with %s loop(s)', async (loops) => {
    const chat = await startExample('websocket-chat', '--loops', loops)
    const url = `http://127.0.0.1:${chat.port}/`
    const ada = await join(url, 'Ada')
    const grace = await join(url, 'Grace')
    for (const page of [ada, grace]) await sees(page, 2)
    await say(ada, 'hello, <b>Grace</b> 👋')
    await say(grace, 'hello, Ada')
    for (const page of [ada, grace]) {
      await page.getByText('hello, <b>Grace</b> 👋').waitFor()
      await page.getByText('hello, Ada').waitFor()
      await page.getByText(/most: [1-9]/).waitFor()
    }
    await grace.close()
    await ada.getByText('Grace has left').waitFor()
    await sees(ada, 1)
    expect((await chat.stop()).code).toBe(0)
  })

  it.each(['1', '2'])(
    'who is in a room sees what is said there, and nothing else: %s loop(s)',
    async (loops) => {
      const chat = await startExample('websocket-chat', '--loops', loops)
      const url = `http://127.0.0.1:${chat.port}/`
      const [ada, grace] = [await join(url, 'Ada'), await join(url, 'Grace')]
      for (const page of [ada, grace]) await inRoom(page, 'lobby')
      await sees(grace, 2)
      await ada.getByRole('button', { name: 'coffee' }).click()
      await inRoom(ada, 'coffee')
      await grace.getByText('Ada has left').waitFor()
      for (const page of [ada, grace]) await sees(page, 1)
      await say(grace, 'only for the lobby')
      await grace.getByText('only for the lobby').waitFor()

      await grace.fill('#room', ' a <i>new</i> room ')
      await grace.press('#room', 'Enter')
      await inRoom(grace, 'a <i>new</i> room')
      expect(await grace.getByText('only for the lobby').count()).toBe(0)
      const linda = await join(grace.url(), 'Linda')
      await inRoom(linda, 'a <i>new</i> room')
      await say(linda, 'found it')
      await grace.getByText('found it').waitFor()

      await say(grace, '/join coffee')
      await inRoom(grace, 'coffee')
      await ada.getByText('Grace has come').waitFor()
      await say(grace, 'coffee?')
      await ada.getByText('coffee?').waitFor()
      expect(await ada.getByText(/only for the lobby|found it/).count()).toBe(0)
      expect(await chat.stop()).toMatchObject({ code: 0, stderr: '' })
    },
  )

  it.each(ENGINES)('two of it side by side over $name are one, and say what was lost', async (kind) => {
    const started = await kind.start()
    engines.push(started)
    const start = async (loops: string): Promise<string> => {
      const { port } = await startExample('websocket-chat', '--loops', loops, ...started.flags)
      return `http://127.0.0.1:${port}/`
    }
    const [ada, grace] = [await join(await start('1'), 'Ada'), await join(await start('2'), 'Grace')]
    for (const page of [ada, grace]) await sees(page, 2)
    await say(ada, 'hello over there')
    await grace.getByText('hello over there').waitFor()
    await grace.locator('#log b', { hasText: 'Ada' }).waitFor()

    await started.engine.kill()
    await until('she is told that it is lost', async () => {
      await say(ada, 'is anybody there?')
      return (await ada.getByText('not everybody has got that').count()) > 0
    })
    await started.engine.restart()
    for (const page of [ada, grace]) {
      await page.locator('#log .gap', { hasText: 'the connection to the other servers was gone' }).waitFor()
    }
    await until('they hear each other again', async () => {
      await say(grace, 'here again')
      return (await ada.getByText('here again').count()) > 0
    })
    for (const page of [ada, grace]) await sees(page, 2)
  })

  it('shows how many messages are missing, and that the own connection was gone', async () => {
    const chat = await startExample('websocket-chat')
    const page = await join(`http://127.0.0.1:${chat.port}/`, 'Ada')
    await inRoom(page, 'lobby')
    for (const missed of [1, 2]) {
      await page.evaluate(`take({ type: 'gap', missed: ${missed}, reason: 'unpublished' })`)
    }
    expect(await page.locator('#log .gap').allInnerTexts()).toEqual([
      '1 message is missing: another server could not send it',
      '2 messages are missing: another server could not send them',
    ])
    await page.evaluate('socket.close()')
    await page
      .locator('#log .gap', { hasText: 'perhaps something is missing: you were not connected' })
      .waitFor()
  })

  it('fits a phone, with rooms of any name', async () => {
    const chat = await startExample('websocket-chat')
    const page = await join(`http://127.0.0.1:${chat.port}/?room=${'W'.repeat(24)}`, 'W'.repeat(24))
    await page.setViewportSize({ width: 360, height: 640 })
    await inRoom(page, 'W'.repeat(24))
    await say(page, 'W'.repeat(500))
    await page.locator('#log .mine').waitFor()
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(360)
  })

  it('a page of another site is not let in', async () => {
    const chat = await startExample('websocket-chat')
    const page = await (await browser!.newContext()).newPage()
    await page.goto(`http://localhost:${chat.port}/nothing`).catch(() => {})
    const outcome = await page.evaluate(
      `new Promise((resolve) => {
        const ws = new WebSocket('ws://127.0.0.1:${chat.port}/chat')
        ws.onopen = () => resolve('open')
        ws.onerror = () => resolve('refused')
      })`,
    )
    expect(outcome).toBe('refused')
  })
})
