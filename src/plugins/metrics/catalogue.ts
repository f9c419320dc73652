/** Every metric that is served: its name, what it means, and where in the counters it is. Pure. */
import type { BrokerStats, Histogram, LoopStats } from '../../index.js'

interface Described {
  readonly name: string
  readonly help: string
}

/** One number per loop. */
interface PlainMetric extends Described {
  readonly type: 'counter' | 'gauge'
  readonly value: (loop: LoopStats) => number
}

/** A counter per loop and reason. */
interface ReasonMetric extends Described {
  readonly type: 'counter'
  readonly byReason: (loop: LoopStats) => Readonly<Record<string, number>>
}

/** A histogram per loop; what was counted, divided by `divisor`, is in the unit that the name says. */
export interface HistogramMetric extends Described {
  readonly type: 'histogram'
  readonly histogram: (loop: LoopStats) => Histogram
  readonly divisor: number
}

export type LoopMetric = PlainMetric | ReasonMetric | HistogramMetric

/** One number of the broker, where the server has one. */
export interface BrokerMetric extends Described {
  readonly type: 'counter' | 'gauge'
  readonly ofBroker: (broker: BrokerStats) => number
}

export type CataloguedMetric = LoopMetric | BrokerMetric

const MS_PER_SECOND = 1000

