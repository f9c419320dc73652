/** Topics on one loop over a fake poller: who gets what, in which order, and what is left of it afterwards. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import type { AnyConnection } from '../src/connection/host.js'
import type { Connection, ProtocolConnection } from '../src/connection.js'
import type { Handler } from '../src/handler.js'
import type { BroadcastResult } from '../src/loop.js'
import { FixedLengthProtocol } from '../src/protocol/fixed-length.js'
import { LengthFieldProtocol } from '../src/protocol/length-field.js'
import type { BroadcastPacker, Packed } from '../src/protocol/protocol.js'
import { RawProtocol } from '../src/protocol/raw.js'
import type { FakeSocket } from './fake-poller.js'
import { fakeLoop, settle } from './support/fake-loop.js'
import { LengthProtocol } from './support/length-protocol.js'
import { until } from './support/wait.js'

const silent: Handler = { onMessage() {} }

interface Peer {
  readonly socket: FakeSocket
  readonly c: AnyConnection
}

/** Above its mark, and its peer reads nothing. */
async function makeSlow({ socket, c }: Peer): Promise<void> {
  socket.room = () => 0
  c.send(Buffer.alloc(20))
  await settle()
}

/** What is left when everything that can go has gone. */
function heapBytes(): number {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  return process.memoryUsage().heapUsed
}

const text = ({ socket }: Peer): string => socket.out.toString()

