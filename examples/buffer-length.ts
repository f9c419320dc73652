// Pushes much, and waits for a reader that is slow.   npm run example -- buffer-length   then: nc 127.0.0.1 1833 | sleep 5
import { isMainThread } from 'node:worker_threads'
import { type Connection, type Handler, Server } from 'ringloop'
import { exampleFlags, serve } from './flags.js'

const BLOCK = Buffer.alloc(64 * 1024, '0123456789abcde\n')

/** Sends until the write buffer is above its mark; `onDrain` calls again once the peer has taken most of it. */
function push(c: Connection): void {
  let left = c.context as number
  let more = true
  while (more && left > 0) {
    more = c.send(BLOCK)
    left--
  }
  c.context = left
  if (left === 0) c.close()
  else console.error(`${c.peerAddr}: waits with ${c.writeBufferLength} bytes unsent and ${left} blocks to go`)
}

const pusher: Handler = {
  onConnect(c) {
    c.context = c.loop.data
    push(c)
  },
  onDrain: push,
  onMessage() {},
}

export default pusher

if (isMainThread) {
  const { blocks, options } = exampleFlags({ blocks: 512 })
  await serve(new Server(import.meta.url, { ...options, data: blocks, highWaterMark: 256 * 1024 }))
}
