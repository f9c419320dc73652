/**
 * Topics over Redis: what is published in one process reaches the subscribers of all.
 *
 *     new Server(url, { broker: new RedisBroker({ url: 'redis://127.0.0.1:6379' }) })
 *
 * Needs the package `@redis/client`, and Redis 7.0 or later.
 */
export { RedisBroker } from './redis-broker.js'
export type { RedisBrokerOptions, RedisHistoryOptions } from './redis-options.js'
