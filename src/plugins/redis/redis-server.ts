/** What a Redis must be to carry topics, and what to change where it is not. The server's thread only. */
import type { RedisClient } from './redis-client.js'
import type { RedisSettings } from './redis-options.js'

const MIN_VERSION = 7
const NOBODY = /^(ECONN|ENOTFOUND|EAI_|EHOST|ENET|ENOENT|EACCES|ETIMEDOUT)/

/** It is connected: rejects when it is too old, not the one that takes writes, or does not let its user do what is needed. */
export async function checkServer(client: RedisClient, { prefix, history }: RedisSettings): Promise<void> {
  const [hello] = await Promise.all([
    client.sendCommand(['HELLO']),
    // The name of no topic.
    client.subscribe(prefix, () => {}, true),
    client.sendCommand(['PUBLISH', prefix, '']),
    client.unsubscribe(prefix),
  ])
  const { version, mode, role } = hello as unknown as Record<string, string>
  if (Number.parseInt(version!, 10) < MIN_VERSION) throw new Error(tooOld(version!))
  if (role === 'replica') {
    throw new Error(
      'it is a replica, and what is published there does not reach the others: connect to the master',
    )
  }
  if (mode === 'cluster' && history !== undefined) {
    throw new Error(
      'it is a cluster, which cannot keep a history: leave out the option history, or use one server',
    )
  }
}

/** One sentence on why it cannot be used and what to change. It never has the password in it. */
export function failureSentence(error: Error & { code?: string }, address: string): string {
  const { message, code = '' } =
    error instanceof AggregateError ? (error.errors[0] as Error & { code?: string }) : error
  if (NOBODY.test(code))
    return `nothing answers as Redis at ${address} (${message}): start it there, or change url`
  return `Redis at ${address} cannot be used: ${adviceFor(message)}`
}

function adviceFor(message: string): string {
  if (/^(WRONGPASS|NOAUTH|ERR AUTH)/.test(message))
    return `change the user and the password, in url (${message})`
  if (message.startsWith('NOPERM')) return `its user needs more rights, see docs/topics.md (${message})`
  if (/unknown command.*HELLO/i.test(message)) return tooOld('older than 6.0')
  return `${message}; see whether it is Redis that listens there`
}

function tooOld(version: string): string {
  return `it is ${version}, and 7.0 or later is needed: upgrade it`
}
