import { describe, expect, it } from 'vitest'
import { endpointText, hostPort, unixPathProblem } from '../src/loop/poller/endpoint.js'
import { parseAddress } from '../src/options.js'
import { errno, errnoOf, systemError } from '../src/system-error.js'

describe('an endpoint is written', () => {
  it.each([
    ['127.0.0.1', '127.0.0.1:80'],
    ['::1', '[::1]:80'],
    ['fe80::1%eth0', '[fe80::1%eth0]:80'],
    ['::ffff:10.1.2.3', '10.1.2.3:80'],
    ['::ffff:1', '[::ffff:1]:80'],
    ['example.org', 'example.org:80'],
    ['', ':80'],
  ])('%s as %s', (host, text) => {
    expect(hostPort(host, 80)).toBe(text)
    expect(endpointText({ host, port: 80 })).toBe(text)
  })

  it('as its path, where it has one', () => {
    expect(endpointText({ path: '/run/a:b.sock' })).toBe('/run/a:b.sock')
  })
})

describe('the path of a unix socket', () => {
  it('has as many bytes as the system has room for', () => {
    expect(unixPathProblem('x'.repeat(107), 'linux')).toBeUndefined()
    expect(unixPathProblem('x'.repeat(108), 'linux')).toMatch(/at most 107 bytes/)
    expect(unixPathProblem('é'.repeat(54), 'linux')).toMatch(/at most 107 bytes/)
    expect(unixPathProblem('x'.repeat(103), 'darwin')).toBeUndefined()
    expect(unixPathProblem('x'.repeat(104), 'darwin')).toMatch(/at most 103 bytes/)
    expect(unixPathProblem(`\\\\.\\pipe\\${'x'.repeat(200)}`, 'win32')).toBeUndefined()
  })

  it.each(['', 'a\0b', `/tmp/${'x'.repeat(200)}`, 5, null])('%j is refused as an option', (path) => {
    expect(() => parseAddress({ path } as { path: string })).toThrow(
      expect.objectContaining({
        code: 'ERR_RINGLOOP_OPTION',
        message: expect.stringContaining('address.path'),
      }),
    )
  })
})

describe('the numbers of system errors', () => {
  it('are those of this system', () => {
    for (const [code, number] of Object.entries(errno)) {
      expect(number).toBeLessThan(0)
      expect(systemError(number).code).toBe(code)
    }
    expect(errnoOf(systemError(errno.EPIPE))).toBe(errno.EPIPE)
    expect(errnoOf(new Error('without a number'))).toBe(errno.EIO)
  })
})
