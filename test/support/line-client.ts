/** A client of a server of lines: says a line, awaits the line that answers it, and tells answers from what just came. */
import { connectRaw, type RawClient, type Where } from './raw-client.js'
import { until } from './wait.js'

export class LineClient {
  readonly raw: RawClient
  readonly #lines: string[] = []
  readonly #byWord = new Map<string, string[]>()
  #unfinished = ''

  private constructor(raw: RawClient) {
    this.raw = raw
    raw.socket.on('data', (chunk: Buffer) => this.#take(chunk))
  }

  static async connect(where: Where): Promise<LineClient> {
    return new LineClient(await connectRaw(where))
  }

  #take(chunk: Buffer): void {
    const lines = (this.#unfinished + chunk.toString()).split('\n')
    this.#unfinished = lines.pop()!
    for (const line of lines) {
      this.#lines.push(line)
      const blank = line.indexOf(' ')
      this.#of(line.slice(0, blank)).push(line.slice(blank + 1))
    }
  }

  #of(word: string): string[] {
    let rests = this.#byWord.get(word)
    if (rests === undefined) {
      rests = []
      this.#byWord.set(word, rests)
    }
    return rests
  }

  get lines(): readonly string[] {
    return this.#lines
  }

  /** The lines that begin with `word`, without it. */
  of(word: string): readonly string[] {
    return this.#of(word)
  }

  /** Resolves with the lines of `word` once there are `count`. */
  async heard(word: string, count: number, ms?: number): Promise<readonly string[]> {
    const all = this.#of(word)
    await until(
      `${count} lines begin with '${word}' (${all.length} do)`,
      () => all.length >= count || this.raw.closed,
      ms,
    )
    return all
  }

  /** Says a line; gives the rest of the first line from then on that begins with `word`. */
  async say(line: string, word: string): Promise<string> {
    const before = this.#of(word).length
    this.raw.write(`${line}\n`)
    const after = await this.heard(word, before + 1)
    return after[before] ?? `closed instead of ${word}`
  }
}
