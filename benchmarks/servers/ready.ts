/**
 * What every server here does once it listens: says where, ends on SIGTERM and with whoever started it, and
 * collects its garbage on SIGUSR2 so that its memory can be read from outside.
 */
import { fstatSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const COLLECTIONS = 12
const PAUSE_MS = 1000

/**
 * Several collections with pauses: the first ones free objects whose finalizers free more. V8 gives the spare pages of
 * its heap back only after some ten seconds in which little is allocated; before that a burst of connections is charged
 * for them.
 */
async function settle(): Promise<void> {
  for (let i = 0; i < COLLECTIONS; i++) {
    globalThis.gc?.()
    await sleep(PAUSE_MS)
  }
  console.log('settled')
}

/**
 * Only when standard input is a pipe: started by hand in the background it may be closed from the beginning.
 */
function endWithParent(): void {
  const input = fstatSync(0)
  if (!input.isFIFO() && !input.isSocket()) return
  process.stdin.on('end', () => process.exit(0))
  process.stdin.resume()
}

export function ready(host: string, port: number): void {
  process.on('SIGTERM', () => process.exit(0))
  process.on('SIGUSR2', () => void settle())
  endWithParent()
  console.log(`listening on ${host}:${port}`)
}
