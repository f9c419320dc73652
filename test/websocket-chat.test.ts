/** The chat example in a real browser. Skipped, and said so, where there is none. */
import { accessSync } from 'node:fs'
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { endExamples, startExample } from './example-process.js'

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

let browser: Browser

async function join(url: string, name: string): Promise<Page> {
  const page = await (await browser.newContext()).newPage()
  await page.goto(url)
  await page.fill('#name', name)
  await page.click('#join button')
  await page.waitForSelector('#state.open')
  return page
}

async function say(page: Page, text: string): Promise<void> {
  await page.fill('#text', text)
  await page.press('#text', 'Enter')
}

describe.skipIf(BROWSER === undefined)('websocket-chat in Chromium', () => {
  beforeAll(async () => {
    browser = await chromium.launch({ executablePath: BROWSER!, args: ['--no-sandbox', '--disable-gpu'] })
  })
  afterAll(() => browser.close())
  afterEach(endExamples)

  it.each(['1', '2'])('two tabs see each other’s messages with %s loop(s)', async (loops) => {
    const chat = await startExample('websocket-chat', '--loops', loops)
    const url = `http://127.0.0.1:${chat.port}/`
    const ada = await join(url, 'Ada')
    const grace = await join(url, 'Grace')
    for (const page of [ada, grace]) {
      await page.locator('#people li').nth(1).waitFor()
    }
    await say(ada, 'hello, <b>Grace</b> 👋')
    await say(grace, 'hello, Ada')
    for (const page of [ada, grace]) {
      await page.getByText('hello, <b>Grace</b> 👋').waitFor()
      await page.getByText('hello, Ada').waitFor()
      await page.getByText(/most: [1-9]/).waitFor()
    }
    await grace.close()
    await ada.getByText('Grace has left').waitFor()
    expect(await ada.locator('#people li').allInnerTexts()).toHaveLength(1)
    expect((await chat.stop()).code).toBe(0)
  })

  it('a page of another site is not let in', async () => {
    const chat = await startExample('websocket-chat')
    const page = await (await browser.newContext()).newPage()
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