describe('a topic', () => {
  it('reaches its subscribers and nobody else, and a publisher not itself', async () => {
    const { loop, accept } = await fakeLoop(silent)
    const [a, b, c] = [accept(), accept(), accept()]
    expect(a.c.subscribe('news')).toBe(true)
    expect(b.c.subscribe('news')).toBe(true)
    c.c.subscribe('News')
    expect(loop.subscribers('news')).toBe(2)
    expect(await a.c.publish('news', 'one ')).toEqual({ sent: 1, dropped: 0, closed: 0 })
    expect(await loop.publish('news', 'two')).toEqual({ sent: 2, dropped: 0, closed: 0 })
    expect(await loop.publish('nobody is there', 'x')).toEqual({ sent: 0, dropped: 0, closed: 0 })
    await settle()
    expect([text(a), text(b), text(c)]).toEqual(['two', 'one two', ''])
  })

  it('is subscribed to once, and left once', async () => {
    const { loop, accept } = await fakeLoop(silent)
    const { c } = accept()
    expect([...c.topics]).toEqual([])
    expect([c.subscribe('a'), c.subscribe('a'), c.subscribe('b')]).toEqual([true, false, true])
    expect([...c.topics]).toEqual(['a', 'b'])
    expect(await loop.publish('a', 'x')).toMatchObject({ sent: 1 })
    expect([c.unsubscribe('a'), c.unsubscribe('a'), c.unsubscribe('never')]).toEqual([true, false, false])
    expect([...c.topics]).toEqual(['b'])
    expect(loop.subscribers('a')).toBe(0)
    expect(await loop.publish('a', 'x')).toMatchObject({ sent: 0 })
  })

  it.each([
    ['an empty one', ''],
    ['256 bytes', 'é'.repeat(128)],
    ['a line feed', 'a\nb'],
    ['a C1 control', 'a\u0085b'],
    ['half a character', 'a\ud800'],
    ['a number', 5 as unknown as string],
  ])('is not called %s', async (_what, name) => {
    const { loop, accept } = await fakeLoop(silent)
    const { c } = accept()
    const refusal = expect.objectContaining({ code: 'ERR_RINGLOOP_TOPIC' })
    const calls = [
      () => c.subscribe(name),
      () => c.unsubscribe(name),
      () => c.publish(name, 'x'),
      () => loop.publish(name, 'x'),
      () => loop.subscribers(name),
    ]
    for (const call of calls) expect(call).toThrow(refusal)
    expect([...c.topics]).toEqual([])
  })

  it('may have a name of 255 bytes', async () => {
    const { loop, accept } = await fakeLoop(silent)
    const name = `${'é'.repeat(127)}x`
    expect(accept().c.subscribe(name)).toBe(true)
    expect(loop.subscribers(name)).toBe(1)
  })

  it('an option that nobody reads is refused', async () => {
    const { loop } = await fakeLoop(silent)
    const options = { slwo: 'drop' } as object
    expect(() => loop.publish('t', 'x', options)).toThrow(
      expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }),
    )
  })

  it('many publications of one turn leave with one write for each connection, in their order', async () => {
    const { loop, accept } = await fakeLoop(silent)
    const peers = [accept(), accept(), accept()]
    for (const { c } of peers) c.subscribe('t')
    for (let i = 0; i < 10; i++) void loop.publish('t', `${i} `)
    await settle()
    for (const peer of peers) {
      expect(text(peer)).toBe('0 1 2 3 4 5 6 7 8 9 ')
      expect(peer.socket.offers).toEqual([20])
    }
  })

  it('so do thousands of them, of thousands of bytes together, and none is lost', async () => {
    const { loop, accept } = await fakeLoop(silent, { slabBytes: 4096 })
    const peers = [accept(), accept(), accept()]
    for (const { c } of peers) c.subscribe('t')
    const all = Array.from({ length: 3000 }, (_, i) => `${i}${'.'.repeat(i % 700)} `)
    const results = await Promise.all(all.map((out) => loop.publish('t', out)))
    expect(new Set(results.map(({ sent }) => sent))).toEqual(new Set([3]))
    await settle()
    for (const peer of peers) expect(text(peer)).toBe(all.join(''))
  })

  it('keeps its place among what is sent, and comes before an end and a close', async () => {
    const { loop, accept } = await fakeLoop({ onMessage: () => 'answer ' })
    const [sends, ends, closes, answers, leaves] = [accept(), accept(), accept(), accept(), accept()]
    const peers = [sends, ends, closes, answers, leaves]
    for (const { c } of peers) c.subscribe('t')
    loop.queueInLoop(() => {
      void loop.publish('t', 'one ')
      sends.c.send('sent ')
      ends.c.shutdownWrite()
      closes.c.close()
      leaves.c.unsubscribe('t')
      void loop.publish('t', 'two ')
    })
    void loop.publish('t', 'zero ')
    answers.socket.read('question')
    await settle()
    expect(peers.map(text)).toEqual([
      'zero one sent two ',
      'zero one ',
      'zero one ',
      'zero answer one two ',
      'zero one ',
    ])
  })

  it('may be of bytes that are changed afterwards', async () => {
    const { loop, accept } = await fakeLoop(silent)
    const peer = accept()
    peer.c.subscribe('t')
    for (const length of [5, 100_000]) {
      const out = Buffer.alloc(length, 'a')
      void loop.publish('t', out)
      out.fill('b')
    }
    await settle()
    expect(text(peer)).toBe('a'.repeat(100_005))
  })

  it('is packed once for each protocol object, not for each subscriber', async () => {
    const fake = await fakeLoop(silent)
    for (let i = 0; i < 3; i++) fake.accept().c.subscribe('t')
    const other = new RawProtocol()
    for (let i = 0; i < 2; i++) {
      const connecting = fake.loop.connect('127.0.0.1:1', { handler: silent, protocol: other })
      await settle()
      fake.poller.finishConnect(fake.poller.all.at(-1)!)
      ;(await connecting).subscribe('t')
      fake.accept().c.subscribe('t')
    }
    const [{ c }] = [fake.accept()]
    const packs = [c.protocol, other].map((protocol) => vi.spyOn(protocol as RawProtocol, 'broadcast'))
    expect(await fake.loop.publish('t', 'x')).toMatchObject({ sent: 7 })
    expect(packs.map((pack) => pack.mock.calls.length)).toEqual([1, 1])
    await settle()
    expect(fake.poller.all.map(({ out }) => out.toString())).toEqual([...Array(7).fill('x'), ''])
  })

  it('is sent one by one where the protocol packs for each', async () => {
    const { loop, accept } = await fakeLoop(silent, { protocol: new LengthProtocol() })
    const peers = [accept(), accept()]
    for (const { c } of peers) c.subscribe('t')
    expect(await loop.publish('t', 'hello')).toMatchObject({ sent: 2 })
    await settle()
    expect(text(peers[0]!)).toBe(text(peers[1]!))
    expect(text(peers[0]!)).toContain('hello')
  })

  it('what the protocol cannot pack throws to the publisher, and the connections stay', async () => {
    const { loop, accept } = await fakeLoop(silent)
    const { c } = accept()
    c.subscribe('t')
    expect(() => loop.publish('t', 5 as unknown as string)).toThrow()
    expect(c.connected).toBe(true)
    expect(await loop.publish('t', 'x')).toMatchObject({ sent: 1 })
  })
})

