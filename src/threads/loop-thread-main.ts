/**
 * What runs in a loop's thread: imports the module, makes the loop, serves what arrives, and stops when told to, by the
 * server or by its own handler. Its counterpart in the server's thread is loop-thread.ts.
 */
import { inspect } from 'node:util'
import { workerData } from 'node:worker_threads'
import { connectionConfig } from '../connection/config.js'
import { ErrorCode, RingloopError, toError } from '../errors.js'
import type { Logger } from '../log.js'
import { SharedAdmission } from '../loop/admission.js'
import { NOTHING_SENT } from '../loop/broadcast-result.js'
import { EventLoop } from '../loop/event-loop.js'
import { listenOn } from '../loop/listen.js'
import { LoopMonitor } from '../loop/loop-monitor.js'
import { NativePoller } from '../loop/poller/native-poller.js'
import { NetPoller } from '../loop/poller/net-poller.js'
import type { Endpoint, Poller, PollerSink } from '../loop/poller/poller.js'
import type { Publication } from '../loop/publication.js'
import { type CaughtUp, hasHistory, NOT_CAUGHT_UP } from '../loop/remote-topics.js'
import { SharedStats } from '../loop/stats.js'
import type { BroadcastResult } from '../loop.js'
import { socketSettings } from '../options.js'
import { Arrivals } from './arrivals.js'
import { resolvesWithin, STOP_GRACE_MS } from './deadline.js'
import { DescriptorInbox } from './descriptor-inbox.js'
import { isPostable, LetterReader } from './letter.js'
import { importLoopModule } from './loop-module.js'
import { LoopPost } from './loop-post.js'
import { Outbox } from './outbox.js'
import { Publisher } from './publication.js'
import { answerTo, Questions } from './questions.js'
import type {
  FromThread,
  GapMessage,
  LogMethod,
  LoopMessage,
  PublishMessage,
  ServerMessage,
  ThreadData,
  ToThread,
} from './thread-messages.js'

const { setup, port } = workerData as ThreadData

/** What waits for its turn. */
type Arrival = PublishMessage | GapMessage | LetterReader

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
    const cause = value.cause === undefined ? {} : { cause: String(toError(value.cause).message) }
    return {
      type: String(name),
      message: String(message),
      stack: String(stack),
      ...(code !== undefined && { code: String(code) }),
      ...cause,
    }
  }
  return ['object', 'function', 'symbol'].includes(typeof value) ? inspect(value) : value
}

const stats = SharedStats.from(setup.stats)
const questions = new Questions()
const publisher = new Publisher(questions, stats, setup.id, Math.max(1, stats.numLoops - 1))
/** Of this tick, for the server. */
const outbox = new Outbox<LoopMessage>((messages) => tell({ type: 'batch', messages }))
/** Publications of other loops and machines, and what is said of those that did not come. */
const arrivals = new Arrivals<Arrival>(takeNext)
let poller: Poller
/** Replaced while the thread was starting, or later. */
let { pollerOptions } = setup
let inbox: DescriptorInbox | undefined
/** The short way to the other loops, where there is one. */
let post: LoopPost | undefined
/** Publications for the other loops that went over the server. */
let unansweredOverServer = 0
let loop: ThreadLoop | undefined
/** The server wants it to stop, with so many milliseconds to drain. */
let asked: number | undefined

function createPoller(sink: PollerSink): Poller {
  poller =
    setup.poller === 'native' ? new NativePoller(sink, pollerOptions) : new NetPoller(sink, pollerOptions)
  return poller
}

function createInbox(owner: EventLoop): DescriptorInbox {
  const settings = socketSettings(setup.limits)
  return new DescriptorInbox(owner, (fd) => (poller as NetPoller).adoptDescriptor(fd, settings))
}

/** The poller whose mailbox others send to. */
function mailboxOwner(): NativePoller | undefined {
  return poller instanceof NativePoller ? poller : inbox?.poller
}

/** Whoever stops it, the server hears of it: a handler may, and the thread has nothing to do from then on. */
class ThreadLoop extends EventLoop {
  #heard = false

  /** It never served: that the server hears of it by another way. */
  end(): Promise<void> {
    return super.stop().catch(() => {})
  }

  override stop(options: { readonly drain?: number } = {}): Promise<void> {
    const stopping = super.stop(options)
    if (!this.#heard) {
      this.#heard = true
      tell({ type: 'stopping' })
      post?.rest()
      void leave(stopping)
    }
    return stopping
  }
}

/** An `onStart` that is still running is waited for: `onStop` comes after it. */
async function leave(stopping: Promise<void>): Promise<void> {
  await stopping.catch((error: unknown) => logger.error({ err: error }, 'stopping the loop failed'))
  await starting
  post?.close()
  inbox?.destroy()
  tell({ type: 'stopped' })
}

async function start(): Promise<void> {
  const { id, serverId, data, tick, wheelSize, acceptMode, maxConnections, limits } = setup
  const options = {
    logger,
    data,
    ...(tick !== undefined && { tick }),
    ...(wheelSize !== undefined && { wheelSize }),
  }
  const module = await importLoopModule(setup.moduleUrl)
  assertWanted()
  const others = stats.numLoops > 1 || setup.broker !== undefined ? { relay } : {}
  const remoteTopics = setup.broker && { ...setup.broker, want, catchUp }
  const made = new ThreadLoop(options, {
    id,
    serverId,
    stats,
    createPoller,
    ...others,
    ...(remoteTopics && { remoteTopics }),
  })
  loop = made
  const handler = await module.handler(made)
  const config = connectionConfig(handler, await module.protocol(made), limits)
  assertWanted()
  await made.serve(config, new SharedAdmission(stats, id, maxConnections))
  assertWanted()
  if (acceptMode === 'descriptors') inbox = createInbox(made)
  if (setup.monitor) new LoopMonitor(made)
  const endpoint = acceptMode === 'listen' ? await listen(made) : undefined
  const owner = mailboxOwner()
  if (owner !== undefined && stats.numLoops > 1) post = new LoopPost(owner, setup.group, id, stats, arrivals)
  port.ref()
  tell({ type: 'ready', mailbox: owner?.mailbox ?? -1, endpoint })
}