export const CATALOGUE: readonly CataloguedMetric[] = [
  {
    name: 'ringloop_connections',
    help: 'Open connections, accepted ones and those made by connect.',
    type: 'gauge',
    value: (loop) => loop.connections,
  },
  {
    name: 'ringloop_connections_accepted_total',
    help: 'Connections accepted from a listener.',
    type: 'counter',
    value: (loop) => loop.accepted,
  },
  {
    name: 'ringloop_connections_rejected_total',
    help: 'Connections closed at accept because of maxConnections.',
    type: 'counter',
    value: (loop) => loop.rejected,
  },
  {
    name: 'ringloop_connections_made_total',
    help: 'Connections made by connect.',
    type: 'counter',
    value: (loop) => loop.connected,
  },
  {
    name: 'ringloop_connections_closed_total',
    help: 'Connections ended, by the code of their close reason.',
    type: 'counter',
    byReason: (loop) => loop.closed,
  },
  {
    name: 'ringloop_connections_lost_total',
    help: 'Connections that ended without onClose because the thread of their loop died.',
    type: 'counter',
    value: (loop) => loop.lost,
  },
  {
    name: 'ringloop_messages_received_total',
    help: 'Packets handed to onMessage.',
    type: 'counter',
    value: (loop) => loop.messagesIn,
  },
  {
    name: 'ringloop_messages_sent_total',
    help: 'Packets packed for sending.',
    type: 'counter',
    value: (loop) => loop.messagesOut,
  },
  {
    name: 'ringloop_received_bytes_total',
    help: 'Bytes read from connections.',
    type: 'counter',
    value: (loop) => loop.bytesIn,
  },
  {
    name: 'ringloop_sent_bytes_total',
    help: 'Bytes that the system has taken for sending.',
    type: 'counter',
    value: (loop) => loop.bytesOut,
  },
  {
    name: 'ringloop_write_buffer_bytes',
    help: 'Bytes that wait because their peers are slower than the server.',
    type: 'gauge',
    value: (loop) => loop.writeBufferBytes,
  },
  {
    name: 'ringloop_slow_consumer_drops_total',
    help: 'Messages that a broadcast or a publication did not send to a connection above its high-water mark.',
    type: 'counter',
    value: (loop) => loop.slowConsumerDrops,
  },
  {
    name: 'ringloop_handler_errors_total',
    help: 'Throws and rejections of handlers, timers and queued tasks.',
    type: 'counter',
    value: (loop) => loop.handlerErrors,
  },
  {
    name: 'ringloop_protocol_errors_total',
    help: 'Connections closed because the peer broke the protocol.',
    type: 'counter',
    value: (loop) => loop.protocolErrors,
  },
  {
    name: 'ringloop_tls_handshakes_total',
    help: 'TLS handshakes of accepted connections that went through.',
    type: 'counter',
    value: (loop) => loop.tlsHandshakes,
  },
  {
    name: 'ringloop_tls_resumed_total',
    help: 'TLS handshakes of accepted connections that resumed a session.',
    type: 'counter',
    value: (loop) => loop.tlsResumed,
  },
  {
    name: 'ringloop_tls_failures_total',
    help: 'TLS that failed, in the handshake of an accepted connection or later, by reason.',
    type: 'counter',
    byReason: (loop) => loop.tlsFailures,
  },
  {
    name: 'ringloop_tls_handshake_seconds',
    help: 'Time from the accept of a connection to the end of its TLS handshake.',
    type: 'histogram',
    histogram: (loop) => loop.tlsHandshakeTime,
    divisor: MS_PER_SECOND,
  },
  {
    name: 'ringloop_handler_seconds',
    help: 'Time in onMessage until it returned, estimated from a random sample of the messages.',
    type: 'histogram',
    histogram: (loop) => loop.handlerTime,
    divisor: MS_PER_SECOND,
  },
  {
    name: 'ringloop_batch_seconds',
    help: 'Time from the begin of a batch of the poller to the end of its flush.',
    type: 'histogram',
    histogram: (loop) => loop.batchTime,
    divisor: MS_PER_SECOND,
  },
  {
    name: 'ringloop_batch_records',
    help: 'Records, such as a read or an accepted connection, in a batch of the poller.',
    type: 'histogram',
    histogram: (loop) => loop.batchSize,
    divisor: 1,
  },
  {
    name: 'ringloop_loop_delay_seconds',
    help: 'Lateness of a timer of the thread of the loop, looked at 20 times a second.',
    type: 'histogram',
    histogram: (loop) => loop.loopDelay,
    divisor: MS_PER_SECOND,
  },
  {
    name: 'ringloop_loop_active_seconds_total',
    help: 'Time that the thread of the loop ran.',
    type: 'counter',
    value: (loop) => loop.activeMs / MS_PER_SECOND,
  },
  {
    name: 'ringloop_loop_idle_seconds_total',
    help: 'Time that the thread of the loop waited for events.',
    type: 'counter',
    value: (loop) => loop.idleMs / MS_PER_SECOND,
  },
  {
    name: 'ringloop_loop_restarts_total',
    help: 'Times that the thread of the loop died and was replaced.',
    type: 'counter',
    value: (loop) => loop.restarts,
  },
  {
    name: 'ringloop_broker_connected',
    help: '1 while the broker is connected, 0 while it is away.',
    type: 'gauge',
    ofBroker: (broker) => Number(broker.connected),
  },
  {
    name: 'ringloop_broker_topics',
    help: 'Topics that have subscribers in this process.',
    type: 'gauge',
    ofBroker: (broker) => broker.topics,
  },
  {
    name: 'ringloop_broker_published_total',
    help: 'Publications that the broker has taken.',
    type: 'counter',
    ofBroker: (broker) => broker.published,
  },
  {
    name: 'ringloop_broker_rejected_total',
    help: 'Publications that did not reach the broker.',
    type: 'counter',
    ofBroker: (broker) => broker.rejected,
  },
  {
    name: 'ringloop_broker_received_total',
    help: 'Messages that came over the broker for subscribers in this process.',
    type: 'counter',
    ofBroker: (broker) => broker.received,
  },
  {
    name: 'ringloop_broker_gaps_total',
    help: 'Times that subscribers in this process may have missed something.',
    type: 'counter',
    ofBroker: (broker) => broker.gaps,
  },
  {
    name: 'ringloop_broker_missed_total',
    help: 'Messages that are known to be missing.',
    type: 'counter',
    ofBroker: (broker) => broker.missed,
  },
  {
    name: 'ringloop_broker_strangers_total',
    help: 'Messages on the channels of the broker that are not from ringloop: dropped.',
    type: 'counter',
    ofBroker: (broker) => broker.strangers,
  },
]