describe('bytes that a protocol makes when their turn comes', () => {
  const state = async () => {
    const { loop, accept } = await fakeLoop(silent)
    const peer = accept()
    peer.c.subscribe('t')
    void loop.publish('t', 'one ')
    return { loop, peer }
  }

  it('are made behind the publications, and sent', async () => {
    const { loop, peer } = await state()
    const waited: number[] = []
    const sent = peer.c.sendPacked((c) => {
      waited.push(c.writeBufferLength)
      return Buffer.from('two ')
    })
    void loop.publish('t', 'three')
    expect([sent, waited]).toEqual([true, [4]])
    await settle()
    expect(text(peer)).toBe('one two three')
  })

  it('may be none, and are not made where nothing can be sent', async () => {
    const { peer } = await state()
    expect(peer.c.sendPacked(() => undefined)).toBe(false)
    const pack = vi.fn(() => Buffer.from('x'))
    peer.c.close()
    expect(peer.c.sendPacked(pack)).toBe(false)
    expect(pack).not.toHaveBeenCalled()
    await settle()
    expect(text(peer)).toBe('one ')
  })
})

describe('subscribers of several protocols', () => {
  it('what one protocol cannot pack rejects, and those of the other get it', async () => {
    class Refusing extends LengthProtocol {
      override packet(): Uint8Array[] {
        throw new Error('not a message of mine')
      }
    }
    const fake = await fakeLoop(silent)
    const before = fake.accept()
    before.c.subscribe('t')
    const connecting = fake.loop.connect('127.0.0.1:1', {
      handler: silent,
      protocol: new Refusing() as never,
    })
    await settle()
    fake.poller.finishConnect(fake.poller.all.at(-1)!)
    ;(await connecting).subscribe('t')
    const after = fake.accept()
    after.c.subscribe('t')
    for (const out of ['one ', 'two ']) {
      await expect(fake.loop.publish('t', out)).rejects.toThrow('not a message of mine')
    }
    await settle()
    expect([before, after].map(text)).toEqual(['one two ', 'one two '])
    expect(fake.logger.find('error', 'did not reach')).toHaveLength(2)
  })
})

describe('the protocol of the first subscriber', () => {
  class Picky extends RawProtocol {
    packed = 0
    override broadcast(): () => Packed {
      this.packed++
      throw new Error('not a message of mine')
    }
  }

  /** A loop with clients of a protocol that packs nothing in front of one that it accepts, if it is wanted. */
  async function pickyFirst(withOther: boolean) {
    const fake = await fakeLoop(silent)
    const protocol = new Picky()
    for (let i = 0; i < 3; i++) {
      const connecting = fake.loop.connect('127.0.0.1:1', { handler: silent, protocol })
      await settle()
      fake.poller.finishConnect(fake.poller.all.at(-1)!)
      ;(await connecting).subscribe('t')
    }
    const other = fake.accept()
    if (withOther) other.c.subscribe('t')
    return { ...fake, protocol, other }
  }

  it('does not decide for the others: they get it, and the promise rejects', async () => {
    const { loop, protocol, other, logger } = await pickyFirst(true)
    const publishing = loop.publish('t', 'x')
    await expect(publishing).rejects.toThrow('not a message of mine')
    await settle()
    expect(text(other)).toBe('x')
    expect([protocol.packed, loop.subscribers('t')]).toEqual([1, 4])
    expect(logger.find('error', 'did not reach')).toHaveLength(1)
  })

  it('and those of all others: what none of them can pack throws at once, asked once', async () => {
    const { loop, protocol } = await pickyFirst(false)
    expect(() => loop.publish('t', 'x')).toThrow('not a message of mine')
    expect(protocol.packed).toBe(1)
  })
})

