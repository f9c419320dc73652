/** Options that nobody reads are refused wherever the core takes options. */
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { checkOptions } from '../src/check-options.js'
import {
  DelimiterProtocol,
  EventLoop,
  FixedLengthProtocol,
  type Handler,
  LengthFieldProtocol,
  LineProtocol,
  RawProtocol,
  RingBufferPool,
  Server,
  TimingWheel,
} from '../src/index.js'

const handler: Handler = { onMessage() {} }
const loops: EventLoop[] = []
const servers: Server[] = []

afterEach(async () => {
  await Promise.all(loops.splice(0).map((loop) => loop.stop()))
  await Promise.all(servers.splice(0).map((server) => server.stop()))
})

/** As a program without types would write it. */
const loose = (options: unknown): never => options as never

function newLoop(): EventLoop {
  const loop = new EventLoop({ poller: 'net', logger: false })
  loops.push(loop)
  return loop
}

function refusal(message: RegExp | string): object {
  return expect.objectContaining({
    code: 'ERR_RINGLOOP_OPTION',
    message: typeof message === 'string' ? message : expect.stringMatching(message),
  })
}

function thrown(fn: () => unknown): unknown {
  try {
    fn()
  } catch (error) {
    return error
  }
  throw new Error('nothing was thrown')
}

describe('an unknown option', () => {
  it('of a server is refused with the name that was meant', () => {
    const meant: [object, string][] = [
      [{ idletime: 5 }, "unknown option 'idletime': did you mean 'idleTime'?"],
      [{ adress: ':0' }, "unknown option 'adress': did you mean 'address'?"],
      [{ proctocol: 1 }, "unknown option 'proctocol': did you mean 'protocol'?"],
      [{ hightWaterMark: 1 }, "unknown option 'hightWaterMark': did you mean 'highWaterMark'?"],
      [{ idleTimeout: 5 }, "unknown option 'idleTimeout': did you mean 'idleTime'?"],
      [{ maxConnexions: 5 }, "unknown option 'maxConnexions': did you mean 'maxConnections'?"],
    ]
    for (const [options, message] of meant) {
      expect(thrown(() => new Server(handler, loose(options)))).toEqual(refusal(message))
    }
  })

  it('that resembles none is refused with the list of those that there are', () => {
    expect(thrown(() => new Server(handler, loose({ banana: 1 })))).toEqual(
      refusal(/^unknown option 'banana'; the options of a server are address, .*wheelSize$/),
    )
  })

  it('is refused where its value is undefined, too', () => {
    expect(thrown(() => new Server(handler, loose({ idletime: undefined })))).toEqual(refusal(/idleTime/))
  })

  it('of a loop, of connect, of broadcast and of stop is refused', async () => {
    expect(thrown(() => new EventLoop(loose({ ticks: 5 })))).toEqual(refusal(/did you mean 'tick'/))
    const loop = newLoop()
    await expect(loop.connect(':1', loose({ handler, timeOut: 5 }))).rejects.toEqual(
      refusal("unknown option 'timeOut': did you mean 'timeout'?"),
    )
    expect(thrown(() => loop.broadcast('x', loose({ slow: 'drop', filters: 1 })))).toEqual(
      refusal(/did you mean 'filter'/),
    )
    expect(thrown(() => loop.stop(loose({ drian: 5 })))).toEqual(refusal(/did you mean 'drain'/))
    const server = new Server(handler, { address: '127.0.0.1:0', poller: 'net', logger: false })
    servers.push(server)
    await server.start()
    await expect(server.broadcast('x', loose({ slwo: 'drop' }))).rejects.toEqual(
      refusal(/did you mean 'slow'/),
    )
    expect(thrown(() => server.stop(loose({ drains: 5 })))).toEqual(refusal(/did you mean 'drain'/))
  })

  it('of a codec, a pool and a wheel is refused', () => {
    const makes: [string, () => unknown][] = [
      ['newline', () => new LineProtocol(loose({ newLine: '\n' }))],
      ['delimiter', () => new DelimiterProtocol(loose({ delimeter: '\0' }))],
      ['length', () => new FixedLengthProtocol(loose({ lenght: 5 }))],
      ['endian', () => new LengthFieldProtocol(loose({ endain: 'big' }))],
      ['borrow', () => new RawProtocol(loose({ borow: true }))],
      ['maxBuffers', () => new RingBufferPool(loose({ maxBufers: 5 }))],
      ['wheelSize', () => new TimingWheel(loose({ wheelsize: 256 }))],
    ]
    for (const [name, make] of makes) {
      expect(thrown(make), name).toEqual(refusal(new RegExp(`did you mean '${name}'`)))
    }
  })
})

