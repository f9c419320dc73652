// IIP client: each line of standard input is sent to /echo, each answer is printed.   npm run example -- iip-echo-client
import { createInterface } from 'node:readline'
import { IipClient } from 'ringloop/iip'
import { exampleFlags } from './flags.js'
import { orFail } from './iip/or-fail.js'

const { host, port, path, timeout } = exampleFlags({ port: 9090, path: '/echo', timeout: 3000 })
const client = new IipClient({ address: { host, port }, timeout, raw: true })

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await orFail(client.request(path, line === '' ? undefined : line))
  console.log(answer.toString())
}
await client.close()