describe('a subscriber', () => {
  it('may be one from onConnect on, in a handler and in a timer', async () => {
    const { loop, accept } = await fakeLoop({
      onConnect: (c) => {
        c.subscribe('a')
        c.loop.runAfter(1, () => c.subscribe('c'))
      },
      onMessage: (c) => void c.subscribe('b'),
    })
    const peer = accept()
    peer.socket.read('x')
    expect([...peer.c.topics]).toEqual(['a', 'b'])
    await until('the timer has subscribed', () => peer.c.topics.size === 3)
    for (const topic of ['a', 'b', 'c']) void loop.publish(topic, topic)
    await settle()
    expect(text(peer)).toBe('abc')
  })

  it('gets nothing before its handshake is over', async () => {
    class Shaking extends RawProtocol {
      readonly handshake = true
      onConnect(c: ProtocolConnection): void {
        c.subscribe('t')
      }
    }
    const { loop, accept } = await fakeLoop(silent, { protocol: new Shaking() })
    const peer = accept()
    expect(await loop.publish('t', 'early')).toMatchObject({ sent: 0 })
    peer.c.established()
    expect(await loop.publish('t', 'in time')).toMatchObject({ sent: 1 })
    await settle()
    expect(text(peer)).toBe('in time')
  })

  it('leaves its topics when its close begins, and knows them until its onClose is over', async () => {
    const seen: unknown[] = []
    const { loop, accept } = await fakeLoop({
      onMessage() {},
      onClose: (c) => {
        seen.push([...c.topics], c.subscribe('t'), c.loop.subscribers('t'))
        for (const topic of c.topics) void c.publish(topic, 'left')
        seen.push(c.unsubscribe('t'))
      },
    })
    const [leaver, other] = [accept(), accept()]
    leaver.c.subscribe('t')
    leaver.c.subscribe('u')
    other.c.subscribe('t')
    leaver.c.close()
    expect(loop.subscribers('t')).toBe(1)
    expect(await loop.publish('t', 'x ')).toMatchObject({ sent: 1 })
    await settle()
    expect(seen).toEqual([['t', 'u'], false, 1, true])
    expect([...leaver.c.topics]).toEqual([])
    expect([loop.subscribers('t'), loop.subscribers('u')]).toEqual([1, 0])
    expect([text(leaver), text(other)]).toEqual(['', 'x left'])
  })

  it('cannot become one when nothing can be sent to it any more', async () => {
    const { loop, accept } = await fakeLoop(silent)
    const [shut, closed] = [accept(), accept()]
    shut.c.subscribe('before')
    shut.c.shutdownWrite()
    closed.c.close()
    await settle()
    for (const { c } of [shut, closed]) expect(c.subscribe('t')).toBe(false)
    expect(loop.subscribers('t')).toBe(0)
    expect(await loop.publish('before', 'x')).toEqual({ sent: 0, dropped: 0, closed: 0 })
  })

  it('that never reads is left out, and its memory does not grow', async () => {
    const { loop, accept } = await fakeLoop(silent, { highWaterMark: 10 })
    const [quick, slow] = [accept(), accept()]
    for (const { c } of [quick, slow]) c.subscribe('t')
    await makeSlow(slow)
    const waits = slow.c.writeBufferLength
    for (let i = 0; i < 1000; i++) {
      expect(await loop.publish('t', 'x')).toEqual({ sent: 1, dropped: 1, closed: 0 })
    }
    expect(slow.c.writeBufferLength).toBe(waits)
    expect(loop.stats().slowConsumerDrops).toBe(1000)
    await settle()
    expect(quick.socket.out.length).toBe(1000)
  })

  it('that is slow may be closed for it', async () => {
    const closes: string[] = []
    const handler: Handler = { onMessage() {}, onClose: (_c, { code }) => void closes.push(code) }
    const { loop, accept } = await fakeLoop(handler, { highWaterMark: 10 })
    const [quick, slow] = [accept(), accept()]
    for (const { c } of [slow, quick]) c.subscribe('t')
    await makeSlow(slow)
    expect(await loop.publish('t', 'x', { slow: 'close' })).toEqual({ sent: 1, dropped: 1, closed: 1 })
    expect(loop.subscribers('t')).toBe(1)
    expect(await loop.publish('t', 'y', { slow: 'close' })).toEqual({ sent: 1, dropped: 0, closed: 0 })
    slow.socket.reset()
    await settle()
    expect(closes).toEqual(['slow-consumer'])
    expect(text(quick)).toBe('xy')
  })

  it('that a publication has closed is sent nothing behind it', async () => {
    const { loop, accept } = await fakeLoop(silent, { highWaterMark: 10 })
    const slow = accept()
    slow.c.subscribe('t')
    await makeSlow(slow)
    const waits = slow.c.writeBufferLength
    for (const last of [() => slow.c.send('late'), () => slow.c.sendRaw(Buffer.from('late'))]) {
      void loop.publish('t', 'x', { slow: 'close' })
      expect(last()).toBe(false)
      expect(slow.c.writeBufferLength).toBe(waits)
    }
  })

  it('keeps of the message that its topic is cut from nothing but the name', async () => {
    const { loop, accept } = await fakeLoop(silent)
    const { c } = accept()
    const before = heapBytes()
    for (let i = 0; i < 100; i++) {
      const message = Buffer.alloc(512 * 1024, `a-topic-of-some-length-${i} `).toString('latin1')
      c.subscribe(message.slice(0, message.indexOf(' ')))
    }
    expect(heapBytes() - before).toBeLessThan(10 * 1024 * 1024)
    expect(loop.subscribers('a-topic-of-some-length-99')).toBe(1)
  })

  it('may have 10,000 topics, and they all go with it', async () => {
    const { loop, accept } = await fakeLoop(silent)
    const [many, few] = [accept(), accept()]
    for (let i = 0; i < 10_000; i++) many.c.subscribe(`topic ${i}`)
    few.c.subscribe('topic 7')
    many.c.close()
    await settle()
    expect(many.c.topics.size).toBe(0)
    expect(loop.subscribers('topic 0')).toBe(0)
    expect(loop.subscribers('topic 7')).toBe(1)
  })

  it('without topics costs nothing for them', async () => {
    const { accept } = await fakeLoop(silent)
    const { c } = accept()
    const extra = (): unknown => (c as unknown as { extra: unknown }).extra
    expect(c.topics.size).toBe(0)
    c.unsubscribe('t')
    expect(extra()).toBe(undefined)
    c.subscribe('t')
    c.unsubscribe('t')
    expect(extra()).toBe(undefined)
  })
})

