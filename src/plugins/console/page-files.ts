/** The files of the page, as they are in the folder `page` of this package's source: there is no build step for them. */
import { readFile } from 'node:fs/promises'
import type { HttpAnswer } from 'ringloop/websocket'

/** From dist/src/plugins/console. */
const FOLDER = new URL('../../../../src/plugins/console/page/', import.meta.url)

const TYPES = {
  'index.html': 'text/html; charset=utf-8',
  'console.css': 'text/css; charset=utf-8',
  'console.js': 'text/javascript; charset=utf-8',
} as const

/** Nothing from elsewhere, nothing inline, in nobody's frame. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/** The answers by path. Rejects when a file cannot be read. */
export async function readPage(): Promise<Map<string, HttpAnswer>> {
  const answers = new Map<string, HttpAnswer>()
  for (const [name, type] of Object.entries(TYPES)) {
    const headers = {
      'Content-Type': type,
      'Content-Security-Policy': POLICY,
      'X-Content-Type-Options': 'nosniff',
      'Cache-Control': 'no-store',
    }
    const answer = { headers, body: await readFile(new URL(name, FOLDER)) }
    answers.set(name === 'index.html' ? '/' : `/${name}`, answer)
  }
  return answers
}
