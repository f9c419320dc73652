/** Answers that stand for an error: they reject, unless the caller wants answers as they are. */
import { afterEach, describe, expect, it } from 'vitest'
import {
  IipBalancer,
  type IipClient,
  IipError,
  IipFailure,
  IipRemoteError,
  IipRouter,
} from '../src/plugins/iip/index.js'
import { FrameServer } from './iip-frame-server.js'
import { atEnd, endAll, iipClient, startIip } from './iip-support.js'

afterEach(endAll)

const typed = { raw: false } as const

function router(): IipRouter {
  return new IipRouter({ statistics: 'off' })
    .handle('/echo', ({ data }) => data)
    .handle('/ill', () => {
      throw new IipFailure('ill')
    })
}

async function client(): Promise<IipClient> {
  return iipClient((await startIip(router())).address.port, typed)
}

const ILL = { code: 'ERR_IIP_REMOTE', remoteCode: -1, message: 'handler fail:ill', sent: true }

describe('an answer that is an error', () => {
  it('rejects with its code and its message', async () => {
    const asking = await client()
    const error = await asking.request('/ill').catch((error) => error)
    expect(error).toBeInstanceOf(IipRemoteError)
    expect(error).toBeInstanceOf(IipError)
    expect(error).toMatchObject({ ...ILL, name: 'IipRemoteError' })
    await expect(asking.request('/nothing')).rejects.toMatchObject({
      remoteCode: 102,
      message: 'handle error',
    })
    await expect((await asking.channel()).request('/ill')).rejects.toMatchObject(ILL)
    expect(asking.pending).toBe(0)
  })

  it('ends a stream, however its bytes come', async () => {
    const asking = await client()
    await expect(asking.stream('/ill').bytes()).rejects.toMatchObject(ILL)
    const server = await FrameServer.start((asked, on) => {
      const answer = Buffer.concat([Buffer.from([5]), Buffer.from(`${asked.path}\0`), Buffer.alloc(8)])
      answer.writeUInt32BE(asked.channel, answer.length - 8)
      answer.writeUInt32BE(asked.data.length, answer.length - 4)
      on.socket.setNoDelay(true)
      let turn = Promise.resolve()
      for (const byte of Buffer.concat([answer, asked.data])) {
        turn = turn.then(() => new Promise((resolve) => on.socket.write(Buffer.of(byte), () => resolve())))
      }
    })
    const slow = iipClient(server.port, typed)
    const error = '{"code":7,"message":"no"}'
    await expect(slow.stream('/p', error).bytes()).rejects.toMatchObject({ remoteCode: 7, message: 'no' })
    for (const other of ['{"code":0,"message":"no"}', '{"code":', '{"code":7', 'x']) {
      expect(String(await slow.stream('/p', other).bytes())).toBe(other)
    }
    expect(String(await slow.stream('/p', error, { raw: true }).bytes())).toBe(error)
  })

  it('is one only if there is a code other than 0, a message, and nothing else', async () => {
    const asking = await client()
    const data = [
      '{"code":0,"message":"fine"}',
      '{"code":1.5,"message":"x"}',
      '{"code":"1","message":"x"}',
      '{"code":1,"message":1}',
      '{"code":1}',
      '{"code":1,"message":"x","more":1}',
      '{"code":1,"message":"x"}x',
      ' {"code":1,"message":"x"}',
      '{ "code":1,"message":"x"}',
      '{"message":"x","code":1}',
      '[{"code":1,"message":"x"}]',
      `{"code":1,"message":"${'x'.repeat(64 * 1024)}"}`,
    ]
    for (const each of data) expect(String(await asking.request('/echo', each))).toBe(each)
    const long = `{"code":-2147483648,"message":"${'ä'.repeat(30_000)}"}`
    await expect(asking.request('/echo', long)).rejects.toMatchObject({ remoteCode: -2147483648 })
  })

  it('is data like any other for who wants it raw', async () => {
    const { port } = (await startIip(router())).address
    const text = '{"code":-1,"message":"handler fail:ill"}'
    expect(String(await iipClient(port, typed).request('/ill', 'x', { raw: true }))).toBe(text)
    const raw = iipClient(port, { raw: true })
    expect(String(await raw.request('/ill'))).toBe(text)
    await expect(raw.request('/ill', 'x', { raw: false })).rejects.toMatchObject(ILL)
  })

  it('is no failure of its backend, and is not tried elsewhere, unless isHealthy says so', async () => {
    const servers = [await startIip(router()), await startIip(router())]
    const list = servers.map(({ address }) => `127.0.0.1:${address.port}#1`).join()
    const balancer = new IipBalancer({ servers: list, maxFailures: 1, logger: false })
    atEnd(() => balancer.close())
    for (let i = 0; i < 4; i++) {
      await expect(balancer.request('/ill', 'x', { safe: true })).rejects.toMatchObject(ILL)
    }
    expect(balancer.backends.map(({ failures }) => failures)).toEqual([0, 0])
    const strict = new IipBalancer({
      servers: list,
      maxFailures: 1,
      logger: false,
      isHealthy: (error) => !(error instanceof IipRemoteError),
    })
    atEnd(() => strict.close())
    await expect(strict.request('/ill', 'x')).rejects.toMatchObject(ILL)
    expect(strict.backends.map(({ paused }) => paused)).toContain(true)
  })
})