/** Throws when it was stopped meanwhile. */
function assertWanted(): void {
  if (asked === undefined && loop?.stopping !== true) return
  throw new RingloopError(ErrorCode.CLOSED, `loop ${setup.id} was stopped before it served`)
}

function listen(owner: EventLoop): Promise<Endpoint> {
  const { endpoint, reusePort, backlog, receiveBuffer, limits } = setup
  const settings = { ...socketSettings(limits), reusePort, backlog, receiveBuffer, park: false }
  return listenOn(owner, endpoint, settings)
}

function receive(message: ToThread): void {
  switch (message.type) {
    case 'stop':
      asked = message.drain
      void loop?.stop({ drain: message.drain })
      break
    case 'broadcast':
      void answer(message.id, () => loop?.broadcast(message.out as never, message.options) ?? NOTHING_SENT)
      break
    case 'batch':
      // What its publisher has posted before this is here by now, and comes first.
      post?.take()
      for (const each of message.messages) receiveEach(each)
      break
    case 'subscribers':
      void answer(message.id, () => loop?.subscribers(message.topic) ?? 0)
      break
    case 'tls':
      pollerOptions = { ...pollerOptions, tls: message.tls }
      void answer(message.id, () => loop?.table.poller.setTls(message.tls))
      break
    case 'socket':
      ;(poller as NetPoller).adoptSocket(message.socket)
  }
}

function receiveEach(message: ServerMessage): void {
  if (message.type === 'answer') questions.settle(message)
  else arrivals.add(message)
}

async function answer(id: number, work: () => unknown): Promise<void> {
  tell(await answerTo(id, work))
}

/** Of a letter the next publication; whether there is one more. */
function takeNext(arrival: Arrival): boolean {
  if (arrival instanceof LetterReader) {
    void deliver(arrival.publication(), arrival.from)
    return arrival.hasMore
  }
  if (arrival.type === 'gap') loop?.topics.tellGap(arrival.topic, arrival.gap)
  else void deliver(arrival, undefined)
  return false
}

/** Answers the loop that has posted it to the mailbox `from`; without, the server. */
async function deliver({ id, publication }: PublishMessage, from: number | undefined): Promise<void> {
  const answer = await answerTo(id, () => loop?.topics.deliverOf(publication) ?? NOTHING_SENT)
  if (from === undefined) outbox.add(answer)
  else post?.answer(from, answer)
}

/** To the other loops, by one of two ways, and to other machines: what one way has is not to be overtaken on the other. */
function relay(publication: Publication): Promise<BroadcastResult> {
  const { topic, out, options } = publication
  // All subscribers get it from the server, in the order of its history.
  if (hasHistory(setup.broker?.historyPrefix, topic)) return askServer(publication)
  if (post === undefined || !isPostable(out) || unansweredOverServer > 0) {
    post?.flush()
    return relayOverServer(publication)
  }
  const posted = post.publish(topic, out, options.slow)
  return setup.broker === undefined ? posted : withBroker(posted, publication)
}

async function relayOverServer(publication: Publication): Promise<BroadcastResult> {
  unansweredOverServer++
  try {
    return await askServer(publication)
  } finally {
    unansweredOverServer--
  }
}

function askServer(publication: Publication): Promise<BroadcastResult> {
  return publisher.publish(publication, (id, copy) => outbox.add({ type: 'publish', id, publication: copy }))
}

/** The other loops have it. */
async function withBroker(
  posted: Promise<BroadcastResult>,
  publication: Publication,
): Promise<BroadcastResult> {
  const [result] = await Promise.all([posted, tellBroker(publication)])
  return result
}

async function tellBroker(publication: Publication): Promise<void> {
  if (publisher.isTooFarBehind) {
    throw new RingloopError(ErrorCode.BROKER, 'too much is on its way to the broker')
  }
  await askServer({ ...publication, isSpread: true })
}

function want(topic: string, isWanted: boolean): void {
  outbox.add({ type: 'want', topic, isWanted })
}

function catchUp(topic: string, since: string | undefined): Promise<CaughtUp> {
  return questions.ask(NOT_CAUGHT_UP, 0, (id) => outbox.add({ type: 'catch-up', id, topic, since }))
}

/** The thread is terminated when the server hears of it: the loop ends first, with `onStop` if it was started. */
async function fail(error: unknown): Promise<void> {
  if (loop !== undefined) await resolvesWithin(loop.end(), STOP_GRACE_MS)
  const known = error instanceof RingloopError
  const { message } = toError(error)
  const cause = known ? error.cause : error
  const plain = cause instanceof Error ? { message: cause.message, stack: cause.stack } : undefined
  tell({ type: 'failed', code: known ? error.code : ErrorCode.LOOP_START, message, cause: plain })
}

port.on('message', receive)
// Until it serves only what it does itself keeps the thread running: one that waits for nothing ends.
port.unref()
const starting = start().catch(fail)
