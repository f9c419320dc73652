/**
 * ringloop: TCP servers with a protocol of your own, on loops in threads.
 *
 *     import { Server } from 'ringloop'
 *
 *     const server = new Server({ onMessage: (c, ctx, data) => data }, { address: ':1833' })
 *     await server.start()
 *
 * In reading order: the server, what a user writes, what a user is given, and the parts underneath.
 */

export { BoundAddress } from './bound-address.js'
export { MemoryBroker, MemoryExchange, type MemoryExchangeOptions } from './broker/memory-broker.js'
export type { BrokerStats } from './broker/stats.js'
export type { Broker, BrokerHost, BrokerPosition, KeptMessage, KeptMessages } from './broker.js'
export { checkFunction } from './check-function.js'
export { checkInteger, checkLimit } from './check-integer.js'
export { checkOptions, type OptionNames } from './check-options.js'
export { pipe } from './connection/pipe.js'
export type {
  Connection,
  OnSent,
  ProtocolConnection,
  SubscribeOptions,
  Subscription,
} from './connection.js'
export { type CloseCode, type CloseReason, ErrorCode, ProtocolError, RingloopError } from './errors.js'
export type { ExtendedServer, Extension } from './extension.js'
export type { Gap, Handler, PerLoop } from './handler.js'
export type { Logger, LoggerOption, LogLevel } from './log.js'
export { LogLimit } from './log-limit.js'
export { EventLoop } from './loop/client-loop.js'
export type { Endpoint } from './loop/poller/poller.js'
export type { Histogram, LoopStats, ServerStats } from './loop/stats.js'
export type { BroadcastOptions, BroadcastResult, LocalBroadcastOptions, Loop } from './loop.js'
export {
  type Address,
  type ConnectionLimits,
  type ConnectOptions,
  type HandlerServerOptions,
  type LoopOptions,
  type ModuleServerOptions,
  type PollerOption,
  parseAddress,
  type ServerOptions,
  type StopOptions,
} from './options.js'
export { type DelimiterOptions, DelimiterProtocol } from './protocol/delimiter.js'
export { type FixedLengthOptions, FixedLengthProtocol } from './protocol/fixed-length.js'
export { type LengthFieldOptions, LengthFieldProtocol } from './protocol/length-field.js'
export { type LineOptions, LineProtocol } from './protocol/line.js'
export type { BroadcastPacker, Packed, Packet, Protocol } from './protocol/protocol.js'
export { type RawOptions, RawProtocol } from './protocol/raw.js'
export { MAX_UTF8_BYTES } from './protocol/write-into.js'
export { type ByteReader, type ByteSource, ByteStream } from './ringbuffer/byte-stream.js'
export { RingBufferPool, type RingBufferPoolOptions } from './ringbuffer/pool.js'
export { RingBuffer, RingBufferError } from './ringbuffer/ring-buffer.js'
export { allocateBuffer, BufferSlab } from './ringbuffer/slab.js'
export { Server } from './server.js'
export type { DeadLoop } from './threads/dead-loop.js'
export type { LoadBalance, LoopLoad } from './threads/load-balance.js'
export { Timer, TimingWheel } from './timers/index.js'
export type { TimingWheelOptions } from './timers/timing-wheel.js'
export type { TlsFailure } from './tls-failure.js'
export type { TlsInfo } from './tls-info.js'
export type { NamedTlsOptions, ServerTlsOptions } from './tls-options.js'
