/**
 * What runs in a loop's thread: imports the module, makes the loop, serves what arrives, and stops when told to. Its
 * counterpart in the server's thread is loop-thread.ts.
 */
import assert from 'node:assert'
import { inspect } from 'node:util'
import { parentPort, workerData } from 'node:worker_threads'
import { ErrorCode, RingloopError, toError } from '../errors.js'
import type { Logger } from '../log.js'
import { EventLoop, NOTHING_SENT } from '../loop/event-loop.js'
import { listenOn, SharedAdmission } from '../loop/listen.js'
import { LoopMonitor } from '../loop/loop-monitor.js'
import { NativePoller } from '../loop/poller/native-poller.js'
import { NetPoller } from '../loop/poller/net-poller.js'
import type { Endpoint, Poller, PollerSink } from '../loop/poller/poller.js'
import { SharedStats } from '../loop/stats.js'
import { createService, socketSettings } from '../options.js'
import { DescriptorInbox } from './descriptor-inbox.js'
import { importLoopModule } from './loop-module.js'
import type { FromThread, LogMethod, ThreadSetup, ToThread } from './thread-messages.js'

assert(parentPort !== null, 'loop-thread-main runs in a worker thread')
const port = parentPort
const setup = workerData as ThreadSetup

function tell(message: FromThread): void {
  port.postMessage(message)
}

/** Log lines are written by the server's logger, in its thread. */
const logger = Object.fromEntries(
  (['debug', 'info', 'warn', 'error'] as const).map((method) => [method, forward.bind(undefined, method)]),
) as unknown as Logger

function forward(method: LogMethod, fields: object, message: string): void {
  const plain = Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, plainField(value)]))
  tell({ type: 'log', method, fields: { loop: setup.id, ...plain }, message })
}

/** What can cross threads: of an error its text, which cloning would rob of its code; of an odd value how it prints. */
function plainField(value: unknown): unknown {
  if (value instanceof Error) {
    const { name, message, stack, code } = value as NodeJS.ErrnoException
    const cause = value.cause === undefined ? {} : { cause: toError(value.cause).message }
    return { type: name, message, stack, ...(code !== undefined && { code: String(code) }), ...cause }
  }
  return typeof value === 'object' || typeof value === 'function' ? inspect(value) : value
}

let poller: Poller
let inbox: DescriptorInbox | undefined

function createPoller(sink: PollerSink): Poller {
  const { pollerOptions } = setup
  poller =
    setup.poller === 'native' ? new NativePoller(sink, pollerOptions) : new NetPoller(sink, pollerOptions)
  return poller
}

function createInbox(loop: EventLoop): DescriptorInbox {
  const settings = socketSettings(setup.limits)
  return new DescriptorInbox(loop, (fd) => (poller as NetPoller).adoptDescriptor(fd, settings))
}

function mailbox(): number {
  if (inbox !== undefined) return inbox.mailbox
  return poller instanceof NativePoller ? poller.mailbox : -1
}

async function start(): Promise<EventLoop> {
  const { id, serverId, data, tick, wheelSize, intake, maxConnections, limits } = setup
  const stats = SharedStats.from(setup.stats)
  const options = {
    logger,
    data,
    ...(tick !== undefined && { tick }),
    ...(wheelSize !== undefined && { wheelSize }),
  }
  const module = await importLoopModule(setup.moduleUrl)
  const loop = new EventLoop(options, { id, serverId, stats, createPoller })
  const handler = await module.handler(loop)
  const service = createService(handler, await module.protocol(loop), limits)
  await loop.serve(service, new SharedAdmission(stats, id, maxConnections))
  if (intake === 'descriptors') inbox = createInbox(loop)
  if (setup.monitor) new LoopMonitor(loop)
  const endpoint = intake === 'listen' ? await listen(loop) : undefined
  port.on('message', (message: ToThread) => receive(loop, message))
  tell({ type: 'ready', mailbox: mailbox(), endpoint })
  return loop
}

function listen(loop: EventLoop): Promise<Endpoint> {
  const { endpoint, reusePort, backlog, limits } = setup
  return listenOn(loop, endpoint, { ...socketSettings(limits), reusePort, backlog, park: false })
}

function receive(loop: EventLoop, message: ToThread): void {
  switch (message.type) {
    case 'stop':
      void loop.stop({ drain: message.drain }).then(() => {
        inbox?.destroy()
        tell({ type: 'stopped' })
      })
      break
    case 'broadcast':
      broadcast(loop, message)
      break
    case 'socket':
      ;(poller as NetPoller).adoptSocket(message.socket)
  }
}

function broadcast(loop: EventLoop, { id, out, options }: Extract<ToThread, { type: 'broadcast' }>): void {
  try {
    tell({ type: 'broadcast', id, result: loop.broadcast(out as never, options), error: undefined })
  } catch (error) {
    tell({ type: 'broadcast', id, result: NOTHING_SENT, error: toError(error).message })
  }
}

function fail(error: unknown): void {
  const known = error instanceof RingloopError
  const { message } = toError(error)
  const cause = known ? error.cause : error
  const plain = cause instanceof Error ? { message: cause.message, stack: cause.stack } : undefined
  tell({ type: 'failed', code: known ? error.code : ErrorCode.LOOP_START, message, cause: plain })
  port.close()
}

start().catch(fail)
