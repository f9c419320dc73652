/** For what not every server can do: Go's file and upload servers know no checksums and no status. */
import { IipRemoteError } from 'ringloop/iip'

const NO_HANDLER = 102

/** What `answer` resolves with; `undefined`: the server has no handler for that path. */
export async function ifHandled(answer: Promise<Buffer>): Promise<Buffer | undefined> {
  try {
    return await answer
  } catch (error) {
    if (error instanceof IipRemoteError && error.remoteCode === NO_HANDLER) return undefined
    throw error
  }
}
