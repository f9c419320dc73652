// IIP server: takes files into one folder; each appears when it is whole and its checksum right.   npm run example -- iip-upload-server
import { constants } from 'node:fs'
import { Server } from 'ringloop'
import { IipFailure, IipProtocol, IipRouter } from 'ringloop/iip'
import { exampleFlags, serve } from './flags.js'
import { Folder, fields, type Place, position } from './iip/folder.js'

const MAX_BLOCK = 10 * 1024 * 1024
const MIB = 1024 * 1024

const { oneLoop, root, max } = exampleFlags({ port: 9092, root: 'uploads', max: 10_240 })
const folder = await Folder.at(root)

/** Four bytes that say how long the JSON behind them is, the JSON, and a block of the file. */
function split(data: Buffer): { meta: Record<string, unknown>; block: Buffer } {
  const length = data.length < 4 ? Number.POSITIVE_INFINITY : data.readUInt32BE(0)
  if (length > data.length - 4) throw new IipFailure('the request is shorter than its metadata')
  return { meta: fields(data.subarray(4, 4 + length)), block: data.subarray(4 + length) }
}

/** What has come of a file, behind its name. */
const PART = '.part'

async function complete(place: Place, wanted: unknown): Promise<void> {
  if (wanted !== undefined && (await place.checksum(PART)) !== wanted) {
    await place.remove(PART)
    throw new IipFailure('the checksum is wrong: upload it again')
  }
  await place.rename(PART, '')
}

async function take(place: Place, meta: Record<string, unknown>, block: Buffer): Promise<void> {
  const start = position(meta.UploadStartPos, 'UploadStartPos')
  if (start > (await place.size(PART))) throw new IipFailure('there is a gap before this block')
  if (start + block.length > max * MIB) throw new IipFailure(`a file may have ${max} MiB`)
  await place.open(PART, constants.O_WRONLY | constants.O_CREAT, async (file) => {
    if (start === 0) await file.truncate()
    await file.write(block, 0, block.length, start)
  })
  if (meta.Completed === true) await complete(place, meta.Sha256)
}

const router = new IipRouter()
  .handle('/upload_file', async ({ data }) => {
    const { meta, block } = split(data)
    await folder.place(meta.FilePath, (place) => take(place, meta, block))
    return JSON.stringify({ TaskId: meta.TaskId, DoneBytes: block.length })
  })
  .handle('/upload_status', async ({ data }) => {
    const size = await folder.place(fields(data).FilePath, (place) => place.size(PART))
    return JSON.stringify({ Size: size })
  })

const protocol = new IipProtocol({ maxRequestBytes: MAX_BLOCK + MIB })
await serve(new Server(router, { ...oneLoop(), protocol }))
