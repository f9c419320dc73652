/** Names of topics as subjects of NATS, and what the options of its broker must be. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { NatsBroker, type NatsBrokerOptions } from '../src/plugins/nats/index.js'
import { natsSettings } from '../src/plugins/nats/settings.js'
import { subjectOf } from '../src/plugins/nats/subject.js'

describe('the subject of a topic', () => {
  it.each([
    ['room-1_B', 'ringloop.room-1_B'],
    ['a b', 'ringloop.a=20b'],
    ['a.b', 'ringloop.a=2Eb'],
    ['*', 'ringloop.=2A'],
    ['>', 'ringloop.=3E'],
    ['a=20b', 'ringloop.a=3D20b'],
    ['50%', 'ringloop.50=25'],
    ["!'()~", 'ringloop.=21=27=28=29=7E'],
    ['Ä', 'ringloop.=C3=84'],
  ])('of %j is %j', (topic, subject) => {
    expect(subjectOf('ringloop', topic)).toBe(subject)
  })

  it('is one token, from which the topic can be told', () => {
    const topics = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 60 })
    fc.assert(
      fc.property(topics, (topic) => {
        const token = subjectOf('p', topic).slice(2)
        expect(token).toMatch(/^[\w=-]+$/)
        const bytes = token.replaceAll(/=([0-9A-F]{2})|(.)/g, (_, hex, as) =>
          as ? `%${hexOf(as)}` : `%${hex}`,
        )
        expect(decodeURIComponent(bytes)).toBe(topic)
      }),
    )
  })
})

function hexOf(character: string): string {
  return character.charCodeAt(0).toString(16).padStart(2, '0')
}

describe('the options of a NatsBroker', () => {
  const connection = (options: NatsBrokerOptions): object => natsSettings(options).connection

  it('say where the servers are', () => {
    const serversOf = (servers?: string | readonly string[]): readonly string[] =>
      natsSettings(servers === undefined ? {} : { servers }).servers
    expect(serversOf()).toEqual(['127.0.0.1:4222'])
    expect(serversOf('10.0.0.5')).toEqual(['10.0.0.5:4222'])
    expect(serversOf(['nats://a:1', 'tls://b', '[::1]:5'])).toEqual(['a:1', 'b:4222', '[::1]:5'])
  })

  it('say who connects, by themselves or in a URL', () => {
    expect(connection({ user: 'ada', pass: 'p@ss' })).toMatchObject({ user: 'ada', pass: 'p@ss' })
    expect(connection({ servers: 'nats://ada:p%40ss@a' })).toMatchObject({ user: 'ada', pass: 'p@ss' })
    expect(connection({ servers: ['nats://a', 'nats://secret@b'] })).toMatchObject({ token: 'secret' })
    expect(connection({ servers: 'nats://ada:p@a', token: 't' })).toMatchObject({ token: 't' })
    expect(connection({ servers: 'nats://ada:p@a', token: 't' })).not.toHaveProperty('user')
  })

  it('ask for TLS', () => {
    expect(connection({})).not.toHaveProperty('tls')
    expect(connection({ tls: true })).toMatchObject({ tls: {} })
    expect(connection({ servers: ['a', 'tls://b'] })).toMatchObject({ tls: {} })
    expect(connection({ tls: { ca: 'x' } })).toMatchObject({ tls: { ca: 'x' } })
  })

  const WRONG: readonly [string, object, RegExp][] = [
    ['no server', { servers: [] }, /servers must name one server/],
    ['a URL that is none', { servers: 'nats://secret:word@' }, /servers must be a URL such as/],
    ['a port that is none', { servers: 'host:99999' }, /servers must be a URL such as/],
    ['another protocol', { servers: 'redis://secret@host' }, /servers must be a URL such as/],
    ['WebSocket', { servers: ['ws://host'] }, /servers must be a URL such as/],
    ['a server that is no string', { servers: [5] }, /servers must be a URL such as/],
    ['a password that is not encoded', { servers: 'nats://ada:secret%@host' }, /write it as '%25'/],
    ['a prefix with a wildcard', { prefix: 'a.>' }, /prefix must be words/],
    ['a prefix with an empty word', { prefix: 'a..b' }, /prefix must be words/],
    ['an empty prefix', { prefix: '' }, /prefix must be words/],
    ['no time to connect', { connectTimeout: 0 }, /connectTimeout must be an integer/],
    ['a time that no timer has', { pingInterval: 2 ** 31 }, /pingInterval must be an integer/],
    ['no pause between attempts', { minReconnectDelay: 0 }, /minReconnectDelay must be an integer/],
    ['a delay that is none', { maxReconnectDelay: '5s' }, /maxReconnectDelay must be an integer/],
    ['a password without a user', { pass: 'secret' }, /pass needs a user/],
    ['a user that is no string', { user: 5 }, /user must be a string/],
    ['an empty token', { token: '' }, /token must be a string/],
    ['an authenticator that is none', { authenticator: 'x' }, /authenticator must be a function/],
    ['TLS that is none', { tls: 'yes' }, /tls must be the options/],
  ]
  it.each(WRONG)('refuse %s, and show no password', (_what, options, says) => {
    const make = (): unknown => new NatsBroker(options)
    expect(make).toThrow(expect.objectContaining({ code: 'ERR_RINGLOOP_OPTION' }))
    expect(make).toThrow(says)
    expect(make).not.toThrow(/secret/)
  })
})
