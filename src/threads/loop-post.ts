/**
 * The short way of publications between loops: from a loop's thread to the others through their native mailboxes, without
 * the server's thread. What a turn has published is one letter that all others read, what it has answered one letter for
 * each publisher. For text and bytes; the rest goes over the server (publication.ts). One per loop, its thread only; the
 * mailboxes are their pollers', and each learns from the group who is there and who has gone.
 */
import assert from 'node:assert'
import { leftOut, NOTHING_SENT } from '../loop/broadcast-result.js'
import { loadNativeAddon, MEMBER_INTS } from '../loop/poller/native-addon.js'
import type { NativePoller } from '../loop/poller/native-poller.js'
import type { SharedStats } from '../loop/stats.js'
import type { BroadcastOptions, BroadcastResult } from '../loop.js'
import { errno } from '../system-error.js'
import { LetterReader, LetterWriter } from './letter.js'
import { isTooFarBehind } from './publication.js'
import { type Answer, type Question, Questions } from './questions.js'

/** A group for the mailboxes of one server's loops; 0 where there is no addon. */
export function openGroup(): number {
  const addon = loadNativeAddon()
  return typeof addon === 'string' ? 0 : addon.openGroup()
}

/** Another loop of the group. */
class Peer {
  readonly questions: Questions = new Questions()
  readonly mailbox: Int32Array
  readonly loop: number
  /** It wants to be told of publications. */
  takes = false
  /** To what it has published, in this turn. */
  answers: LetterWriter | undefined = undefined

  constructor(mailbox: number, loop: number) {
    this.mailbox = Int32Array.of(mailbox)
    this.loop = loop
  }
}

/** The answers of all loops to one publication. */
class Collected implements Question {
  readonly bytes: number
  readonly otherwise = NOTHING_SENT
  readonly #resolve: (result: BroadcastResult) => void
  readonly reject: (error: Error) => void
  #missing: number
  #sent = 0
  #dropped: number
  #closed = 0

  /** `dropped`: by those that are not asked. */
  constructor(
    bytes: number,
    missing: number,
    dropped: number,
    resolve: (result: BroadcastResult) => void,
    reject: (error: Error) => void,
  ) {
    this.bytes = bytes
    this.#missing = missing
    this.#dropped = dropped
    this.#resolve = resolve
    this.reject = reject
  }

  resolve(result: BroadcastResult): void {
    this.#sent += result.sent
    this.#dropped += result.dropped
    this.#closed += result.closed
    this.#missing--
    if (this.#missing === 0) {
      this.#resolve({ sent: this.#sent, dropped: this.#dropped, closed: this.#closed })
    }
  }
}

/** Where letters with publications wait for their turn. */
export interface LetterQueue {
  add(letter: LetterReader): void
}

export class LoopPost {
  readonly #poller: NativePoller
  readonly #stats: SharedStats
  readonly #arrivals: LetterQueue
  readonly #members: Int32Array
  readonly #publications: LetterWriter
  /** By their mailboxes. */
  readonly #peers = new Map<number, Peer>()
  /** Whom the letter with publications goes to. */
  #to: Int32Array
  #toCount = 0
  #spareTo: Int32Array
  #lastId = 0
  #isFlushing = false

  /** Joins `group` as `loop`. */
  constructor(poller: NativePoller, group: number, loop: number, stats: SharedStats, arrivals: LetterQueue) {
    this.#poller = poller
    this.#stats = stats
    this.#arrivals = arrivals
    this.#members = new Int32Array(stats.numLoops * MEMBER_INTS)
    this.#to = new Int32Array(stats.numLoops)
    this.#spareTo = new Int32Array(stats.numLoops)
    this.#publications = new LetterWriter(poller.mailbox)
    poller.onPost = () => this.take()
    poller.joinGroup(group, loop)
    this.#lookAtGroup()
  }

  /** Everything that has come: publications wait for their turn, answers settle what was published. */
  take(): void {
    for (let bytes = this.#poller.takeLetter(); bytes !== undefined; bytes = this.#poller.takeLetter()) {
      const letter = new LetterReader(bytes)
      if (letter.isOfAnswers) this.#settle(letter)
      else this.#arrivals.add(letter)
    }
    this.#lookAtGroup()
  }

