/**
 * What was asked over a channel between threads and is not answered yet. Each end that asks has one; its thread only.
 */
import { ErrorCode, RingloopError, toError } from '../errors.js'

/** The answer to the question of the same `id`. */
export interface Answer {
  readonly type: 'answer'
  readonly id: number
  readonly result: unknown
  /** Why there is no result: what was asked could not be packed. */
  readonly error: string | undefined
  readonly code: ErrorCode | undefined
}

export interface Question {
  readonly bytes: number
  /** What to say when nobody is left to answer. */
  readonly otherwise: unknown
  resolve(result: unknown): void
  reject(error: Error): void
}

export class Questions {
  readonly #waiting = new Map<number, Question>()
  #last = 0
  #bytes = 0

  /** How many wait, and the bytes that were said to be in them. */
  get size(): number {
    return this.#waiting.size
  }

  get bytes(): number {
    return this.#bytes
  }

  /**
   * `post` sends the question under its number; where it throws, since what is asked cannot be cloned, that rejects with
   * `ERR_RINGLOOP_PACKET`. `otherwise` is the answer when the other thread ends.
   */
  ask<T>(otherwise: T, bytes: number, post: (id: number) => void): Promise<T> {
    const id = ++this.#last
    return new Promise((resolve, reject) => {
      try {
        post(id)
      } catch (error) {
        const reason = toError(error).message
        reject(
          new RingloopError(
            ErrorCode.PACKET,
            `what goes to other threads must be cloneable: ${reason}`,
            error,
          ),
        )
        return
      }
      this.add(id, { bytes, otherwise, resolve: resolve as Question['resolve'], reject })
    })
  }

  /** What was asked under a number that is not one of {@link ask}'s. */
  add(id: number, question: Question): void {
    this.#bytes += question.bytes
    this.#waiting.set(id, question)
  }

  settle({ id, result, error, code }: Answer): void {
    const question = this.#waiting.get(id)
    if (question === undefined) return
    this.#waiting.delete(id)
    this.#bytes -= question.bytes
    if (error === undefined) question.resolve(result)
    else question.reject(new RingloopError(code ?? ErrorCode.PACKET, error))
  }

  /** Nobody is left to answer. */
  giveUp(): void {
    for (const question of this.#waiting.values()) question.resolve(question.otherwise)
    this.#waiting.clear()
    this.#bytes = 0
  }
}

/** The answer that `work` gives. */
export async function answerTo(id: number, work: () => unknown): Promise<Answer> {
  try {
    return { type: 'answer', id, result: await work(), error: undefined, code: undefined }
  } catch (error) {
    const code = error instanceof RingloopError ? error.code : undefined
    return { type: 'answer', id, result: undefined, error: toError(error).message, code }
  }
}