/** Does something to others in the middle of a delivery, where a protocol can. */
class Meddling extends RawProtocol {
  meddle: (c: Connection) => void = () => {}
  override broadcast(out: Uint8Array | string): () => Packed {
    const pack: BroadcastPacker<Uint8Array | string, unknown> = (c) => {
      this.meddle(c)
      return Buffer.from(out as string)
    }
    return pack as () => Packed
  }
}

describe.each([
  ['FixedLengthProtocol', new FixedLengthProtocol({ length: 4 }), 'too long', 'four', 'four'],
  ['LengthFieldProtocol', new LengthFieldProtocol({ size: 1 }), 'x'.repeat(300), 'fits', '\x04fits'],
])('%s', (_what, protocol, bad, good, wire) => {
  it('throws to who publishes or broadcasts what it cannot pack, and its connections stay', async () => {
    const { loop, accept } = await fakeLoop(silent, { protocol })
    const peers = [accept(), accept()]
    for (const { c } of peers) c.subscribe('t')
    const refusal = expect.objectContaining({ code: 'ERR_RINGLOOP_PACKET' })
    expect(() => loop.publish('t', bad)).toThrow(refusal)
    expect(() => loop.broadcast(bad)).toThrow(refusal)
    expect(await loop.publish('t', good)).toMatchObject({ sent: 2 })
    await settle()
    expect(peers.map(text)).toEqual([wire, wire])
  })
})

