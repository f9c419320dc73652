/**
 * A page with live plots of a server's loops, served by the thread of the server and fed over a WebSocket. Most need only
 * the server's option:
 *
 *     new Server(module, { console: { address: '127.0.0.1:1389' } })   then: open http://127.0.0.1:1389
 */
import { type ConsoleAt, type ConsoleSource, startConsole } from './console-server.js'

/** Serves the page; called by the server for its option `console`. @internal */
export function serveConsole(
  source: ConsoleSource,
  settings: { readonly endpoint: ConsoleAt },
): Promise<{ endpoint: ConsoleAt; stop(): Promise<void> }> {
  return startConsole(source, settings.endpoint)
}
