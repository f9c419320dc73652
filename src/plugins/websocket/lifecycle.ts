/**
 * How the WebSockets of one protocol object open, stay alive and close, in one role, server or client: the opening
 * handshake, the heartbeat and the closing handshake. Messages are the receiver's and the sender's. The loop's thread only.
 */
import {
  checkAnswer,
  checkHost,
  errorResponse,
  HeadParser,
  HttpError,
  type RequestHead,
  wholeResponse,
} from '../../http1/index.js'
import { type CloseReason, LogLimit, type RingBuffer } from '../../index.js'
import { ClientHandshake } from './client-handshake.js'
import { Deflater, Inflater, ZlibQueue } from './deflate.js'
import { acceptOffer, type DeflateParams } from './deflate-params.js'
import { CloseStatus, Opcode } from './frame.js'
import type { HttpAnswer, WebSocketSettings } from './options.js'
import type { Sender } from './sender.js'
import {
  asksForWebSocket,
  checkUpgrade,
  plainAnswer,
  switchingProtocols,
  type Upgrade,
} from './server-handshake.js'
import { Liveness, Session, type Shared, State, type WebSocketConnection } from './session.js'
import { SessionTimer } from './session-timer.js'
import { ParsedRequest } from './upgrade-request.js'

/** With which close code a connection ends that this side ends without a close handshake. */
const STATUS_OF: Readonly<Partial<Record<CloseReason['code'], number>>> = {
  closed: CloseStatus.NORMAL,
  'server-stopped': CloseStatus.GOING_AWAY,
  idle: CloseStatus.GOING_AWAY,
  'handshake-timeout': CloseStatus.GOING_AWAY,
  'protocol-error': CloseStatus.PROTOCOL_ERROR,
  'handler-error': CloseStatus.INTERNAL_ERROR,
  'slow-consumer': CloseStatus.POLICY,
  'read-buffer-full': CloseStatus.TOO_BIG,
}

/** How many outcomes of handshakes are kept to be shared, and how long a request may be for that. */
const SHARED_HEADS = 256
const SHARED_LENGTH = 2048

/** While a hook decides so many bytes may wait; then the client is held back. */
const READ_AHEAD = 64 * 1024

const FORBIDDEN: HttpAnswer = { status: 403 }
const HOOK_FAILED = 'a hook of the WebSocket handshake failed'
const NO_BYTES: Buffer = Buffer.alloc(0)

export class Lifecycle {
  readonly sender: Sender
  readonly #settings: WebSocketSettings
  readonly #zlib: ZlibQueue
  /** What a session has before its handshake is over. */
  readonly #nothingShared: Shared = { lifecycle: this, head: '', protocol: undefined }
  readonly #shared = new Map<string, Shared>()
  readonly #hookLog = new LogLimit()

  constructor(settings: WebSocketSettings, sender: Sender) {
    this.#settings = settings
    this.sender = sender
    this.#zlib = new ZlibQueue(settings.deflate?.concurrency ?? 1)
  }

  // ---- the opening handshake ---------------------------------------------------------------------------------------

