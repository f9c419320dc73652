/** How the IIP examples end when something goes wrong that is not a bug of theirs: one sentence, code 1. */

/** What `work` resolves with. */
export async function orFail<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    return fail((error as Error).message)
  }
}

export function fail(sentence: string): never {
  console.error(sentence)
  process.exit(1)
}
