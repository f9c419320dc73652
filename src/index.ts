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

export { checkOptions, type OptionNames } from './check-options.js'
export type { Connection, OnSent, ProtocolConnection } from './connection.js'
export { type CloseCode, type CloseReason, ErrorCode, ProtocolError, RingloopError } from './errors.js'
export type { Handler, PerLoop } from './handler.js'
export {
  errorResponse,
  type HeaderMap,
  type HeadLimits,
  HeadMemo,
  HeadParser,
  HttpError,
  type RequestHead,
} from './http1/head.js'
export type { Logger, LoggerOption, LogLevel } from './log.js'
export { EventLoop } from './loop/client-loop.js'
export type { Histogram, LoopStats, ServerStats } from './loop/stats.js'
export { Timer, TimingWheel } from './loop/timer.js'
export type { TimingWheelOptions } from './loop/timing-wheel.js'
export type { BroadcastOptions, BroadcastResult, LocalBroadcastOptions, Loop } from './loop.js'
export type {
  Address,
  ConnectionLimits,
  ConnectOptions,
  ConsoleOptions,
  HandlerServerOptions,
  LoopOptions,
  MetricsOptions,
  MetricsRegistry,
  ModuleServerOptions,
  PollerOption,
  ServerOptions,
  StopOptions,
} from './options.js'
export { type DelimiterOptions, DelimiterProtocol } from './protocol/delimiter.js'
export { type FixedLengthOptions, FixedLengthProtocol } from './protocol/fixed-length.js'
export { type LengthFieldOptions, LengthFieldProtocol } from './protocol/length-field.js'
export { type LineOptions, LineProtocol } from './protocol/line.js'
export type { Packed, Packet, Protocol } from './protocol/protocol.js'
export { type RawOptions, RawProtocol } from './protocol/raw.js'
export { RingBufferPool, type RingBufferPoolOptions } from './ringbuffer/pool.js'
export { RingBuffer, RingBufferError } from './ringbuffer/ring-buffer.js'
export { BoundAddress, Server } from './server.js'
export type { LoadBalance, LoopLoad } from './threads/load-balance.js'