  /** A connection is there: a client asks, a server waits. */
  begin(c: WebSocketConnection): void {
    const session = new Session(c, this.#nothingShared)
    c.session = session
    this.#startTimer(session, this.#settings.handshakeTimeout)
    if (this.#settings.client === undefined) {
      session.opening = new HeadParser(this.#settings)
    } else {
      session.opening = new ClientHandshake(this.#settings)
      c.sendRaw(session.opening.request(c.peerAddr || 'localhost'))
    }
  }

  /** Goes on with the handshake as far as the bytes go. Throws `ProtocolError`. */
  continueHandshake(c: WebSocketConnection, session: Session, buffer: RingBuffer): void {
    const { opening } = session
    if (session.state === State.DECIDING && buffer.length >= READ_AHEAD) c.pause()
    if (opening instanceof HeadParser) this.#readRequest(c, session, opening, buffer)
    else if (opening !== undefined) this.#readAnswer(session, opening, buffer)
  }

  #readRequest(c: WebSocketConnection, session: Session, parser: HeadParser, buffer: RingBuffer): void {
    let head: RequestHead | undefined
    try {
      head = parser.parse(buffer)
      if (head !== undefined) checkHost(head)
    } catch (error) {
      if (error instanceof HttpError) c.sendRaw(errorResponse(error.status, error.message, head?.method))
      session.state = State.CLOSED
      throw error
    }
    if (head === undefined) return
    session.opening = undefined
    this.#handleRequest(c, session, head)
  }

  #handleRequest(c: WebSocketConnection, session: Session, head: RequestHead): void {
    const { verify, onRequest } = this.#settings
    const request = new ParsedRequest(head)
    session.state = State.DECIDING
    if (!asksForWebSocket(head)) {
      this.#decide(
        session,
        () => onRequest?.(request, c),
        (answer) => this.#refuse(session, answer ?? plainAnswer(head), 200, head.method),
      )
      return
    }
    const upgrade = checkUpgrade(head)
    if (!('key' in upgrade)) {
      this.#refuse(session, upgrade, 400, head.method)
      return
    }
    this.#decide(
      session,
      () => (verify === undefined ? true : verify(request, c)),
      (verdict) => {
        if (verdict === true) this.#accept(c, session, request, upgrade)
        else this.#refuse(session, verdict || FORBIDDEN, 403, head.method)
      },
    )
  }

  /** Asks a hook of the user and goes on with what it says, now or later. */
  #decide<T>(session: Session, hook: () => T | Promise<T>, then: (given: T) => void): void {
    const { connection } = session
    try {
      const given = hook()
      if (!isPromise(given)) {
        then(given)
        return
      }
      connection.holdEnd()
      given
        .then((answer) => {
          connection.resume()
          then(answer)
        })
        .catch((error) => this.#hookFailed(session, error))
        .then(() => connection.releaseEnd())
    } catch (error) {
      this.#hookFailed(session, error)
    }
  }

  #hookFailed(session: Session, error: unknown): void {
    const { connection } = session
    const leftOut = this.#hookLog.admitError(HOOK_FAILED, error)
    if (leftOut !== undefined) {
      connection.loop.logger.error({ err: error, peer: connection.peerAddr, leftOut }, HOOK_FAILED)
    }
    if (session.state !== State.DECIDING) return
    connection.sendRaw(errorResponse(500))
    session.state = State.CLOSED
    connection.close({ code: 'handler-error', message: HOOK_FAILED })
  }

  #refuse(session: Session, answer: HttpAnswer, fallback: number, method: string): void {
    if (session.state !== State.DECIDING) return
    checkAnswer(answer)
    const { connection } = session
    const { status = fallback } = answer
    connection.sendRaw(wholeResponse({ ...answer, status }, method))
    session.state = State.CLOSED
    const message = `the request was answered with ${status}`
    connection.close({ code: 'closed', message })
  }

  #accept(c: WebSocketConnection, session: Session, request: ParsedRequest, upgrade: Upgrade): void {
    if (session.state !== State.DECIDING) return
    const protocol = this.#chooseProtocol(request)
    const { deflate } = this.#settings
    const agreed = deflate === undefined ? undefined : acceptOffer(upgrade.extensions, deflate)
    c.sendRaw(switchingProtocols(upgrade.key, protocol, agreed?.header ?? ''))
    session.shared = this.#share(request.compact(), protocol)
    this.#open(session, agreed?.params)
  }

  #chooseProtocol(request: ParsedRequest): string | undefined {
    const { protocols } = this.#settings
    const offered = request.protocols
    if (protocols === undefined || offered.length === 0) return undefined
    if (typeof protocols !== 'function') return offered.find((name) => protocols.includes(name))
    const chosen = protocols(offered, request)
    if (chosen === undefined || offered.includes(chosen)) return chosen
    throw new TypeError(`protocols() chose '${chosen}', which the client did not offer`)
  }

  /** Clients of one kind often say the same: then they share one string. */
  #share(head: string, protocol: string | undefined): Shared {
    const known = this.#shared.get(head)
    if (known !== undefined && known.protocol === protocol) return known
    const shared = { lifecycle: this, head, protocol }
    if (head.length <= SHARED_LENGTH) {
      if (this.#shared.size >= SHARED_HEADS) this.#shared.clear()
      this.#shared.set(head, shared)
    }
    return shared
  }

  #readAnswer(session: Session, client: ClientHandshake, buffer: RingBuffer): void {
    const agreement = client.read(buffer)
    if (agreement === undefined) return
    session.shared = { lifecycle: this, head: '', protocol: agreement.protocol }
    this.#open(session, agreement.deflate)
  }

  #open(session: Session, params: DeflateParams | undefined): void {
    const { deflate, client, heartbeatInterval } = this.#settings
    session.state = State.OPEN
    session.opening = undefined
    if (params !== undefined) {
      const [own, peers] =
        client === undefined ? [params.server, params.client] : [params.client, params.server]
      session.deflate = {
        inflater: new Inflater(peers, this.#zlib),
        deflater: new Deflater(own, deflate!, this.#zlib),
        outbox: [],
        outboxBytes: 0,
      }
    }
    if (heartbeatInterval > 0) this.#startTimer(session, heartbeatInterval)
    else this.#stopTimer(session)
    session.connection.established()
  }

  // ---- the closing handshake ---------------------------------------------------------------------------------------

  /** This side begins. */
  startClose(session: Session, code: number, reason: string): void {
    if (!session.open) return
    this.sender.close(session, code, reason)
    session.state = State.CLOSING
    session.ending = { code, reason }
    if (session.incoming !== undefined) session.incoming.discarded = true
    this.#startTimer(session, this.#settings.closeHandshakeTimeout)
  }

  /** The peer's close frame has come: it is answered if it came first. A client lets the server end the connection. */
  finishClose(session: Session, code: number, reason: string): void {
    const { connection } = session
    const began = session.state === State.OPEN
    if (began) {
      session.ending = { code, reason }
      this.sender.close(session, code === CloseStatus.NO_STATUS ? undefined : code, reason)
    }
    session.state = State.CLOSED
    if (this.#settings.client !== undefined) {
      this.#startTimer(session, this.#settings.closeHandshakeTimeout)
    } else if (began) {
      connection.close({ code: 'peer-closed', message: `the peer closed the WebSocket with ${code}` })
    } else {
      connection.close()
    }
  }

  /** This side ends it: what was sent goes out and a close frame behind it; the peer's answer is not waited for. */
  handleClosing(c: WebSocketConnection, session: Session, reason: CloseReason): void {
    // Answers that are still being compressed go out as they are.
    if (session.open && session.deflate !== undefined) this.sender.flushOutbox(c, session.deflate)
    const status = STATUS_OF[reason.code]
    if (session.state === State.OPEN && status !== undefined) {
      session.ending = { code: status, reason: '' }
      this.sender.close(session, status, '')
    }
    session.state = State.CLOSED
  }

  /** The connection has ended. */
  handleClose(session: Session): void {
    session.state = State.CLOSED
    session.opening = undefined
    session.incoming = undefined
    if (session.deflate !== undefined) this.sender.dropOutbox(session.deflate)
    this.#stopTimer(session)
  }

  // ---- time --------------------------------------------------------------------------------------------------------

  #startTimer(session: Session, ms: number): void {
    session.timer ??= new SessionTimer(session)
    if (ms === Number.POSITIVE_INFINITY) session.timer.stop()
    else session.connection.loop.addTimer(session.timer, ms)
  }

  #stopTimer(session: Session): void {
    session.timer?.stop()
    session.timer = undefined
  }

  /** The handshake, an answer to a ping or a close frame is late. */
  handleTimer(session: Session): void {
    const { connection } = session
    switch (session.state) {
      case State.OPEN:
        this.#beat(session)
        return
      case State.HANDSHAKE:
      case State.DECIDING:
        if (this.#settings.client === undefined) connection.sendRaw(errorResponse(408))
        session.state = State.CLOSED
        connection.close({ code: 'idle', message: 'the WebSocket handshake took too long' })
        return
      default:
        endLate(connection, { code: 'closed', message: 'the peer did not end the WebSocket in time' })
    }
  }

  /** A ping after an interval of silence, and the end after another. */
  #beat(session: Session): void {
    const { heartbeatInterval, heartbeatTimeout } = this.#settings
    const { connection } = session
    if (this.#isBusy(connection)) {
      session.liveness = Liveness.HEARD
      // Nobody reads what it answers, but where it is gone its system refuses the ping.
      if (connection.writeBufferLength === 0) this.sender.control(connection, Opcode.PING, NO_BYTES)
    }
    if (session.liveness === Liveness.HEARD) {
      session.liveness = Liveness.QUIET
      this.#startTimer(session, heartbeatInterval)
    } else if (session.liveness === Liveness.QUIET) {
      session.liveness = Liveness.PINGED
      this.sender.control(connection, Opcode.PING, NO_BYTES)
      this.#startTimer(session, heartbeatTimeout)
    } else {
      const message = `the peer did not answer a ping within ${heartbeatTimeout} ms`
      endLate(connection, { code: 'idle', message })
    }
  }

  /** Nothing is read of it now, or it takes what was sent, slowly: then its silence says nothing. */
  #isBusy(c: WebSocketConnection): boolean {
    if (c.paused) return true
    if (c.writeBufferLength === 0) return c.readBufferLength > 0
    return c.idleFor < this.#settings.heartbeatInterval
  }
}

function isPromise<T>(value: T | Promise<T>): value is Promise<T> {
  return typeof (value as Promise<T> | undefined)?.then === 'function'
}

/** Who has not taken what was sent before its time was over would not take a close frame behind it. */
function endLate(c: WebSocketConnection, reason: CloseReason): void {
  if (c.writeBufferLength > 0) c.abort(reason)
  else c.close(reason)
}
