// IIP client: fetches a file; run again after a break, it goes on where it was.   npm run example -- iip-file-client --file a.bin
import { constants } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { IipClient } from 'ringloop/iip'
import { exampleFlags } from './flags.js'
import { checksum, openFile, sizeOf } from './iip/folder.js'
import { ifHandled } from './iip/if-handled.js'
import { fail, orFail } from './iip/or-fail.js'

const flags = exampleFlags({ port: 9091, file: '', out: '', block: 1024 * 1024 })
const target = flags.out || path.basename(flags.file)
const part = `${target}.part`
const client = new IipClient({ address: { host: flags.host, port: flags.port } })

let at = await sizeOf(part)
if (at > 0) console.log(`going on at byte ${at}`)
await orFail(
  openFile(part, constants.O_WRONLY | constants.O_CREAT, async (file) => {
    for (;;) {
      const asked = { TaskId: 1, FilePath: flags.file, DownloadStartPos: at, MaxBytes: flags.block }
      const answer = await client.request('/download_file', JSON.stringify(asked))
      const flag = answer.length < 4 ? -1 : answer.readUInt32BE(0)
      if (flag !== 0 && flag !== 1) throw new Error(answer.toString())
      await file.write(answer, 4, answer.length - 4, at)
      at += answer.length - 4
      if (flag === 1) return
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
