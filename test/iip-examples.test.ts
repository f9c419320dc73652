/** Every IIP example is started as a user starts it, and spoken to; what was cut short is run again. */
import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Folder } from '../examples/iip/folder.js'
import { IipRouter } from '../src/plugins/iip/index.js'
import {
  type Ended,
  type ExampleProcess,
  endExamples,
  launchExample,
  runExample,
  startExample,
} from './example-process.js'
import { atEnd, endAll, FramePeer, iipClient, serveIip } from './iip-support.js'

const MIB = 1024 * 1024
const NO_FILE = /handler fail:there is no file/

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'iip-examples-'))
})
afterEach(async () => {
  await endAll()
  await endExamples()
  rmSync(folder, { recursive: true })
})

interface Vector {
  readonly name: string
  readonly direction: string
  readonly hex: string
  readonly totalBytes?: number
}

function exampleVectors(prefix: string): Vector[] {
  const file = new URL('data/iip-vectors.json', import.meta.url)
  const vectors = JSON.parse(readFileSync(file, 'utf8')) as Vector[]
  return vectors.filter(({ name }) => name.startsWith(prefix))
}

/** The answer, or what it says where it is an error. */
const said = (answer: Promise<Buffer>): Promise<string> => answer.then(String, (error) => error.message)

const inside = (...names: string[]): string => path.join(folder, ...names)
const request = (target: string, ...flags: string[]): Promise<Ended> =>
  runExample('iip-request', target, ...flags)

describe('iip-echo-server', () => {
  it.each([['1'], ['2']])('echoes and greets on %s loop(s), and ends with code 0', async (loops) => {
    const server = await startExample('iip-echo-server', '--loops', loops)
    const client = iipClient(server.port)
    const asked = ['/echo', '/echo_benchmark', '/hello?name=ada', '/hello'].map((each) =>
      client.request(each, 'x'),
    )
    expect((await Promise.all(asked)).map(String)).toEqual(['x', 'x', 'hello, ada', 'hello, stranger'])
    await client.close()
    expect((await server.stop()).code).toBe(0)
  })

  it('answers the bytes of a Go client', async () => {
    const peer = await FramePeer.connect((await startExample('iip-echo-server')).port, 1)
    await peer.send(1, '/echo', 1, 'hello')
    expect((await peer.frames(2))[1]).toMatchObject({ status: 5, path: '/echo', channel: 1 })
  })
})

it('iip-echo-client prints an answer for each line', async () => {
  const server = await startExample('iip-echo-server')
  const client = launchExample('iip-echo-client', ['--port', `${server.port}`], 'one\n\ntwo\n')
  expect(await client.ended).toMatchObject({ code: 0, stdout: 'one\n{}\ntwo\n', stderr: '' })
  const nobody = await server
    .stop()
    .then(() => launchExample('iip-echo-client', ['--port', '1'], 'x\n').ended)
  expect(nobody.code).toBe(1)
  expect(nobody.stderr).toMatch(/cannot connect to 127\.0\.0\.1:1:/)
})

describe('iip-request', () => {
  it('prints the answer and nothing else', async () => {
    const at = `127.0.0.1:${(await startExample('iip-echo-server')).port}`
    expect(await request(`${at}/echo?a=1`, '--data', 'hällo')).toEqual({
      code: 0,
      stdout: 'hällo',
      stderr: '',
    })
    expect((await request(`${at}/echo`)).stdout).toBe('{}')
    const nobody = { code: 0, stdout: '{"code":102,"message":"handle error"}', stderr: '' }
    expect(await request(`${at}/nobody`)).toEqual(nobody)
    writeFileSync(inside('data'), 'from a file')
    expect((await request(`${at}/echo`, '--data-file', inside('data'), '--timeout', '500ms')).stdout).toBe(
      'from a file',
    )
  })

  it('says in one sentence what went wrong', async () => {
    const silent = net.createServer().listen(0, '127.0.0.1')
    atEnd(() => silent.close())
    await new Promise((resolve) => silent.once('listening', resolve))
    const { port } = silent.address() as net.AddressInfo
    const late = await request(`127.0.0.1:${port}/p`, '--timeout', '200ms')
    expect(late).toMatchObject({ code: 1, stdout: '' })
    expect(late.stderr).toMatch(/within 200 ms|before it was of use/)
    for (const bad of [['no-port/p'], ['h:1/p', '--timeout', 'soon'], ['h:1/p', '--what'], []]) {
      expect(await runExample('iip-request', ...bad)).toMatchObject({ code: 2, stdout: '' })
    }
  })
})

