/** Everything that crosses between the server's thread and a loop's, and the one value that a thread is started with. */
import type { Socket } from 'node:net'
import type { ErrorCode } from '../errors.js'
import type { Endpoint, PollerOptions } from '../loop/poller/poller.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import type { ConnectionLimits } from '../options.js'

/** How a loop's connections reach it. */
export type Intake =
  /** The native poller reads them; they come through its mailbox. */
  | 'mailbox'
  /** The net poller reads them; their descriptors come through the addon's mailbox. */
  | 'descriptors'
  /** The net poller reads them; Node transfers them (`postMessage`). */
  | 'transfer'
  /** The loop listens by itself. */
  | 'listen'

export interface ThreadSetup {
  readonly id: number
  readonly serverId: string
  readonly moduleUrl: string
  readonly intake: Intake
  readonly poller: 'native' | 'net'
  /** With `listen`: where. */
  readonly endpoint: Endpoint
  readonly reusePort: boolean
  readonly backlog: number
  readonly maxConnections: number
  readonly limits: ConnectionLimits
  readonly tick: number | undefined
  readonly wheelSize: number | undefined
  readonly pollerOptions: PollerOptions
  readonly data: unknown
  readonly stats: SharedArrayBuffer
  /** Whether a LoopMonitor runs. */
  readonly monitor: boolean
}

export type LogMethod = 'debug' | 'info' | 'warn' | 'error'

export type ToThread =
  | { readonly type: 'stop'; readonly drain: number }
  | {
      readonly type: 'broadcast'
      readonly id: number
      readonly out: unknown
      readonly options: BroadcastOptions
    }
  | { readonly type: 'socket'; readonly socket: Socket }

export type FromThread =
  | { readonly type: 'ready'; readonly mailbox: number; readonly endpoint: Endpoint | undefined }
  | { readonly type: 'failed'; readonly code: ErrorCode; readonly message: string; readonly cause: unknown }
  | { readonly type: 'stopped' }
  | {
      readonly type: 'broadcast'
      readonly id: number
      readonly result: BroadcastResult
      /** Why it could not be packed. */
      readonly error: string | undefined
    }
  | { readonly type: 'log'; readonly method: LogMethod; readonly fields: object; readonly message: string }
