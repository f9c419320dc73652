/**
 * Everything that crosses between the server's thread and a loop's. It goes through a channel of its own: `parentPort` and
 * what is posted on it belong to the user's module.
 */
import type { Socket } from 'node:net'
import type { MessagePort } from 'node:worker_threads'
import type { ErrorCode } from '../errors.js'
import type { Gap } from '../handler.js'
import type { Endpoint, PollerOptions } from '../loop/poller/poller.js'
import type { Publication } from '../loop/publication.js'
import type { BroadcastOptions } from '../loop.js'
import type { ConnectionLimits } from '../options.js'
import type { ServerTlsOptions } from '../tls-options.js'
import type { AcceptMode } from './accept-mode.js'
import type { Answer } from './questions.js'

export interface ThreadSetup {
  readonly id: number
  readonly serverId: string
  readonly moduleUrl: string
  readonly acceptMode: AcceptMode
  readonly poller: 'native' | 'net'
  /** With `listen`: where. */
  readonly endpoint: Endpoint
  readonly reusePort: boolean
  readonly backlog: number
  readonly receiveBuffer: number | undefined
  readonly maxConnections: number
  readonly limits: ConnectionLimits
  readonly tick: number | undefined
  readonly wheelSize: number | undefined
  readonly pollerOptions: PollerOptions
  readonly data: unknown
  readonly stats: SharedArrayBuffer
  /** Of the mailboxes of all loops; 0 where there are none. */
  readonly group: number
  /** Whether a LoopMonitor runs. */
  readonly monitor: boolean
  /** Where there is one. */
  readonly broker: { readonly historyPrefix: string | undefined } | undefined
}

/** The `workerData` of a loop's thread. */
export interface ThreadData {
  readonly setup: ThreadSetup
  /** The thread's end of the channel. */
  readonly port: MessagePort
}

export type LogMethod = 'debug' | 'info' | 'warn' | 'error'

/** From a loop to the server for the others, and from there to each of them. */
export interface PublishMessage {
  readonly type: 'publish'
  readonly id: number
  readonly publication: Publication
}

/** To a loop: its subscribers of `topic` may have missed something. */
export interface GapMessage {
  readonly type: 'gap'
  readonly topic: string
  readonly gap: Gap
}

/** From a loop: its first subscriber of `topic` has come, or its last one has gone. */
export interface WantMessage {
  readonly type: 'want'
  readonly topic: string
  readonly isWanted: boolean
}

/** From a loop: see `RemoteTopics.catchUp`. */
export interface CatchUpMessage {
  readonly type: 'catch-up'
  readonly id: number
  readonly topic: string
  readonly since: string | undefined
}

export type LoopMessage = PublishMessage | Answer | WantMessage | CatchUpMessage
export type ServerMessage = PublishMessage | Answer | GapMessage

/** What one tick has brought about, together. */
export interface Batch<Message> {
  readonly type: 'batch'
  readonly messages: readonly Message[]
}

export type ToThread =
  | { readonly type: 'stop'; readonly drain: number }
  | {
      readonly type: 'broadcast'
      readonly id: number
      readonly out: unknown
      readonly options: BroadcastOptions
    }
  | Batch<ServerMessage>
  | { readonly type: 'subscribers'; readonly id: number; readonly topic: string }
  | { readonly type: 'tls'; readonly id: number; readonly tls: ServerTlsOptions }
  | { readonly type: 'socket'; readonly socket: Socket }

export type FromThread =
  | { readonly type: 'ready'; readonly mailbox: number; readonly endpoint: Endpoint | undefined }
  | { readonly type: 'failed'; readonly code: ErrorCode; readonly message: string; readonly cause: unknown }
  /** Its loop is being stopped, by the server or by its own handler: it takes no more connections. */
  | { readonly type: 'stopping' }
  | { readonly type: 'stopped' }
  | Answer
  | Batch<LoopMessage>
  | { readonly type: 'log'; readonly method: LogMethod; readonly fields: object; readonly message: string }