describe('iip-file-server', () => {
  const download = (port: number, file: string, ...flags: string[]): ExampleProcess =>
    launchExample('iip-file-client', ['--port', `${port}`, '--file', file, '--out', inside('got'), ...flags])

  it('serves a file whole, also after the client was killed half-way', async () => {
    mkdirSync(inside('root', 'sub'), { recursive: true })
    const bytes = randomBytes(12 * MIB + 17)
    writeFileSync(inside('root', 'sub', 'a b.bin'), bytes)
    const server = await startExample('iip-file-server', '--root', inside('root'))
    const first = download(server.port, '/sub/a b.bin', '--block', '1000')
    while (!existsSync(inside('got.part')) || statSync(inside('got.part')).size < 100_000) {
      await new Promise((resolve) => setImmediate(resolve))
    }
    await first.kill()
    expect(existsSync(inside('got'))).toBe(false)
    const { code, stdout } = await download(server.port, 'sub/a b.bin').ended
    expect(stdout).toMatch(/^going on at byte \d{6,}\n.*: 12582929 bytes\n$/)
    expect(readFileSync(inside('got')).equals(bytes)).toBe(true)
    expect(code).toBe(0)
    expect((await server.stop()).code).toBe(0)
  })

  it('notices that what it had was part of something else', async () => {
    mkdirSync(inside('root'))
    writeFileSync(inside('root', 'f'), 'the new content')
    writeFileSync(inside('got.part'), 'an old')
    const server = await startExample('iip-file-server', '--root', inside('root'))
    expect((await download(server.port, 'f').ended).stderr).toMatch(/the checksum of f is wrong/)
    expect(await download(server.port, 'f').ended).toMatchObject({ code: 0 })
    expect(readFileSync(inside('got'), 'utf8')).toBe('the new content')
  })

  it('has no such file: its client leaves nothing behind, but what it had before', async () => {
    const server = await startExample('iip-file-server', '--root', inside('root'))
    const missing = { code: 1, stderr: expect.stringMatching(NO_FILE) }
    expect(await download(server.port, 'missing').ended).toMatchObject(missing)
    expect(existsSync(inside('got.part'))).toBe(false)
    writeFileSync(inside('got.part'), 'begun')
    expect(await download(server.port, 'missing').ended).toMatchObject(missing)
    expect(readFileSync(inside('got.part'), 'utf8')).toBe('begun')
  })

  it('is one of Go’s: its client goes without a checksum, says so, and keeps what it has', async () => {
    const bytes = randomBytes(30_000)
    // It gives blocks of its own size, and has no other path.
    const port = await serveIip(
      new IipRouter().handle('/download_file', ({ data }) => {
        const { DownloadStartPos: at } = JSON.parse(data.toString())
        const block = bytes.subarray(at, at + 10_236)
        return Buffer.concat([Buffer.of(0, 0, 0, block.length === 0 ? 1 : 0), block])
      }),
    )
    const { code, stdout } = await download(port, '/tmp/f').ended
    expect([code, stdout]).toEqual([
      0,
      expect.stringMatching(/^the server knows no checksums.*\n.*: 30000 bytes\n$/),
    ])
    expect(readFileSync(inside('got')).equals(bytes)).toBe(true)
    expect((await download(port, '/tmp/f').ended).code).toBe(0)
  })

  it('answers the bytes of the Go example', async () => {
    mkdirSync(inside('root', 'tmp'), { recursive: true })
    writeFileSync(inside('root', 'tmp', 'iip_dl.bin'), randomBytes(25_000))
    const server = await startExample('iip-file-server', '--root', inside('root'))
    const steps = exampleVectors('example_file/')
    const { peer } = await FramePeer.connect(server.port)
    let length = 0
    for (const { direction, hex, totalBytes } of steps) {
      const bytes = Buffer.from(hex, 'hex')
      if (direction === 'c2s') {
        await peer.write(bytes)
        continue
      }
      const answer = (await peer.received(length + (totalBytes ?? bytes.length))).subarray(length)
      length += answer.length
      // The content is other; the header and the flag before it are the same.
      const same = totalBytes === undefined ? bytes.length : 28
      expect(answer.subarray(0, same).equals(bytes.subarray(0, same))).toBe(true)
    }
  })

  it('gives nothing that is not a file in its folder', async () => {
    mkdirSync(inside('root', 'sub'), { recursive: true })
    mkdirSync(inside('root-too'))
    writeFileSync(inside('secret'), 'secret')
    writeFileSync(inside('root-too', 'secret'), 'secret')
    symlinkSync(inside('secret'), inside('root', 'link'))
    symlinkSync(folder, inside('root', 'out'))
    symlinkSync('/dev/zero', inside('root', 'zero'))
    const client = iipClient((await startExample('iip-file-server', '--root', inside('root'))).port)
    const names = [
      '../secret',
      '/../secret',
      'sub/../../secret',
      '../root-too/secret',
      '%2e%2e/secret',
      '..\\secret',
      'link',
      'out/secret',
      'zero',
      'sub',
      '.',
      '',
      'nothing',
      'link\0',
      inside('secret'),
      42,
      null,
    ]
    for (const FilePath of names) {
      const asked = JSON.stringify({ TaskId: 1, FilePath, DownloadStartPos: 0 })
      expect([FilePath, await said(client.request('/download_file', asked))]).toEqual([
        FilePath,
        expect.stringMatching(NO_FILE),
      ])
      expect(await said(client.request('/checksum_file', asked))).toMatch(NO_FILE)
    }
    for (const bad of ['[]x', '1', '{"FilePath":"f","DownloadStartPos":-1}', '{"DownloadStartPos":"x"}']) {
      expect(await said(client.request('/download_file', bad))).toMatch(/handler fail:/)
    }
  })

  it.skipIf(process.platform !== 'linux')(
    'stays in the directory that it has looked at, whatever is put in its place',
    async () => {
      mkdirSync(inside('root', 'sub'), { recursive: true })
      mkdirSync(inside('elsewhere'))
      writeFileSync(inside('root', 'sub', 'f'), 'inside')
      writeFileSync(inside('elsewhere', 'f'), 'secret')
      const root = await Folder.at(inside('root'))
      await root.place('sub/f', async (place) => {
        renameSync(inside('root', 'sub'), inside('root', 'kept'))
        symlinkSync(inside('elsewhere'), inside('root', 'sub'))
        const read = await place.open('', constants.O_RDONLY, (file) => file.readFile('utf8'))
        expect(read).toBe('inside')
        await place.open('.part', constants.O_WRONLY | constants.O_CREAT, (file) => file.writeFile('new'))
        await place.rename('.part', '')
      })
      expect(readFileSync(inside('root', 'kept', 'f'), 'utf8')).toBe('new')
      expect(readFileSync(inside('elsewhere', 'f'), 'utf8')).toBe('secret')
      await expect(root.place('sub/f', async () => 'opened')).rejects.toThrow(/there is no file/)
    },
  )
})