describe('options that are no object', () => {
  it('are refused with what was given', async () => {
    const loop = newLoop()
    const odd: [unknown, RegExp][] = [
      [null, /^the options of .+ must be an object, not null$/],
      [5, /^the options of .+ must be an object, not the number '5'$/],
      ['5', /^the options of .+ must be an object, not the string '5'$/],
      [[], /^the options of .+ must be an object, not an array$/],
      [() => 5, /^the options of .+ must be an object, not a function$/],
    ]
    for (const [options, message] of odd) {
      expect(thrown(() => new Server(handler, loose(options)))).toEqual(refusal(message))
      expect(thrown(() => new EventLoop(loose(options)))).toEqual(refusal(message))
      expect(thrown(() => new LineProtocol(loose(options)))).toEqual(refusal(message))
      expect(thrown(() => new DelimiterProtocol(loose(options)))).toEqual(refusal(message))
      expect(thrown(() => loop.stop(loose(options)))).toEqual(refusal(message))
      expect(thrown(() => loop.broadcast('x', loose(options)))).toEqual(refusal(message))
      await expect(loop.connect(':1', loose(options))).rejects.toEqual(refusal(message))
    }
  })
})

describe('an option that is for another kind of server', () => {
  it('is refused for a handler object where it concerns threads', async () => {
    for (const options of [{ loadBalance: 'round-robin' }, { execArgv: [] }, { resourceLimits: {} }]) {
      const [name] = Object.keys(options)
      await expect(new Server(handler, loose(options)).start()).rejects.toEqual(
        refusal(
          `${name} is for the threads of a module: a handler object is served by one loop in this thread`,
        ),
      )
    }
  })

  it('is refused for a module where it is the protocol', async () => {
    const server = new Server('./module.js', loose({ protocol: new LineProtocol() }))
    await expect(server.start()).rejects.toEqual(
      refusal('with a module the protocol is its export `protocol`, not an option'),
    )
  })
})

describe('checkOptions', () => {
  const KNOWN = { address: true, idleTime: true, maxConnections: true } as const

  it('takes all that is known, and no more', () => {
    checkOptions('a test', { address: 1, idleTime: undefined }, KNOWN)
    expect(thrown(() => checkOptions('a test', { toString: 1 }, KNOWN))).toEqual(refusal(/unknown option/))
  })

  it('takes an instance of a class with whatever else it has', () => {
    class Settings {
      readonly address = ':1'
      readonly comment = 'for a test'
    }
    checkOptions('a test', new Settings(), KNOWN)
  })

  it('suggests a name that has one letter too many, too few, or wrong', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.keys(KNOWN)),
        fc.nat(),
        fc.constantFrom('q', ''),
        fc.nat(1),
        (name, at, letter, cut) => {
          const position = at % name.length
          const odd = name.slice(0, position) + letter + name.slice(position + cut)
          if (Object.hasOwn(KNOWN, odd)) return
          expect(thrown(() => checkOptions('a test', { [odd]: 1 }, KNOWN))).toEqual(
            refusal(`unknown option '${odd}': did you mean '${name}'?`),
          )
        },
      ),
    )
  })
})
