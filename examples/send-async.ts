// Answers that take time: one from a promise, one from a timer.   npm run example -- send-async   then: nc 127.0.0.1 1833
import { setTimeout as sleep } from 'node:timers/promises'
import { isMainThread } from 'node:worker_threads'
import { type Handler, Server } from 'ringloop'
import { exampleFlags, serve } from './flags.js'

/** Stands for a database. */
async function lookUp(question: Buffer): Promise<string> {
  await sleep(50)
  return question.toString().toUpperCase()
}

const handler: Handler = {
  // While the promise is pending the connection's next packet waits, so answers keep the order of their questions.
  async onMessage(c, _ctx, data) {
    // A send needs no question. Should the connection be closed by then, it says so to its callback and does nothing.
    c.loop.runAfter(200, () => {
      c.send(`from a timer: ${data}`, (error) => {
        if (error !== undefined) console.error(`${c.peerAddr}: ${error.message}`)
      })
    })
    return `from a promise: ${await lookUp(data)}`
  },
}

export default handler

if (isMainThread) {
  await serve(new Server(import.meta.url, exampleFlags().options))
}