describe('what happens during a delivery', () => {
  it('who leaves or closes gets nothing more of it, who comes nothing yet', async () => {
    const protocol = new Meddling()
    const { loop, accept } = await fakeLoop(silent, { protocol })
    const [first, leaves, closes, stays, comes] = [accept(), accept(), accept(), accept(), accept()]
    for (const { c } of [first, leaves, closes, stays]) c.subscribe('t')
    protocol.meddle = () => {
      protocol.meddle = () => {}
      leaves.c.unsubscribe('t')
      closes.c.close()
      comes.c.subscribe('t')
    }
    expect(await loop.publish('t', '1')).toEqual({ sent: 2, dropped: 0, closed: 0 })
    expect(await loop.publish('t', '2')).toEqual({ sent: 3, dropped: 0, closed: 0 })
    await settle()
    expect([first, leaves, closes, stays, comes].map(text)).toEqual(['12', '', '', '12', '2'])
  })

  it('a publication within it comes after it', async () => {
    const protocol = new Meddling()
    const { loop, accept } = await fakeLoop(silent, { protocol })
    const [a, b] = [accept(), accept()]
    for (const { c } of [a, b]) c.subscribe('t')
    protocol.meddle = (c) => {
      protocol.meddle = () => {}
      void c.publish('t', 'inner')
    }
    await loop.publish('t', 'outer')
    await settle()
    expect([text(a), text(b)]).toEqual(['outer', 'outerinner'])
  })

  it('a packer that fails ends that subscriber alone', async () => {
    const protocol = new Meddling()
    const { loop, accept } = await fakeLoop(silent, { protocol })
    const [good, bad, also] = [accept(), accept(), accept()]
    for (const { c } of [good, bad, also]) c.subscribe('t')
    protocol.meddle = (c) => {
      if (c === (bad.c as unknown)) throw new Error('not for this one')
    }
    expect(await loop.publish('t', 'x')).toMatchObject({ sent: 2 })
    await settle()
    expect([good, bad, also].map(text)).toEqual(['x', '', 'x'])
    expect(bad.c.connected).toBe(false)
  })

  it('an onClose that throws, unsubscribes others and publishes harms nobody', async () => {
    const peers: Peer[] = []
    const handler: Handler = {
      onMessage() {},
      onClose: (c) => {
        peers[2]!.c.unsubscribe('t')
        void c.publish('t', 'gone ')
        throw new Error('a bad onClose')
      },
    }
    const { loop, accept, logger } = await fakeLoop(handler, { highWaterMark: 10 })
    peers.push(accept(), accept(), accept())
    for (const { c } of peers) c.subscribe('t')
    await makeSlow(peers[0]!)
    expect(await loop.publish('t', 'x ', { slow: 'close' })).toEqual({ sent: 2, dropped: 1, closed: 1 })
    peers[0]!.socket.reset()
    await settle()
    expect(logger.find('error', 'a bad onClose')).toHaveLength(1)
    expect(peers.slice(1).map(text)).toEqual(['x gone ', 'x '])
    expect(await loop.publish('t', 'y')).toEqual({ sent: 1, dropped: 0, closed: 0 })
  })
})

describe('a model of topics', () => {
  const PEERS = 4
  const peer = fc.nat(PEERS - 1)
  const topic = fc.constantFrom('a', 'b', 'c')
  const step = fc.oneof(
    fc.record({ do: fc.constant('subscribe' as const), peer, topic }),
    fc.record({ do: fc.constant('unsubscribe' as const), peer, topic }),
    fc.record({ do: fc.constant('publish' as const), peer, topic }),
    fc.record({ do: fc.constant('publish by the loop' as const), peer, topic }),
    fc.record({ do: fc.constant('send' as const), peer, topic }),
    fc.record({ do: fc.constant('turn' as const), peer, topic }),
    { weight: 1, arbitrary: fc.record({ do: fc.constant('close' as const), peer, topic }) },
  )

  interface Modelled extends Peer {
    readonly topics: Set<string>
    expected: string
    open: boolean
  }

  it('gives each exactly what it says, in order', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const { loop, accept, poller } = await fakeLoop(silent)
        const add = (): Modelled => ({ ...accept(), topics: new Set(), expected: '', open: true })
        const peers = Array.from({ length: PEERS }, add)
        const results: Promise<BroadcastResult>[] = []
        const expected: BroadcastResult[] = []
        for (const [i, { do: what, peer: at, topic: name }] of steps.entries()) {
          const p = peers[at]!
          if (what === 'turn') await settle()
          else if (what === 'send') {
            if (p.open) p.expected += `s${i} `
            p.c.send(`s${i} `)
          } else if (what === 'subscribe') {
            expect(p.c.subscribe(name)).toBe(p.open && !p.topics.has(name))
            if (p.open) p.topics.add(name)
          } else if (what === 'unsubscribe') {
            // One that is closing knows its topics until its onClose: what it says of them then is tested elsewhere.
            if (p.open) expect(p.c.unsubscribe(name)).toBe(p.topics.delete(name))
          } else if (what === 'close') {
            p.c.close()
            p.open = false
            p.topics.clear()
          } else {
            const self = what === 'publish' ? p : undefined
            const out = `${name}${i} `
            results.push(self === undefined ? loop.publish(name, out) : self.c.publish(name, out))
            const to = peers.filter((each) => each !== self && each.topics.has(name))
            for (const each of to) each.expected += out
            expected.push({ sent: to.length, dropped: 0, closed: 0 })
          }
          for (const each of ['a', 'b', 'c']) {
            expect(loop.subscribers(each)).toBe(peers.filter(({ topics }) => topics.has(each)).length)
          }
        }
        expect(await Promise.all(results)).toEqual(expected)
        await settle()
        expect(peers.map(text)).toEqual(peers.map((each) => each.expected))
        expect(poller.violations).toEqual([])
        await loop.stop()
      }),
      { numRuns: 100 },
    )
  })
})
