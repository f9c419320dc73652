// IIP server: gives the files of one folder, block by block, from any position.   npm run example -- iip-file-server
import { constants } from 'node:fs'
import { Server } from 'ringloop'
import { IipProtocol, IipRouter } from 'ringloop/iip'
import { exampleFlags, serve } from './flags.js'
import { Folder, fields, position } from './iip/folder.js'

/** Bytes of a block unless more are asked for, and the most that can be. */
const BLOCK = 10_236
const MAX_BLOCK = 1024 * 1024
const MORE = Buffer.from([0, 0, 0, 0])
const END = Buffer.from([0, 0, 0, 1])

const { oneLoop, root } = exampleFlags({ port: 9091, root: '.' })
const folder = await Folder.at(root)

const router = new IipRouter()
  .handle('/download_file', async ({ data }) => {
    const { FilePath, DownloadStartPos, MaxBytes = BLOCK } = fields(data)
    const start = position(DownloadStartPos, 'DownloadStartPos')
    const size = Math.min(MAX_BLOCK, Math.max(1, position(MaxBytes, 'MaxBytes')))
    return folder.place(FilePath, (place) =>
      place.open('', constants.O_RDONLY, async (file) => {
        const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(size), 0, size, start)
        return bytesRead === 0 ? END : Buffer.concat([MORE, buffer.subarray(0, bytesRead)])
      }),
    )
  })
  .handle('/checksum_file', ({ data }) => folder.place(fields(data).FilePath, (place) => place.checksum('')))

await serve(new Server(router, { ...oneLoop(), protocol: new IipProtocol() }))