describe('iip-upload-server', () => {
  const upload = (port: number, ...flags: string[]): ExampleProcess =>
    launchExample('iip-upload-client', ['--port', `${port}`, '--file', inside('from'), ...flags])

  it('takes a file whole, also after the client was killed half-way, and verifies its checksum', async () => {
    const bytes = randomBytes(9 * MIB + 5)
    writeFileSync(inside('from'), bytes)
    const server = await startExample('iip-upload-server', '--root', inside('root'))
    const first = upload(server.port, '--as', 'to', '--block', '1000')
    await first.printed('stderr', /\] 1 %/)
    await first.kill()
    expect(existsSync(inside('root', 'to'))).toBe(false)
    const { code, stdout, stderr } = await upload(server.port, '--as', 'to').ended
    expect(stdout).toMatch(/^going on at byte \d+\nto: 9437189 bytes\n$/)
    expect(stderr).toMatch(/\[#{40}\] 100 %\n$/)
    expect(readFileSync(inside('root', 'to')).equals(bytes)).toBe(true)
    expect([code, existsSync(inside('root', 'to.part'))]).toEqual([0, false])
    expect((await server.stop()).code).toBe(0)
  })

  it('answers the bytes of the Go example', async () => {
    mkdirSync(inside('root', 'tmp'), { recursive: true })
    const { peer } = await FramePeer.connect(
      (await startExample('iip-upload-server', '--root', inside('root'))).port,
    )
    let answers = Buffer.alloc(0)
    for (const { direction, hex, totalBytes = 0 } of exampleVectors('example_upload/')) {
      const bytes = Buffer.from(hex, 'hex')
      if (direction === 'c2s') {
        await peer.write(Buffer.concat([bytes, Buffer.alloc(Math.max(0, totalBytes - bytes.length))]))
        continue
      }
      answers = Buffer.concat([answers, bytes])
      expect((await peer.received(answers.length)).toString()).toBe(answers.toString())
    }
    expect(statSync(inside('root', 'tmp', 'iip_ul2.bin')).size).toBe(3000)
  })

  it('is one of Go’s: its client begins anew each time, and says so', async () => {
    const bytes = randomBytes(600_000)
    writeFileSync(inside('from'), bytes)
    let got = Buffer.alloc(0)
    const port = await serveIip(
      new IipRouter().handle('/upload_file', ({ data }) => {
        const metaEnd = 4 + data.readUInt32BE(0)
        const { UploadStartPos } = JSON.parse(data.toString('utf8', 4, metaEnd))
        got = Buffer.concat([UploadStartPos === 0 ? Buffer.alloc(0) : got, data.subarray(metaEnd)])
        return JSON.stringify({ TaskId: 1, DoneBytes: data.length - metaEnd })
      }),
    )
    for (let i = 0; i < 2; i++) {
      const { code, stdout } = await upload(port).ended
      expect([code, stdout]).toEqual([
        0,
        expect.stringMatching(/^the server knows no status.*\nfrom: 600000 bytes\n$/),
      ])
      expect(got.equals(bytes)).toBe(true)
    }
  })

  it('throws away what does not have its checksum', async () => {
    writeFileSync(inside('from'), 'the new content')
    const server = await startExample('iip-upload-server', '--root', inside('root'))
    writeFileSync(inside('root', 'from.part'), 'an old')
    expect(await upload(server.port).ended).toMatchObject({ code: 1 })
    expect(existsSync(inside('root', 'from'))).toBe(false)
    expect(await upload(server.port).ended).toMatchObject({ code: 0 })
    expect(readFileSync(inside('root', 'from'), 'utf8')).toBe('the new content')
  })

  it('takes an empty file', async () => {
    writeFileSync(inside('from'), '')
    const server = await startExample('iip-upload-server', '--root', inside('root'))
    expect(await upload(server.port).ended).toMatchObject({ code: 0 })
    expect(readFileSync(inside('root', 'from')).length).toBe(0)
  })

  it('writes nothing outside its folder, and refuses what makes no sense', async () => {
    mkdirSync(inside('root'))
    mkdirSync(inside('elsewhere'))
    symlinkSync(inside('elsewhere'), inside('root', 'out'))
    const server = await startExample('iip-upload-server', '--root', inside('root'), '--max', '1')
    const client = iipClient(server.port)
    const send = async (meta: object | string, block = 'x'): Promise<string> => {
      const json =
        typeof meta === 'string'
          ? meta
          : JSON.stringify({ TaskId: 1, Completed: true, UploadStartPos: 0, ...meta })
      const length = Buffer.alloc(4)
      length.writeUInt32BE(json.length)
      return said(client.request('/upload_file', Buffer.concat([length, Buffer.from(json + block)])))
    }
    for (const FilePath of ['../a', 'out/a', 'no/such/folder', '', '/', 'a\0', 7]) {
      const answer = await send({ FilePath })
      // Dots lead to the folder's own root at most.
      if (FilePath === '../a') expect(existsSync(inside('root', 'a'))).toBe(true)
      else expect([FilePath, answer]).toEqual([FilePath, expect.stringMatching(NO_FILE)])
    }
    expect(existsSync(inside('a')) || existsSync(inside('elsewhere', 'a'))).toBe(false)
    expect(await send({ FilePath: 'b', UploadStartPos: 5 })).toMatch(/there is a gap/)
    expect(await send({ FilePath: 'b' }, 'x'.repeat(MIB + 1))).toMatch(/a file may have 1 MiB/)
    expect(await send('{"bad')).toMatch(/must be a JSON object/)
    const short = Buffer.from([0xff, 0xff, 0xff, 0xff, 1])
    expect(await said(client.request('/upload_file', short))).toMatch(/shorter than its metadata/)
    const sum = createHash('sha256').update('x').digest('hex')
    expect(await send({ FilePath: 'c', Sha256: sum })).toBe('{"TaskId":1,"DoneBytes":1}')
  })

  it('a FIFO where its part should be hangs nothing, and no error tells where the folder is', async () => {
    const server = await startExample('iip-upload-server', '--root', inside('root'))
    execFileSync('mkfifo', [inside('root', 'x.part')])
    mkdirSync(inside('root', 'y.part'))
    mkdirSync(inside('root', 'z'))
    writeFileSync(inside('root', 'z', 'f'), '')
    const client = iipClient(server.port, { timeout: 5000 })
    for (const FilePath of ['x', 'y', 'z']) {
      const json = JSON.stringify({ TaskId: 1, FilePath, UploadStartPos: 0, Completed: true })
      const length = Buffer.alloc(4)
      length.writeUInt32BE(json.length)
      const answer = await said(
        client.request('/upload_file', Buffer.concat([length, Buffer.from(`${json}data`)])),
      )
      expect(answer).toMatch(FilePath === 'z' ? /handler fail/ : NO_FILE)
      expect(answer).not.toContain(folder)
    }
  })
})

it('iip-load-balance loses no request when one of its servers is killed', async () => {
  const { code, stdout } = await runExample('iip-load-balance', '--requests', '3000')
  expect(stdout).toMatch(/^3000 answered, 0 lost$/m)
  expect(code).toBe(0)
})

it('iip-http-adapter answers HTTP, and ends with code 0', async () => {
  const adapter = await startExample('iip-http-adapter')
  const at = `http://127.0.0.1:${adapter.port}`
  const echo = await fetch(`${at}/echo?a=1`, { method: 'POST', body: 'over HTTP' })
  expect([echo.status, await echo.text()]).toEqual([200, 'over HTTP'])
  const headers = (await (
    await fetch(`${at}/http_header_echo`, { headers: { 'x-a': '1' } })
  ).json()) as object
  expect(headers).toMatchObject({ 'X-A': ['1'] })
  expect((await fetch(`${at}/elsewhere`)).status).toBe(501)
  expect((await adapter.stop()).code).toBe(0)
})
