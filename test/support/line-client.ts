/** A client of a server of lines: says a line, awaits the line that answers it, and tells answers from what just came. */
import { connectRaw, type RawClient, type Where } from './raw-client.js'
import { until } from './wait.js'

export class LineClient {
  readonly raw: RawClient

  private constructor(raw: RawClient) {
    this.raw = raw
  }

  static async connect(where: Where): Promise<LineClient> {
    return new LineClient(await connectRaw(where))
  }

  get lines(): string[] {
    return this.raw.text.split('\n').slice(0, -1)
  }

  /** The lines that begin with `word`, without it. */
  of(word: string): string[] {
    return this.lines.filter((line) => line.startsWith(`${word} `)).map((line) => line.slice(word.length + 1))
  }

  /** Resolves with the lines of `word` once there are `count`. */
  async heard(word: string, count: number, ms?: number): Promise<string[]> {
    await until(
      `${count} lines begin with '${word}' (${this.of(word).length} do)`,
      () => this.of(word).length >= count || this.raw.closed,
      ms,
    )
    return this.of(word)
  }

  /** Says a line; gives the rest of the first line from then on that begins with `word`. */
  async say(line: string, word: string): Promise<string> {
    const before = this.of(word).length
    this.raw.write(`${line}\n`)
    const after = await this.heard(word, before + 1)
    return after[before] ?? `closed instead of ${word}`
  }
}
