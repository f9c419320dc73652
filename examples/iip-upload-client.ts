// IIP client: uploads a file; run again after a break, it goes on where it was.   npm run example -- iip-upload-client --file a.bin
import { constants } from 'node:fs'
import path from 'node:path'
import { IipClient } from 'ringloop/iip'
import { exampleFlags } from './flags.js'
import { checksum, openFile } from './iip/folder.js'
import { ifHandled } from './iip/if-handled.js'
import { orFail } from './iip/or-fail.js'

const WIDTH = 40

const flags = exampleFlags({ port: 9092, file: '', as: '', block: 256 * 1024 })
const name = flags.as || path.basename(flags.file)
const client = new IipClient({ address: { host: flags.host, port: flags.port } })
const channel = await orFail(client.channel())

async function ask(route: string, data: Buffer): Promise<{ readonly DoneBytes: number }> {
  return JSON.parse((await channel.request(route, data)).toString())
}

/** How much of the file the server has. */
async function doneBefore(): Promise<number> {
  const answer = await ifHandled(channel.request('/upload_status', JSON.stringify({ FilePath: name })))
  if (answer !== undefined) return JSON.parse(answer.toString()).Size
  console.log('the server knows no status and no checksums: from the beginning, and unverified')
  return 0
}

function upload(start: number, block: Buffer, end: object = { Completed: false }): ReturnType<typeof ask> {
  const meta = Buffer.from(JSON.stringify({ TaskId: 1, FilePath: name, UploadStartPos: start, ...end }))
  const length = Buffer.alloc(4)
  length.writeUInt32BE(meta.length)
  return ask('/upload_file', Buffer.concat([length, meta, block]))
}

function progress(done: number, size: number): void {
  const bar = '#'.repeat(size === 0 ? WIDTH : Math.floor((done / size) * WIDTH)).padEnd(WIDTH)
  process.stderr.write(`\r[${bar}] ${size === 0 ? 100 : Math.floor((done / size) * 100)} %`)
}

await orFail(
  openFile(flags.file, constants.O_RDONLY, async (file) => {
    const { size } = await file.stat()
    const done = await doneBefore()
    let at = done > size ? 0 : done
    if (at > 0) console.log(`going on at byte ${at}`)
    for (progress(at, size); at < size; progress(at, size)) {
      const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(flags.block), 0, flags.block, at)
      at += (await upload(at, buffer.subarray(0, bytesRead))).DoneBytes
    }
    await upload(size, Buffer.alloc(0), { Completed: true, Sha256: await checksum(flags.file) })
    process.stderr.write('\n')
    console.log(`${name}: ${size} bytes`)
  }),
)
await client.close()