  #settle(letter: LetterReader): void {
    const questions = this.#peers.get(letter.from)?.questions
    while (questions !== undefined && letter.hasMore) questions.settle(letter.answer())
  }

  /** Those who are gone answer no more; their last letters were taken before. */
  #lookAtGroup(): void {
    const count = this.#poller.members(this.#members)
    if (count < 0) return
    const gone = new Map(this.#peers)
    for (let at = 0; at < count * MEMBER_INTS; at += MEMBER_INTS) {
      const mailbox = this.#members[at]!
      const peer = this.#peers.get(mailbox) ?? new Peer(mailbox, this.#members[at + 1]!)
      peer.takes = this.#members[at + 2] === 1
      this.#peers.set(mailbox, peer)
      gone.delete(mailbox)
    }
    for (const [mailbox, peer] of gone) this.#drop(mailbox, peer)
  }

  #drop(mailbox: number, peer: Peer): void {
    this.#peers.delete(mailbox)
    peer.questions.giveUp()
  }

  /** To the subscribers of all other loops. One that is too far behind is left out; a loop that dies does nothing. */
  publish(topic: string, out: string | Uint8Array, slow: BroadcastOptions['slow']): Promise<BroadcastResult> {
    const tooFar = this.#address()
    const missing = this.#toCount
    if (missing === 0) return Promise.resolve(leftOut(tooFar))
    this.#lastId = (this.#lastId + 1) >>> 0
    const id = this.#lastId
    this.#publications.addPublication(id, topic, out, slow)
    this.#flushSoon(this.#publications)
    return new Promise((resolve, reject) => {
      const collected = new Collected(out.length, missing, tooFar, resolve, reject)
      for (let i = 0; i < missing; i++) this.#peers.get(this.#to[i]!)!.questions.add(id, collected)
    })
  }

  /** Looks who gets the next publication; one for others than the letter that is begun is for goes into another. */
  #address(): number {
    const to = this.#spareTo
    let count = 0
    let tooFar = 0
    for (const [mailbox, peer] of this.#peers) {
      if (!peer.takes) continue
      if (isTooFarBehind(peer.questions, 1)) {
        this.#stats.countLeftOut(peer.loop, 1)
        tooFar++
      } else {
        to[count++] = mailbox
      }
    }
    if (!this.#isFor(to, count)) {
      this.#postPublications()
      this.#spareTo = this.#to
      this.#to = to
      this.#toCount = count
    }
    return tooFar
  }

  #isFor(to: Int32Array, count: number): boolean {
    if (count !== this.#toCount) return false
    for (let i = 0; i < count; i++) if (to[i] !== this.#to[i]) return false
    return true
  }

  /** To the loop that has posted what this answers, if it is still there. */
  answer(to: number, answer: Answer): void {
    const peer = this.#peers.get(to)
    if (peer === undefined) return
    peer.answers ??= new LetterWriter(this.#poller.mailbox)
    peer.answers.addAnswer(answer)
    this.#flushSoon(peer.answers)
  }

  #flushSoon({ isFull }: LetterWriter): void {
    if (isFull) {
      this.flush()
    } else if (!this.#isFlushing) {
      this.#isFlushing = true
      process.nextTick(() => {
        this.#isFlushing = false
        this.flush()
      })
    }
  }

  /** Posts what this turn has written so far. */
  flush(): void {
    this.#postPublications()
    for (const { answers, mailbox } of this.#peers.values()) {
      if (answers?.isEmpty === false) answers.finish((bytes, length) => this.#post(mailbox, 1, bytes, length))
    }
  }

  #postPublications(): void {
    if (this.#publications.isEmpty) return
    this.#publications.finish((bytes, length) => this.#post(this.#to, this.#toCount, bytes, length))
  }

  #post(to: Int32Array, count: number, bytes: Uint8Array, length: number): void {
    const rc = this.#poller.post(to, count, bytes, length)
    assert(rc === 0 || rc === errno.ESHUTDOWN, `a letter could not be posted: ${rc}`)
  }

  /** The others are to post no more publications to it. */
  rest(): void {
    this.#poller.rest()
  }

  /** Its poller is over: no answer will come. */
  close(): void {
    for (const [mailbox, peer] of this.#peers) this.#drop(mailbox, peer)
  }
}
