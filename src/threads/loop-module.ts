/**
 * The module that a loop imports, because a closure cannot cross into a thread: its default export is the handler, its
 * export `protocol` the protocol; each an object, a class made with `new (loop)`, or a factory called with the loop.
 */
import { ErrorCode, RingloopError, toError } from '../errors.js'
import type { Handler } from '../handler.js'
import type { EventLoop } from '../loop/event-loop.js'
import { checkHandler, checkProtocol } from '../options.js'
import type { Protocol } from '../protocol/protocol.js'
import { RawProtocol } from '../protocol/raw.js'

// biome-ignore lint/suspicious/noExplicitAny: which types the module uses is known to it alone
type Any = any

export interface LoopModule {
  readonly handler: (loop: EventLoop) => Promise<Handler<Any, Any>>
  readonly protocol: (loop: EventLoop) => Promise<Protocol<Any, Any>>
}

/** The module that this thread is importing or has imported; `undefined` outside a loop's thread. */
let current: string | undefined

/**
 * A module that starts its own server without asking whether it is in the main thread would start threads without end:
 * throws `ERR_RINGLOOP_STATE` when `url` is the module of this very loop.
 */
export function assertNotOwnModule(url: string): void {
  if (url !== current) return
  throw new RingloopError(
    ErrorCode.STATE,
    `${url} starts a server on itself in a loop's thread: start it only if \`isMainThread\` of node:worker_threads`,
  )
}

/** Imports it. Rejects with `ERR_RINGLOOP_MODULE_LOAD` or `ERR_RINGLOOP_MODULE_EXPORT`. */
export async function importLoopModule(url: string): Promise<LoopModule> {
  current = url
  const exported = exportsOf(await importModule(url))
  if (exported.default === undefined) {
    throw new RingloopError(
      ErrorCode.MODULE_EXPORT,
      `${url} has no default export: export its handler as default`,
    )
  }
  return {
    handler: (loop) => make(url, 'default', exported.default, loop, checkHandler),
    protocol: (loop) => make(url, 'protocol', exported.protocol ?? RawProtocol, loop, checkProtocol),
  }
}

async function importModule(url: string): Promise<Record<string, unknown>> {
  try {
    return (await import(url)) as Record<string, unknown>
  } catch (error) {
    const reason = toError(error).message
    throw new RingloopError(
      ErrorCode.MODULE_LOAD,
      `the loop module ${url} cannot be loaded: ${reason}`,
      error,
    )
  }
}

/**
 * What the module's author has exported. One that was compiled to CommonJS (`exports.default = …`, marked `__esModule`)
 * comes from `import` with all of its exports under `default`.
 */
function exportsOf(imported: Record<string, unknown>): Record<string, unknown> {
  const inner = imported.default as Record<string, unknown> | undefined | null
  return typeof inner === 'object' && inner?.__esModule === true ? inner : imported
}

async function make<T>(
  url: string,
  name: string,
  exported: unknown,
  loop: EventLoop,
  check: (made: T) => T,
): Promise<T> {
  try {
    return check((await instantiate(exported, loop)) as T)
  } catch (error) {
    const reason = toError(error).message
    throw new RingloopError(
      ErrorCode.MODULE_EXPORT,
      `the export ${name} of ${url} cannot be used: ${reason}`,
      error,
    )
  }
}

function instantiate(exported: unknown, loop: EventLoop): unknown {
  if (typeof exported !== 'function') return exported
  const isClass = /^class\b/.test(Function.prototype.toString.call(exported))
  return isClass
    ? new (exported as new (l: EventLoop) => unknown)(loop)
    : (exported as (l: EventLoop) => unknown)(loop)
}
