/** The broker over a real Redis. Skipped, and said so, where there is none. */
import { describe } from 'vitest'
import { RedisBroker } from '../../src/plugins/redis/index.js'
import { hasRedis, RedisEngine } from '../support/redis-engine.js'
import { testBroker } from './broker.case.js'

if (!hasRedis)
  console.error('redis-broker: skipped, there is no redis-server (on Debian: apt-get install redis-server)')

describe.skipIf(!hasRedis)('RedisBroker', () => {
  testBroker<RedisEngine>({
    name: 'redis',
    startEngine: () => RedisEngine.start(),
    create: ({ url }, { history, patience, startTimeout }) =>
      new RedisBroker({
        url,
        ...(history && { history }),
        ...(patience && { pingInterval: patience }),
        ...(startTimeout && { connectTimeout: startTimeout }),
      }),
    hasHistory: true,
    hasTtl: true,
    canBeSilent: true,
  })
})
