// IIP client: fetches a file; run again after a break, it goes on where it was.   npm run example -- iip-file-client --file a.bin
import { constants } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { IipClient } from 'ringloop/iip'
import { exampleFlags } from './flags.js'
import { checksum, openFile, sizeOf } from './iip/folder.js'
import { ifHandled } from './iip/if-handled.js'
import { fail, orFail } from './iip/or-fail.js'

/** What stands before a block: whether there is more behind it. */
const [FLAG_BYTES, MORE, LAST] = [4, 0, 1]

const flags = exampleFlags({ port: 9091, file: '', out: '', block: 1024 * 1024 })
const target = flags.out || path.basename(flags.file)
const part = `${target}.part`
const client = new IipClient({ address: { host: flags.host, port: flags.port } })

let at = await sizeOf(part)
if (at > 0) console.log(`going on at byte ${at}`)
// Asked for before there is a file: where the server has none, none is left here.
let block = await orFail(blockAt(at))
await orFail(
  openFile(part, constants.O_WRONLY | constants.O_CREAT, async (file) => {
    for (;;) {
      await file.write(block, FLAG_BYTES, block.length - FLAG_BYTES, at)
      at += block.length - FLAG_BYTES
      if (block.readUInt32BE(0) === LAST) return
      block = await blockAt(at)
    }
  }),
)
const asked = JSON.stringify({ FilePath: flags.file })
const wanted = await orFail(ifHandled(client.request('/checksum_file', asked)))
if (wanted === undefined) console.log('the server knows no checksums: the file is as it came')
else if ((await checksum(part)) !== wanted.toString()) {
  await rm(part)
  fail(`the checksum of ${flags.file} is wrong: it has changed meanwhile; run this again`)
}
await rename(part, target)
console.log(`${target}: ${at} bytes`)
await client.close()

/** A flag, and the bytes of the file from there. */
async function blockAt(from: number): Promise<Buffer> {
  const asked = { TaskId: 1, FilePath: flags.file, DownloadStartPos: from, MaxBytes: flags.block }
  const answer = await client.request('/download_file', JSON.stringify(asked))
  const flag = answer.length < FLAG_BYTES ? -1 : answer.readUInt32BE(0)
  if (flag !== MORE && flag !== LAST) throw new Error(answer.toString())
  return answer
}
