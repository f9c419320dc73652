/**
 * Topics over core NATS: the servers of all machines that are connected to the same NATS hear each other.
 *
 *     const broker = new NatsBroker({ servers: 'nats://10.0.0.5:4222' })
 *
 * Needs the package `@nats-io/transport-node`. See docs/topics.md.
 */
export { NatsBroker } from './nats-broker.js'
export type { NatsBrokerOptions } from './options.js'
